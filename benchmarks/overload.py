"""What a process does with more than it can bear: two thousand waits, and twice the calls.

python -m benchmarks.overload    tables with ratios; exit 1 if a target is missed

Every crowd is a process of its own with a few connections. The waits are those
of a quiet host's operation. The calls are strict reads of a training that runs
in a real backend: first as many at once as are served at once, which tells how
many the backend bears; then half of them and twice as many a second, whatever
becomes of them. Listings are pages of a hundred thousand records.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, sleep
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.crowds import Asked, caller, waiters
from benchmarks.processes import long_training, program, spawned
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
LOADED = 4.0
"""Seconds that a backend is under load."""
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

    asked: float
    """Calls a second."""
    accepted: float
    shed: float
    bare: int
    """Calls refused without a time to come back, or that ended in another error."""
    served: Latency
    """Of the accepted calls, as their client saw it."""
    health: Latency
    epochs: float
    """Epochs a second of the training in the same process."""


def measure_load() -> Mapping[str, Load]:
    """Put a backend that trains under what it bears, and under twice that."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory()))
        address = stack.enter_context(program("backend", home)).address
        channel = stack.enter_context(grpc.insecure_channel(address))
        request = training_service_pb2.StartTrainingRequest(strategy_yaml=long_training())
        operation_id = TrainingServiceStub(channel).StartTraining(request).operation.operation_id
        get = OperationsServiceStub(channel).GetOperation
        while not _epochs(get, operation_id):
            sleep(0.1)
        _, crowd = stack.enter_context(spawned(caller, address, operation_id))
        idle = _under(get, channel, operation_id, None, LOADED / 2)
        crowd.send(Asked(at_once=AT_ONCE, seconds=LOADED))
        full = _under(get, channel, operation_id, crowd, LOADED)
        loads = {IDLE: idle, FULL: full}
        for name, rate in ((HALF, full.accepted / 2), (TWICE, full.accepted * 2)):
            crowd.send(Asked(rate=rate, seconds=LOADED))
            loads[name] = _under(get, channel, operation_id, crowd, LOADED)
            sleep(1.0)
    return loads


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
    epochs = (_epochs(get, operation_id) - first) / (monotonic() - began)
    if crowd is None:
        return Load(0, 0, 0, 0, Latency(0, 0, 0, 0), latency(health), epochs)
    told = crowd.recv()
    return Load(
        asked=told.asked / seconds,
        accepted=told.accepted / seconds,
        shed=told.shed / seconds,
        bare=told.bare,
        served=latency(told.took),
        health=latency(health),
        epochs=epochs,
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


def _load_targets(loads: Mapping[str, Load]) -> list[Target]:
    twice, full, idle = loads[TWICE], loads[FULL], loads[IDLE]
    return [
        Target(
            "what is served at twice the load, median: at most 1.5 x that of a full house",
            twice.served.median <= 1.5 * full.served.median,
            f"{twice.served.median / full.served.median:.2f}",
        ),
        Target("the same, 99 %: below 250 ms", twice.served.p99 < 250, _ms(twice.served.p99)),
        Target(
            "served at twice the load: at least a quarter of what it bears",
            twice.accepted >= 0.25 * full.accepted,
            f"{twice.accepted / full.accepted:.0%}",
        ),
        Target(
            "health always answered, 99 %: below 1 s",
            twice.health.p99 < 1000,
            _ms(twice.health.p99),
        ),
        Target(
            "training goes on",
            twice.epochs > 0,
            f"{twice.epochs / idle.epochs:.0%} of its pace",
        ),
        Target("the rest is told to come back", twice.shed > 0, f"{twice.shed:.0f}/s"),
        Target(
            "calls refused without a time to come back: below 1 %",
            twice.bare < 0.01 * twice.asked * LOADED,
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


def report(waits: Waits, loads: Mapping[str, Load], listings: Mapping[str, Latency]) -> bool:
    """Print it all; whether every target is met."""
    print(
        f"Milliseconds per call. {ROUNDS} interleaved rounds of {STAY:.0f} s with {CLIENTS} waits"
    )
    _rows("GetOperation, waits beside it", waits.reads)
    for name, ended in waits.ended.items():
        told = ", ".join(f"{how} {calls}" for how, calls in ended.most_common())
        print(f"  {name} waits: {told or 'none ended'}")
    print("\nA backend that trains, under calls a second:")
    for name, load in loads.items():
        print(
            f"  {name}: {load.asked:.0f} asked, {load.accepted:.0f} served, {load.shed:.0f} told "
            f"to come back, {load.bare} in all otherwise refused; {load.epochs:.0f} epochs/s"
        )
    _rows("served", {name: load.served for name, load in loads.items() if load.asked})
    _rows("health", {name: load.health for name, load in loads.items()})
    _rows(f"ListOperations of {RECORDS}", listings)
    return judged([*_wait_targets(waits), *_load_targets(loads), *_listing_targets(listings)])


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    return exit_code(report(measure_waits(), measure_load(), measure_listings()))


if __name__ == "__main__":
    sys.exit(main())
