"""What grows with the number of operations, of clients and of hosts, and what does not.

python -m benchmarks.growth    tables with ratios; exit 1 if a target is missed

Operations are records of a store in SQLite, beside one that runs. Clients are
threads of one process that ask for one operation as fast as they are answered. Hosts
are servers of one process, each with a training that rests. How metrics grow is in
benchmarks.store.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter_ns

import grpc
from pydantic import SecretStr

from benchmarks.processes import STRATEGY, program, spawned
from benchmarks.quiet_host import RestingLaunch, quiet_server
from benchmarks.remote import remote_trainings
from benchmarks.rounds import Round, Spread, measure, repeated, table
from benchmarks.store import fill, name_of
from benchmarks.targets import Target, exit_code, judged
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1 import training_service_pb2
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub
from shared.operations.conversion import seconds
from shared.operations.database import open_store
from shared.operations.model import OperationType, Owner
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.starts import NewOperation
from shared.operations.store import OperationFilter
from shared.settings import ProcessSettings

OPERATIONS = (1, 1_000, 100_000)
CLIENTS = (1, 10, 100, 1_000)
HOSTS = (1, 5, 20)
CALLS, ROUNDS = 20, 20
STAY, STAYS = 2.0, 3
"""Seconds that a number of clients asks, and how often it does."""
NEVER, TTL, AT_ONCE = 60.0, 1.0, 0.0
"""TTLs: one that does not end within the measurement, the usual one, none."""
US, MS = 1e3, 1e6
"""Nanoseconds."""
ALL = OperationFilter()


# ------------------------------------------------------------------------- operations


def measure_operations() -> Mapping[str, Spread]:
    """Time reads beside different numbers of records, in one interleaved run."""
    with ExitStack() as stack:
        subjects: dict[str, Round] = {}
        for number in OPERATIONS:
            operations = stack.enter_context(_beside(number))
            finished = name_of(number // 2)
            subjects |= {
                f"cache hit, {number:,}": _hit(operations),
                f"a finished one, {number:,}": _finished(operations, finished),
                f"newest 50, {number:,}": _newest(operations),
            }
        return measure(subjects, calls=CALLS, rounds=ROUNDS)


@contextmanager
def _beside(number: int) -> Iterator[OperationsService]:
    """A service with an operation that runs, and so many that have ended."""
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder).resolve()}/growth.db"
        fill(url, number, active=0)
        store = open_store(ProcessSettings(state_url=SecretStr(url)), "bench")
        limits = OperationsLimits(NEVER, keep_finished=10**7, keep_finished_days=10**5)
        operations = OperationsService(store, Owner("here", "now", ""), limits=limits)
        new = NewOperation("op", "op", OperationType.TRAINING, "", {"strategy": "small"})
        operations.start_operation(new, RestingLaunch(operations))
        try:
            yield operations
        finally:
            store.close()


def _hit(operations: OperationsService) -> Round:
    return repeated(lambda: operations.get_operation("op"))


def _finished(operations: OperationsService, operation_id: str) -> Round:
    return repeated(lambda: operations.get_operation(operation_id))


def _newest(operations: OperationsService) -> Round:
    return repeated(lambda: operations.list_operations(ALL, None, 50))


# ---------------------------------------------------------------------------- clients


@dataclass(slots=True)
class Crowd:
    """What a number of clients got."""

    rates: list[float] = field(default_factory=list)
    """Answers per second of each stay."""
    times: list[int] = field(default_factory=list)
    """Nanoseconds of each answer."""
    late: list[float] = field(default_factory=list)
    """Ages of answers older than the TTL."""


def measure_clients() -> Mapping[int, Crowd]:
    """Let ever more clients ask one backend for one operation, in interleaved stays."""
    crowds = {number: Crowd() for number in CLIENTS}
    with remote_trainings(TTL, KTRDR_READ_LIMIT=max(CLIENTS)) as remote:
        for _ in range(STAYS):
            for number, crowd in crowds.items():
                _stay(remote.address, remote.request, number, crowd)
    return crowds


def _stay(address: str, request: pb.GetOperationRequest, number: int, crowd: Crowd) -> None:
    with ExitStack() as stack:
        channels = [
            stack.enter_context(
                grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(min(10, number))
        ]
        gets = [OperationsServiceStub(channel).GetOperation for channel in channels]
        ready = threading.Barrier(number)

        def client(place: int) -> int:
            get, answers = gets[place % len(gets)], 0
            ready.wait()
            end = monotonic() + STAY
            while monotonic() < end:
                start = perf_counter_ns()
                freshness = get(request).operation.freshness
                crowd.times.append(perf_counter_ns() - start)
                answers += 1
                if seconds(freshness.age) > TTL and not freshness.HasField("refresh_error"):
                    crowd.late.append(seconds(freshness.age))
            return answers

        pool = stack.enter_context(ThreadPoolExecutor(number))
        began = monotonic()
        answers = sum(each.result() for each in [pool.submit(client, n) for n in range(number)])
        crowd.rates.append(answers / (monotonic() - began))


# ------------------------------------------------------------------------------ hosts


def measure_hosts() -> Mapping[str, Spread]:
    """Time listings of one training per host, and forced reads of one of them."""
    with ExitStack() as stack:
        subjects: dict[str, Round] = {}
        for number in HOSTS:
            channel, operation_id = stack.enter_context(_backend_of(number))
            stub = OperationsServiceStub(channel)
            subjects[f"listing, {number}"] = _listing(stub, number)
            subjects[f"forced read, {number}"] = _forced(stub, operation_id)
        return measure(subjects, calls=CALLS, rounds=ROUNDS)


@contextmanager
def _backend_of(number: int) -> Iterator[tuple[grpc.Channel, str]]:
    """A channel to a backend of so many hosts, and the id of one of their trainings."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory()))
        addresses, _ = stack.enter_context(spawned(_serve_hosts, number))
        backend = stack.enter_context(
            program(
                "backend",
                home,
                KTRDR_TRAINING_MODE="host",
                TRAINING_HOST_SERVICE_URL=addresses,
                OPERATIONS_CACHE_TTL=AT_ONCE,
            )
        )
        channel = stack.enter_context(grpc.insecure_channel(backend.address))
        start = TrainingServiceStub(channel).StartTraining
        request = training_service_pb2.StartTrainingRequest(
            strategy_yaml=STRATEGY.read_text("utf-8")
        )
        started = [start(request).operation for _ in range(number)]
        owners = {each.metadata["host_service_url"] for each in started}
        assert len(owners) == number, "two trainings have come to one host"
        yield channel, started[0].operation_id


