"""What a process does with more than it can bear: two thousand waits, and twice the calls.

python -m benchmarks.overload    tables with ratios; exit 1 if a target is missed

Every crowd is a process of its own with a few connections. The waits are those
of a quiet host's operation. The calls are strict reads of a training that runs
in a real backend: in each round first as many at once as are served at once,
which tells how many the backend bears; then half of them and twice as many a
second, whatever becomes of them. The backend has one half of the processors and
the crowd the other: to ask costs as much as to be refused, and those who ask are
on other machines where there is work to watch. Listings are pages of a hundred thousand records.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, sleep
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.crowds import Asked, Told, caller, waiters
from benchmarks.processes import halves, long_training, on_processors, program, spawned
from benchmarks.quiet_host import quiet_host
from benchmarks.records import MEMORY, serve_records
from benchmarks.targets import Target, exit_code, judged
from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1 import training_service_pb2
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub

CLIENTS = 2000
ROUNDS, STAY = 3, 4.0
"""Rounds, and the seconds of each part of one: two thousand first waits take a slow machine 1.5."""
LOADS, LOADED = 9, 3.0
"""Rounds of loads, and the seconds that a backend is under each of them."""
ALONE, POLITE, RUDE = "alone", "polite", "rude"
"""Nobody waits; clients come back when they are told to; they come back at once."""
IDLE, FULL = "nothing", "as many at once as are served at once"
HALF, TWICE = "half of what it bears", "twice what it bears"
AT_ONCE = 24
"""What KTRDR_READ_LIMIT is by default."""
FAILED = operation_pb2.OPERATION_STATUS_FAILED
RECORDS, PAGE, MOST = 100_000, 50, 500
MS = 1e3
"""Seconds."""


class Latency(NamedTuple):
    """Milliseconds that calls took."""

    calls: int
    median: float
    p99: float
    worst: float


def latency(seconds: list[float]) -> Latency:
    """Sum up what calls took."""
    return Latency(
        len(seconds), median(seconds) * MS, quantiles(seconds, n=100)[-1] * MS, max(seconds) * MS
    )


def timed(call: Any, seconds: float, pause: float) -> list[float]:
    """Call again and again for a while; what each call took."""
    took: list[float] = []
    end = monotonic() + seconds
    while monotonic() < end:
        began = perf_counter()
        call()
        took.append(perf_counter() - began)
        sleep(pause)
    return took


# ----------------------------------------------------------------------- waits


class Waits(NamedTuple):
    """Reads alone and beside 2 000 clients that wait."""

    reads: Mapping[str, Latency]
    ended: Mapping[str, Counter[str]]
    """How the waits ended, by how the clients behaved."""


def measure_waits() -> Waits:
    """Time reads of an operation while nobody waits for it and while 2 000 do."""
    parts: dict[str, list[float]] = {ALONE: [], POLITE: [], RUDE: []}
    ended: dict[str, Counter[str]] = {POLITE: Counter(), RUDE: Counter()}
    with quiet_host(cache_ttl=1.0) as host, grpc.insecure_channel(host.address) as channel:
        request = training_service_pb2.StartTrainingRequest(strategy_yaml=long_training())
        operation_id = TrainingServiceStub(channel).StartTraining(request).operation.operation_id
        get = OperationsServiceStub(channel).GetOperation
        read = pb.GetOperationRequest(operation_id=operation_id)
        with spawned(waiters, host.address, operation_id, CLIENTS) as (_, crowd):
            for _ in range(ROUNDS):
                for name, times in parts.items():
                    if name != ALONE:
                        crowd.send(name)
                    times.extend(timed(lambda: get(read), STAY, pause=0.001))
                    if name != ALONE:
                        crowd.send("rest")
                        ended[name].update(crowd.recv())
                        sleep(0.3)
    return Waits({name: latency(times) for name, times in parts.items()}, ended)


# ------------------------------------------------------------------------ load


class Load(NamedTuple):
    """A backend under so many calls a second."""

    seconds: float
    asked: int
    accepted: int
    shed: int
    bare: int
    """Calls refused without a time to come back, or that ended in another error."""
    took: list[float]
    """Seconds of the accepted calls, as their client saw them."""
    health: list[float]
    """Seconds of health checks."""
    epochs: float
    """Of the training in the same process."""


class Loads(NamedTuple):
    """A backend under several loads."""

    idle: Load
    rounds: Sequence[Mapping[str, Load]]

    def all(self, name: str) -> Load:
        """What was seen under a load, in all rounds."""
        loads = [round_[name] for round_ in self.rounds]
        return Load(
            seconds=sum(load.seconds for load in loads),
            asked=sum(load.asked for load in loads),
            accepted=sum(load.accepted for load in loads),
            shed=sum(load.shed for load in loads),
            bare=sum(load.bare for load in loads),
            took=[seconds for load in loads for seconds in load.took],
            health=[seconds for load in loads for seconds in load.health],
            epochs=sum(load.epochs for load in loads),
        )

    @property
    def shares(self) -> list[float]:
        """Of what was borne in a round, the share that was served under twice as much."""
        return [round_[TWICE].accepted / round_[FULL].accepted for round_ in self.rounds]


def measure_load() -> Loads:
    """Put a backend that trains under what it bears, under half of it and under twice."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory()))
        backends, crowds = halves()
        with on_processors(backends):
            address = stack.enter_context(program("backend", home)).address
        stack.enter_context(on_processors(crowds))
        channel = stack.enter_context(grpc.insecure_channel(address))
        request = training_service_pb2.StartTrainingRequest(strategy_yaml=long_training())
        operation_id = TrainingServiceStub(channel).StartTraining(request).operation.operation_id
        get = OperationsServiceStub(channel).GetOperation
        while not _epochs(get, operation_id):
            sleep(0.1)
        _, crowd = stack.enter_context(spawned(caller, address, operation_id))

        def under(asked: Asked | None) -> Load:
            if asked is not None:
                crowd.send(asked)
            load = _under(get, channel, operation_id, None if asked is None else crowd, LOADED)
            sleep(0.5)
            return load

        idle, rounds = under(None), []
        for _ in range(LOADS):
            full = under(Asked(at_once=AT_ONCE, seconds=LOADED))
            borne = full.accepted / LOADED
            half = under(Asked(rate=borne / 2, seconds=LOADED))
            twice = under(Asked(rate=borne * 2, seconds=LOADED))
            rounds.append({FULL: full, HALF: half, TWICE: twice})
    return Loads(idle, rounds)


