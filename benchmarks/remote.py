"""What a read costs: from a cache, from a bridge, from another host, and for a crowd.

python -m benchmarks.remote           tables with ratios; exit 1 if a target is missed
python -m benchmarks.remote --json    one object of figures

Client, backend, host and echo are four processes on one machine. The host's
work is at rest, so that what is measured is reading. An echo is a bare gRPC
server that is sent GetOperation's answer and returns it.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import grpc

from benchmarks.processes import (
    STRATEGY,
    echo_on,
    echo_server,
    program,
)
from benchmarks.quiet_host import EPOCHS, QuietHost, RestingLaunch, quiet_host
from benchmarks.rounds import Round, Spread, measure
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1 import training_service_pb2
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub
from shared.operations.conversion import seconds
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import OperationType, Owner
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.starts import NewOperation

CALLS, ROUNDS = 100, 40
NEVER = 60.0
"""A TTL that does not end within the measurement."""
CLIENTS, CHANNELS, TTL, CROWDED = 1000, 10, 1.0, 20.0
"""The crowd: callers, their connections, both caches' seconds, how long it stays."""
US, MS = 1e3, 1e6
"""Nanoseconds."""

Target = tuple[str, bool, str]
"""What is wanted, whether it was met, and the figure."""


# ----------------------------------------------------------------- in process


def _in_process() -> Mapping[str, Round]:
    """Reads of an operation whose bridge is in this process, without gRPC."""
    operations = OperationsService(
        MemoryOperationStore(), Owner("here", "now", ""), limits=OperationsLimits(cache_ttl=NEVER)
    )
    new = NewOperation("op", "op", OperationType.TRAINING, "", {"strategy": "small"})
    operations.start_operation(new, RestingLaunch(operations))
    return {
        "cache hit": _repeated(lambda: operations.get_operation("op")),
        "local miss": _repeated(lambda: operations.get_operation("op", max_staleness=0.0)),
    }


def _repeated(call: Callable[[], object]) -> Round:
    def run(calls: int) -> None:
        for _ in range(calls):
            call()

    return lambda: run


# ------------------------------------------------------------- over loopback


@dataclass(frozen=True, slots=True)
class Remote:
    """A training at a quiet host, and the backend it is read through."""

    address: str
    operation_id: str
    host: QuietHost

    @property
    def request(self) -> pb.GetOperationRequest:
        """A read without a bound."""
        return pb.GetOperationRequest(operation_id=self.operation_id)


@contextmanager
def remote_training(cache_ttl: float, **settings: object) -> Iterator[Remote]:
    """Start a quiet host, a backend and a training; stop them."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory()))
        host = stack.enter_context(quiet_host(cache_ttl))
        address, _ = stack.enter_context(
            program(
                "backend",
                home,
                KTRDR_BACKEND_ADDRESS="127.0.0.1:0",
                KTRDR_TRAINING_MODE="host",
                TRAINING_HOST_SERVICE_URL=host.address,
                OPERATIONS_CACHE_TTL=cache_ttl,
                **settings,
            )
        )
        with grpc.insecure_channel(address) as channel:
            request = training_service_pb2.StartTrainingRequest(
                strategy_yaml=STRATEGY.read_text("utf-8")
            )
            operation_id = (
                TrainingServiceStub(channel).StartTraining(request).operation.operation_id
            )
        yield Remote(address, operation_id, host)


def measure_calls() -> Mapping[str, Spread]:
    """Measure single calls in one interleaved run."""
    with (
        remote_training(NEVER) as remote,
        echo_server() as echo_address,
        grpc.insecure_channel(remote.address) as channel,
        grpc.insecure_channel(echo_address) as echo_channel,
    ):
        get, echo = OperationsServiceStub(channel).GetOperation, echo_on(echo_channel)
        cached, forced = remote.request, remote.request
        forced.force_refresh = True
        message = get(forced)
        assert message.operation.metrics_count == EPOCHS
        subjects = {
            **_in_process(),
            "echo": _repeated(lambda: echo(message)),
            "two echoes": _repeated(lambda: echo(echo(message))),
            "cached GetOperation": _repeated(lambda: get(cached)),
            "remote miss": _repeated(lambda: get(forced)),
        }
        return measure(subjects, calls=CALLS, rounds=ROUNDS)


# ---------------------------------------------------------------------- crowd


@dataclass(frozen=True, slots=True)
class Crowd:
    """What a crowd of clients got."""

    took: float
    answers: int
    cached: int
    """Answered from the backend's cache, no read begun or waited for."""
    late: int
    """Older than the TTL, and nothing said why."""
    excused: int
    """With a refresh_error."""
    shed: int
    calls: int
    """Calls that reached the host."""
    pulls: int
    """Times the host's worker was read."""

    @property
    def per_ttl(self) -> float:
        """Host reads in a TTL."""
        return max(self.calls, self.pulls) / (self.took / TTL)

    @property
    def hit_rate(self) -> float:
        """Share of the answers that cost the host nothing."""
        return 1 - self.calls / self.answers