def _serve_hosts(told: Connection, number: int) -> None:
    with ExitStack() as stack:
        addresses = [stack.enter_context(quiet_server(AT_ONCE)).address for _ in range(number)]
        told.send(",".join(addresses))
        told.recv()


def _listing(stub: OperationsServiceStub, number: int) -> Round:
    def call() -> None:
        answer = stub.ListOperations(pb.ListOperationsRequest())
        assert len(answer.operations) == number
        assert not answer.unreachable

    return repeated(call)


def _forced(stub: OperationsServiceStub, operation_id: str) -> Round:
    request = pb.GetOperationRequest(operation_id=operation_id, force_refresh=True)
    return repeated(lambda: stub.GetOperation(request))


# ----------------------------------------------------------------------------- report


def report_operations(spreads: Mapping[str, Spread]) -> bool:
    """Print it; return whether every target is met."""
    print(f"Operations recorded; {CALLS} calls a round, {ROUNDS} interleaved rounds; µs per call\n")
    print(table(spreads, unit=US))
    few, many = f"{OPERATIONS[0]:,}", f"{OPERATIONS[-1]:,}"
    rows = []
    for name in ("cache hit", "a finished one"):
        ratio = spreads[f"{name}, {many}"].over(spreads[f"{name}, {few}"])
        wanted = f"{name} among {many} operations at most 1.5 times that among {few}"
        rows.append(Target(wanted, ratio.median <= 1.5, f"{ratio:.2f}"))
    newest = spreads[f"newest 50, {many}"].median / MS
    wanted = f"the newest 50 of {many} operations within 25 ms"
    return judged([*rows, Target(wanted, newest <= 25, f"{newest:.1f} ms")])


def report_clients(crowds: Mapping[int, Crowd]) -> bool:
    """Print it; return whether every target is met."""
    print(f"\nClients, {STAYS} stays of {STAY:.0f} s each; ms per answer\n")
    print(f"{'':<10}{'answers/s':>12}{'median':>10}{'99 %':>10}")
    for number, crowd in crowds.items():
        figures = (median(crowd.times) / MS, quantiles(crowd.times, n=100)[-1] / MS)
        row = "".join(f"{value:>10.2f}" for value in figures)
        print(f"{number:<10,}{median(crowd.rates):>12,.0f}{row}")
    kept = median(crowds[CLIENTS[-1]].rates) / median(crowds[CLIENTS[1]].rates)
    late = [age for crowd in crowds.values() for age in crowd.late]
    wanted = f"{CLIENTS[-1]:,} clients get at least half the answers per second of {CLIENTS[1]}"
    return judged(
        [
            Target(wanted, kept >= 0.5, f"{kept:.2f} of them"),
            Target("no client gets an answer beyond its bound", not late, f"{len(late)} did"),
        ]
    )


def report_hosts(spreads: Mapping[str, Spread]) -> bool:
    """Print it; return whether every target is met."""
    print(f"\nHosts; {CALLS} calls a round, {ROUNDS} interleaved rounds; µs per call\n")
    print(table(spreads, unit=US))
    few, many = HOSTS[0], HOSTS[-1]
    forced = spreads[f"forced read, {many}"].over(spreads[f"forced read, {few}"])
    listing = spreads[f"listing, {many}"].over(spreads[f"listing, {few}"])
    wanted = f"a forced read in a backend of {many} hosts at most 1.2 times that of {few}"
    return judged(
        [
            Target(wanted, forced.median <= 1.2, f"{forced:.2f}"),
            Target(
                f"a listing over {many} hosts at most {many} times that over {few}",
                listing.median <= many / few,
                f"{listing:.2f}",
            ),
        ]
    )


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    met = [
        report_operations(measure_operations()),
        report_clients(measure_clients()),
        report_hosts(measure_hosts()),
    ]
    return exit_code(all(met))


if __name__ == "__main__":
    sys.exit(main())