def _epochs(get: Any, operation_id: str) -> int:
    """Epochs done by now; asked again if there is no place for the question."""
    # Of an answer from the cache the epochs of a second would be missing.
    request = pb.GetOperationRequest(operation_id=operation_id, force_refresh=True)
    while True:
        try:
            return int(get(request, timeout=10).operation.metrics_count)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            sleep(0.01)


def _under(get: Any, channel: grpc.Channel, operation_id: str, crowd: Any, seconds: float) -> Load:
    """Watch health and training while a crowd calls."""
    check: Any = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # missing in the stubs
    began, first = monotonic(), _epochs(get, operation_id)
    health = timed(lambda: check(health_pb2.HealthCheckRequest(), timeout=10), seconds, pause=0.02)
    rate = (_epochs(get, operation_id) - first) / (monotonic() - began)
    told = Told() if crowd is None else crowd.recv()
    return Load(
        seconds=seconds,
        asked=told.asked,
        accepted=told.accepted,
        shed=told.shed,
        bare=told.bare,
        took=told.took,
        health=health,
        epochs=rate * seconds,
    )


# -------------------------------------------------------------------- listings


def measure_listings() -> Mapping[str, Latency]:
    """Time pages of many records, in memory and in a file."""
    with TemporaryDirectory() as folder:
        stores = {"in memory": MEMORY, "in a file": f"sqlite:///{folder}/bench.db"}
        return {
            f"{name} {where}": row
            for where, url in stores.items()
            for name, row in measure_pages(url).items()
        }


def measure_pages(url: str) -> Mapping[str, Latency]:
    """Time pages of many records over the wire; `url` names the store, as KTRDR_STATE_URL does."""
    with (
        spawned(serve_records, url, RECORDS) as (address, _),
        grpc.insecure_channel(address) as channel,
    ):
        list_operations = OperationsServiceStub(channel).ListOperations
        token = ""
        for _ in range(100):
            request = pb.ListOperationsRequest(page_size=MOST, page_token=token)
            token = list_operations(request).next_page_token
        requests = {
            f"{PAGE}, the newest,": pb.ListOperationsRequest(page_size=PAGE),
            f"{MOST}, the newest,": pb.ListOperationsRequest(page_size=MOST),
            f"{PAGE} in the middle,": pb.ListOperationsRequest(page_size=PAGE, page_token=token),
            f"{PAGE} that failed,": pb.ListOperationsRequest(page_size=PAGE, statuses=[FAILED]),
        }
        return {
            name: latency(timed(lambda: list_operations(request), 0.5, pause=0.0))  # noqa: B023  # called at once
            for name, request in requests.items()
        }


