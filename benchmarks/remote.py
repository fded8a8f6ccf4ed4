"""What a read costs: from a cache, from a bridge, from another host, and for a crowd.

python -m benchmarks.remote    tables with ratios; exit 1 if a target is missed

Client, backend, host, echo and relay are five processes on one machine, with all
interceptors on. An echo is a bare gRPC server that is sent GetOperation's answer
and returns it; a relay passes the echo's calls on to it. Those two are what gRPC
itself takes.
"""

from __future__ import annotations

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

from benchmarks.processes import STRATEGY, echo_on, echo_server, program, relay_server
from benchmarks.quiet_host import EPOCHS, QuietHost, RestingLaunch, quiet_host
from benchmarks.rounds import Round, Spread, measure, repeated, table
from benchmarks.targets import Target, exit_code, judged
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1 import training_service_pb2
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub
from shared.operations.conversion import seconds
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import OperationType, Owner
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.starts import NewOperation

CALLS, ROUNDS = 50, 80
NEVER = 60.0
"""A TTL that does not end within the measurement."""
CLIENTS, CHANNELS, TTL, CROWDED = 1000, 10, 1.0, 20.0
"""The crowd: callers, their connections, both caches' seconds, how long it stays."""
OUTCOMES = ("answers", "cached", "late", "excused", "shed", "failed")
PATIENCE = 30.0
"""Seconds that a call of the crowd may take."""
US, MS = 1e3, 1e6
"""Nanoseconds."""


# ----------------------------------------------------------------- in process


def in_process() -> Mapping[str, Round]:
    """Reads of an operation whose bridge is in this process, without gRPC."""
    operations = OperationsService(
        MemoryOperationStore(), Owner("here", "now", ""), limits=OperationsLimits(cache_ttl=NEVER)
    )
    new = NewOperation("op", "op", OperationType.TRAINING, "", {"strategy": "small"})
    operations.start_operation(new, RestingLaunch(operations))
    return {
        "cache hit": repeated(lambda: operations.get_operation("op")),
        "local miss": repeated(lambda: operations.get_operation("op", max_staleness=0.0)),
    }


# ------------------------------------------------------------- over loopback


@dataclass(frozen=True, slots=True)
class Remote:
    """Trainings at a quiet host, and the backend they are read through."""

    address: str
    resting: str
    """The id of the training that rests."""
    moving: str
    """The id of the one that has always done another batch."""
    host: QuietHost

    @property
    def request(self) -> pb.GetOperationRequest:
        """A read of the resting one without a bound."""
        return pb.GetOperationRequest(operation_id=self.resting)