def measure_crowd() -> Crowd:
    """Let 1 000 clients, each in a thread, ask as fast as they are answered."""
    with remote_training(TTL, KTRDR_READ_LIMIT=CLIENTS) as remote, ExitStack() as stack:
        channels = [
            stack.enter_context(
                grpc.insecure_channel(remote.address, [("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(CHANNELS)
        ]
        tallies = [Counter[str]() for _ in range(CLIENTS)]
        ready = threading.Barrier(CLIENTS + 1)
        end = threading.Event()
        clients = [
            threading.Thread(target=_client, args=(channel, remote.request, tally, ready, end))
            for channel, tally in zip(channels * (CLIENTS // CHANNELS), tallies, strict=True)
        ]
        for client in clients:
            client.start()
        ready.wait()
        began, before = monotonic(), remote.host.reads()
        end.wait(CROWDED)
        end.set()
        for client in clients:
            client.join()
        took, after = monotonic() - began, remote.host.reads()
    total = sum(tallies, Counter[str]())
    return Crowd(
        took=took,
        **{name: total[name] for name in ("answers", "cached", "late", "excused", "shed")},
        **{name: after[name] - before[name] for name in after},
    )


def _client(
    channel: grpc.Channel,
    request: pb.GetOperationRequest,
    tally: Counter[str],
    ready: threading.Barrier,
    end: threading.Event,
) -> None:
    get = OperationsServiceStub(channel).GetOperation
    ready.wait()
    while not end.is_set():
        try:
            freshness = get(request).operation.freshness
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            tally["shed"] += 1
            continue
        excused = freshness.HasField("refresh_error")
        tally["answers"] += 1
        tally["cached"] += freshness.cached and not excused
        tally["excused"] += excused
        tally["late"] += not excused and seconds(freshness.age) > TTL


# --------------------------------------------------------------------- report


def _call_targets(spreads: Mapping[str, Spread]) -> list[Target]:
    median = {name: spread.median for name, spread in spreads.items()}
    cached = median["cached GetOperation"] / median["echo"]
    miss = median["remote miss"] / median["two echoes"]
    return [
        ("cache hit below 20 µs", median["cache hit"] < 20 * US, _us(median["cache hit"])),
        ("local miss below 100 µs", median["local miss"] < 100 * US, _us(median["local miss"])),
        ("cached GetOperation at most 1.2 echoes", cached <= 1.2, f"{cached:.2f}"),
        ("remote miss at most 1.4 times two echoes", miss <= 1.4, f"{miss:.2f}"),
        ("remote miss below 50 ms", median["remote miss"] < 50 * MS, _us(median["remote miss"])),
    ]


def _crowd_targets(crowd: Crowd) -> list[Target]:
    return [
        ("at most 1.05 host reads per TTL", crowd.per_ttl <= 1.05, f"{crowd.per_ttl:.3f}"),
        ("no answer beyond its bound", crowd.late == 0, f"{crowd.late}"),
        ("hit rate above 99 %", crowd.hit_rate > 0.99, f"{crowd.hit_rate:.3%}"),
        ("none shed", crowd.shed == 0, f"{crowd.shed}"),
    ]


def _us(nanoseconds: float) -> str:
    return f"{nanoseconds / US:.1f} µs"


def report_calls(spreads: Mapping[str, Spread]) -> bool:
    """Print single calls; return whether every target is met."""
    print(f"{CALLS} calls a round, {ROUNDS} interleaved rounds; µs per call\n")
    print(f"{'':<22}{'median':>9}{'10 %':>9}{'90 %':>9}")
    for name, spread in spreads.items():
        print(f"{name:<22}" + "".join(f"{value / US:>9.1f}" for value in spread))
    return _judged(_call_targets(spreads))


def report_crowd(crowd: Crowd) -> bool:
    """Print the crowd; return whether every target is met."""
    print(f"\n{CLIENTS} clients for {crowd.took:.1f} s, TTL {TTL} s: {crowd.answers} answers")
    print(
        f"({crowd.answers / crowd.took:.0f}/s), {crowd.cached / crowd.answers:.2%} from the cache,"
    )
    print(f"{crowd.excused} with a refresh_error; the host was called {crowd.calls} times and")
    print(f"its worker read {crowd.pulls} times")
    return _judged(_crowd_targets(crowd))


def _judged(targets: list[Target]) -> bool:
    print()
    for target, met, figure in targets:
        print(f"{'met   ' if met else 'MISSED'}  {target}: {figure}")
    return all(met for _, met, _ in targets)


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="What a read of an operation costs.")
    parser.add_argument("--json", action="store_true", help="print figures as one JSON object")
    as_json = parser.parse_args().json
    spreads, crowd = measure_calls(), measure_crowd()
    if as_json:
        figures = {f"{name.replace(' ', '_')}_ns": s.median for name, s in spreads.items()}
        figures |= {"host_reads_per_ttl": crowd.per_ttl, "hit_rate": crowd.hit_rate}
        print(json.dumps(figures))
        return 0
    met = [report_calls(spreads), report_crowd(crowd)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