# ---------------------------------------------------------------------- report


def _wait_targets(waits: Waits) -> list[Target]:
    alone, polite, rude = (waits.reads[name] for name in (ALONE, POLITE, RUDE))
    unsaid = sum(
        calls for ended in waits.ended.values() for how, calls in ended.items() if "without" in how
    )
    return [
        Target(
            "reads beside polite waits, median: at most twice that alone",
            polite.median <= 2 * alone.median,
            f"{polite.median / alone.median:.2f}",
        ),
        Target("reads beside rude waits, 99 %: below 100 ms", rude.p99 < 100, f"{rude.p99:.1f} ms"),
        Target("no wait refused without details", unsaid == 0, f"{unsaid}"),
    ]


def _load_targets(loads: Loads) -> list[Target]:
    twice, full, idle = loads.all(TWICE), loads.all(FULL), loads.idle
    served, at_most, health = latency(twice.took), latency(full.took), latency(twice.health)
    return [
        Target(
            "what is served at twice the load, median: at most 1.5 x that of a full house",
            served.median <= 1.5 * at_most.median,
            f"{served.median / at_most.median:.2f}",
        ),
        Target("the same, 99 %: below 250 ms", served.p99 < 250, _ms(served.p99)),
        Target(
            "served at twice the load, median of rounds: at least a quarter of what it bears",
            median(loads.shares) >= 0.25,
            f"{median(loads.shares):.0%}",
        ),
        Target("health always answered, 99 %: below 1 s", health.p99 < 1000, _ms(health.p99)),
        Target(
            "training goes on",
            twice.epochs > 0,
            f"{twice.epochs / twice.seconds / (idle.epochs / idle.seconds):.0%} of its pace",
        ),
        Target(
            "the rest is told to come back", twice.shed > 0, f"{twice.shed / twice.seconds:.0f}/s"
        ),
        Target(
            "calls refused without a time to come back: below 1 %",
            twice.bare < 0.01 * twice.asked,
            f"{twice.bare}",
        ),
    ]


def _listing_targets(listings: Mapping[str, Latency]) -> list[Target]:
    return [
        Target(f"{name}: below 20 ms", row.median < 20, _ms(row.median))
        for name, row in listings.items()
        if name.startswith((f"{PAGE} ", f"{PAGE},"))
    ]


def _ms(value: float) -> str:
    return f"{value:.2f} ms"


def _rows(title: str, rows: Mapping[str, Latency]) -> None:
    print(f"\n{title:<34}{'calls':>8}{'median':>10}{'99 %':>10}{'worst':>10}")
    for name, row in rows.items():
        print(f"{name:<34}{row.calls:>8}{row.median:>10.2f}{row.p99:>10.2f}{row.worst:>10.1f}")


def _loads(loads: Loads) -> None:
    shown = {IDLE: loads.idle} | {name: loads.all(name) for name in (FULL, HALF, TWICE)}
    print(f"\nA backend that trains, under calls a second, {LOADS} rounds of {LOADED:.0f} s each:")
    for name, load in shown.items():
        asked, accepted, shed, epochs = (
            n / load.seconds for n in (load.asked, load.accepted, load.shed, load.epochs)
        )
        print(
            f"  {name}: {asked:.0f} asked, {accepted:.0f} served, {shed:.0f} told to come back, "
            f"{load.bare} in all otherwise refused; {epochs:.0f} epochs/s"
        )
    shares = ", ".join(f"{share:.0%}" for share in loads.shares)
    print(f"  served of {TWICE}, by round: {shares} of what was borne")
    _rows("served", {name: latency(load.took) for name, load in shown.items() if load.asked})
    _rows("health", {name: latency(load.health) for name, load in shown.items()})


def report(waits: Waits, loads: Loads, listings: Mapping[str, Latency]) -> bool:
    """Print it all; whether every target is met."""
    print(
        f"Milliseconds per call. {ROUNDS} interleaved rounds of {STAY:.0f} s with {CLIENTS} waits"
    )
    _rows("GetOperation, waits beside it", waits.reads)
    for name, ended in waits.ended.items():
        told = ", ".join(f"{how} {calls}" for how, calls in ended.most_common())
        print(f"  {name} waits: {told or 'none ended'}")
    _loads(loads)
    _rows(f"ListOperations of {RECORDS}", listings)
    return judged([*_wait_targets(waits), *_load_targets(loads), *_listing_targets(listings)])


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    return exit_code(report(measure_waits(), measure_load(), measure_listings()))


if __name__ == "__main__":
    sys.exit(main())