@contextmanager
def remote_trainings(cache_ttl: float, **settings: object) -> Iterator[Remote]:
    """Start a quiet host, a backend and two trainings; stop them."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory()))
        host = stack.enter_context(quiet_host(cache_ttl))
        backend = stack.enter_context(
            program(
                "backend",
                home,
                KTRDR_TRAINING_MODE="host",
                TRAINING_HOST_SERVICE_URL=host.address,
                OPERATIONS_CACHE_TTL=cache_ttl,
                **settings,
            )
        )
        with grpc.insecure_channel(backend.address) as channel:
            request = training_service_pb2.StartTrainingRequest(
                strategy_yaml=STRATEGY.read_text("utf-8")
            )
            start = TrainingServiceStub(channel).StartTraining
            resting, moving = (start(request).operation.operation_id for _ in range(2))
        yield Remote(backend.address, resting, moving, host)


def measure_calls() -> Mapping[str, Spread]:
    """Measure single calls in one interleaved run."""
    with (
        remote_trainings(NEVER) as remote,
        echo_server() as echo_address,
        relay_server(echo_address) as relay_address,
        grpc.insecure_channel(remote.address) as channel,
        grpc.insecure_channel(echo_address) as echo_channel,
        grpc.insecure_channel(relay_address) as relay_channel,
    ):
        get = OperationsServiceStub(channel).GetOperation
        echo, relay = echo_on(echo_channel), echo_on(relay_channel)
        rest = pb.GetOperationRequest(operation_id=remote.resting, force_refresh=True)
        move = pb.GetOperationRequest(operation_id=remote.moving, force_refresh=True)
        message = get(rest)
        assert message.operation.metrics_count == EPOCHS
        assert get(move).operation.progress != get(move).operation.progress
        subjects = {
            "echo": repeated(lambda: echo(message)),
            "cached GetOperation": repeated(lambda: get(remote.request)),
            "two echoes": repeated(lambda: echo(echo(message))),
            "bare relay": repeated(lambda: relay(message)),
            "remote miss": repeated(lambda: get(rest)),
            "remote miss with news": repeated(lambda: get(move)),
            **in_process(),
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
    failed: int
    """Ended otherwise, or did not end in time."""
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
        return 1 - self.calls / self.answers if self.answers else 0.0


def measure_crowd() -> Crowd:
    """Let 1 000 clients, each in a thread, ask as fast as they are answered."""
    with remote_trainings(TTL, KTRDR_READ_LIMIT=CLIENTS) as remote, ExitStack() as stack:
        channels = [
            stack.enter_context(
                grpc.insecure_channel(remote.address, [("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(CHANNELS)
        ]
        gets = [OperationsServiceStub(channel).GetOperation for channel in channels]
        tallies = [Counter[str]() for _ in range(CLIENTS)]
        ready = threading.Barrier(CLIENTS + 1)
        end = threading.Event()
        clients = [
            threading.Thread(target=ask, args=(get, remote.request, tally, ready, end))
            for get, tally in zip(gets * (CLIENTS // CHANNELS), tallies, strict=True)
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
        **{name: total[name] for name in OUTCOMES},
        **{name: after[name] - before[name] for name in after},
    )


def ask(
    get: Callable[..., pb.GetOperationResponse],
    request: pb.GetOperationRequest,
    tally: Counter[str],
    ready: threading.Barrier,
    end: threading.Event,
) -> None:
    """Be one of the crowd: ask again and again until the end, and count how each call ended."""
    ready.wait()
    while not end.is_set():
        try:
            freshness = get(request, timeout=PATIENCE).operation.freshness
        except grpc.RpcError as error:
            full = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            tally["shed" if full else "failed"] += 1
            continue
        excused = freshness.HasField("refresh_error")
        tally["answers"] += 1
        tally["cached"] += freshness.cached and not excused
        tally["excused"] += excused
        tally["late"] += not excused and seconds(freshness.age) > TTL


# --------------------------------------------------------------------- report


def call_targets(spreads: Mapping[str, Spread]) -> list[Target]:
    """What the design asks of single calls."""
    cached = spreads["cached GetOperation"].over(spreads["echo"])
    hit, local, miss = (spreads[name] for name in ("cache hit", "local miss", "remote miss"))
    ratios = {
        name: spreads[name].over(spreads["two echoes"])
        for name in ("remote miss", "remote miss with news")
    }
    return [
        Target("cache hit in process below 20 µs", hit.median < 20 * US, _us(hit)),
        Target("local miss in process below 100 µs", local.median < 100 * US, _us(local)),
        Target("cached GetOperation at most 1.2 echoes", cached.median <= 1.2, f"{cached:.2f}"),
        *(
            Target(f"{name} at most 1.4 times two echoes", ratio.median <= 1.4, f"{ratio:.2f}")
            for name, ratio in ratios.items()
        ),
        Target("remote miss below 50 ms", miss.median < 50 * MS, _us(miss)),
    ]


def crowd_targets(crowd: Crowd) -> list[Target]:
    """What the design asks for a crowd of watchers."""
    return [
        Target("at most 1.05 host reads per TTL", crowd.per_ttl <= 1.05, f"{crowd.per_ttl:.3f}"),
        Target("no answer beyond its bound", crowd.late == 0, f"{crowd.late}"),
        Target("hit rate above 99 %", crowd.hit_rate > 0.99, f"{crowd.hit_rate:.3%}"),
        Target("none shed", crowd.shed == 0, f"{crowd.shed}"),
        Target("no call fails", crowd.failed == 0, f"{crowd.failed}"),
    ]


def _us(spread: Spread) -> str:
    return f"{spread.median / US:.1f} µs"


def report_calls(spreads: Mapping[str, Spread]) -> bool:
    """Print single calls; return whether every target is met."""
    print(f"{CALLS} calls a round, {ROUNDS} interleaved rounds; µs per call\n")
    print(table(spreads, unit=US))
    relay = spreads["bare relay"].over(spreads["two echoes"])
    print(f"\na bare relay takes {relay:.2f} times two echoes")
    return judged(call_targets(spreads))


def report_crowd(crowd: Crowd) -> bool:
    """Print the crowd; return whether every target is met."""
    print(f"\n{CLIENTS} clients for {crowd.took:.1f} s, TTL {TTL} s: {crowd.answers} answers")
    cached = crowd.cached / max(1, crowd.answers)
    print(f"({crowd.answers / crowd.took:.0f}/s), {cached:.2%} from the cache,")
    print(f"{crowd.excused} with a refresh_error; the host was called {crowd.calls} times and")
    print(f"its worker read {crowd.pulls} times")
    return judged(crowd_targets(crowd))


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    met = [report_calls(measure_calls()), report_crowd(measure_crowd())]
    return exit_code(all(met))


if __name__ == "__main__":
    sys.exit(main())
