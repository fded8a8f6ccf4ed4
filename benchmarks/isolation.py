"""What a frozen host costs the readers of a healthy one.

python -m benchmarks.isolation    a table with ratios; exit 1 if the target is missed

One backend, two hosts. A real training host is stopped by SIGSTOP with a
training on it; a quiet one is well. One client reads the healthy training, anew
each time, in turn: alone; while 40 clients poll the frozen training; while the
same 40 poll the healthy one instead. The last tells the cost of 40 clients from
the cost of the frozen host.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter_ns

import grpc

from benchmarks.processes import long_training, program
from benchmarks.quiet_host import quiet_host
from benchmarks.targets import Target, exit_code, judged
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1 import training_service_pb2
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub

CLIENTS = 40
PAUSE = 0.25
"""Seconds between two polls of a client."""
ROUNDS, STAY = 4, 6.0
"""Rounds, and the seconds of each part of a round: longer than a read of a frozen host."""
ALONE, FROZEN, HEALTHY = "alone", "40 poll the frozen host", "40 poll the healthy host"
UNREACHABLE, FRESH = "HOST_UNREACHABLE", "fresh enough"
"""How a poll of a frozen training has to end now and then, and how none may."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A backend with a training on a frozen host and one on a healthy host."""

    address: str
    frozen: str
    healthy: str


@dataclass(slots=True)
class Part:
    """What was measured in one of the situations."""

    times: list[int] = field(default_factory=list)
    """Nanoseconds of each read of the healthy training."""
    polled: Counter[str] = field(default_factory=Counter)
    """How the polls of the 40 ended."""

    @property
    def median(self) -> float:
        """Of the reads."""
        return median(self.times)

    @property
    def p99(self) -> float:
        """99th percentile of the reads."""
        return quantiles(self.times, n=100)[-1]


@contextmanager
def stage() -> Iterator[Stage]:
    """Set it all up, and freeze the one host; thaw it at the end, so that it can stop."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory()))
        frozen = stack.enter_context(program("training_host", home))
        healthy = stack.enter_context(quiet_host(cache_ttl=1.0))
        backend = stack.enter_context(
            program(
                "backend",
                home,
                KTRDR_TRAINING_MODE="host",
                TRAINING_HOST_SERVICE_URL=f"{frozen.address},{healthy.address}",
                KTRDR_READ_LIMIT=2 * CLIENTS,  # on a busy machine all 40 may be in it at once
            )
        )
        with grpc.insecure_channel(backend.address) as channel:
            trainings = dict(_start(channel) for _ in range(2))  # each on the least busy host
        at = {"frozen": frozen.address, "healthy": healthy.address}
        assert trainings.keys() == set(at.values()), f"not one on each host: {trainings}"
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            yield Stage(backend.address, **{name: trainings[host] for name, host in at.items()})
        finally:
            frozen.process.send_signal(signal.SIGCONT)


def _start(channel: grpc.Channel) -> tuple[str, str]:
    """Start a training; return its host and its id."""
    request = training_service_pb2.StartTrainingRequest(strategy_yaml=long_training())
    started = TrainingServiceStub(channel).StartTraining(request).operation
    return started.metadata["host_service_url"], started.operation_id


def _read(channel: grpc.Channel, operation_id: str, times: list[int]) -> None:
    """Read anew for a while, as fast as it goes."""
    get = OperationsServiceStub(channel).GetOperation
    request = pb.GetOperationRequest(operation_id=operation_id, force_refresh=True)
    end = monotonic() + STAY
    while monotonic() < end:
        start = perf_counter_ns()
        get(request)
        times.append(perf_counter_ns() - start)


@contextmanager
def _polling(address: str, operation_id: str, polled: Counter[str]) -> Iterator[None]:
    """Have 40 clients poll, on connections of their own."""
    end = threading.Event()
    outcomes: list[list[str]] = [[] for _ in range(CLIENTS)]
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        get = OperationsServiceStub(channel).GetOperation
        request = pb.GetOperationRequest(operation_id=operation_id)

        def poll(outcome: list[str]) -> None:
            while not end.wait(PAUSE):
                try:
                    freshness = get(request).operation.freshness
                except grpc.RpcError as error:
                    outcome.append(error.code().name)
                else:
                    outcome.append(freshness.refresh_error.reason or FRESH)

        clients = [threading.Thread(target=poll, args=(outcome,)) for outcome in outcomes]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            end.set()
            for client in clients:
                client.join()
    polled.update(name for outcome in outcomes for name in outcome)


def bench(rounds: int = ROUNDS) -> Mapping[str, Part]:
    """Measure the three situations in interleaved rounds."""
    parts = {ALONE: Part(), FROZEN: Part(), HEALTHY: Part()}
    with stage() as on, grpc.insecure_channel(on.address) as channel:
        polls = {FROZEN: on.frozen, HEALTHY: on.healthy}
        for _ in range(rounds):
            for name, part in parts.items():
                with ExitStack() as stack:
                    if name in polls:
                        stack.enter_context(_polling(on.address, polls[name], part.polled))
                    _read(channel, on.healthy, part.times)
    return parts


def report(parts: Mapping[str, Part]) -> bool:
    """Print the table; return whether the target is met."""
    print(
        f"{ROUNDS} interleaved rounds of {STAY:.0f} s each; µs per read of the healthy training\n"
    )
    print(f"{'':<26}{'reads':>8}{'median':>10}{'99 %':>10}{'worst':>10}")
    for name, part in parts.items():
        figures = (part.median, part.p99, max(part.times))
        row = "".join(f"{nanoseconds / 1000:>10.0f}" for nanoseconds in figures)
        print(f"{name:<26}{len(part.times):>8}{row}")
    frozen = parts[FROZEN]
    print()
    for name in (ALONE, HEALTHY):
        beside = parts[name]
        print(
            f"frozen against {name}: median {frozen.median / beside.median:.2f}, "
            f"99 % {frozen.p99 / beside.p99:.2f}"
        )
    print("\nPolls of the frozen training ended:")
    for outcome, times in frozen.polled.most_common():
        print(f"  {outcome}: {times}")
    return judged(targets(parts))


def targets(parts: Mapping[str, Part]) -> list[Target]:
    """The frozen host is felt by those who poll it, and by nobody else."""
    polled = parts[FROZEN].polled
    ratio = parts[FROZEN].median / parts[HEALTHY].median
    return [
        Target(
            "beside a frozen host reads take at most 1.2 times as long as beside a healthy one",
            ratio <= 1.2,
            f"{ratio:.2f}",
        ),
        Target(
            "who polls the frozen host is told that the answer is old, and that it is unreachable",
            polled[UNREACHABLE] > 0 and polled[FRESH] == 0,
            f"{polled[UNREACHABLE]} of {polled.total()} {UNREACHABLE}, {polled[FRESH]} fresh",
        ),
    ]


def main() -> int:
    """Measure and print; 1 if the target is missed."""
    return exit_code(report(bench()))


if __name__ == "__main__":
    sys.exit(main())
