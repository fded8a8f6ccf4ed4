"""What keeping records costs, in a file of SQLite and in a PostgreSQL.

python -m benchmarks.store    tables with ratios; exit 1 if a target is missed or one is not there

Both write as they do for users: what is committed has reached the disk. The
million metrics are made while they are written, in a process of its own, so that
its memory is the store's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import overload

from pydantic import SecretStr
from sqlalchemy import insert

from benchmarks.processes import peak_memory, spawned
from benchmarks.records import DAY, ENDED, record
from benchmarks.rounds import Round, Spread, measure, repeated, table
from benchmarks.targets import Target, exit_code, judged
from shared.operations.database import open_database, open_store
from shared.operations.model import (
    ACTIVE_STATUSES,
    Metric,
    OperationRecord,
    OperationStatus,
    OperationType,
)
from shared.operations.sql_records import record_to_row
from shared.operations.sql_schema import OPERATIONS
from shared.operations.sql_store import SqlOperationStore
from shared.operations.store import OperationFilter
from shared.settings import ProcessSettings
from tests.support.postgres import PostgresServer

SQLITE, POSTGRES = "SQLite", "PostgreSQL"
METRICS, FEW, LAST = 1_000_000, 1_000, 10
RECORDS, ACTIVE, PAGE = 100_000, 3, 50
CALLS, ROUNDS, TRIPS = 20, 25, 100
PATIENCE = 600.0
"""Seconds that the end of an operation with a million metrics may take."""
MIB = 1024.0 * 1024.0
MS = 1e6
"""Nanoseconds."""
_FILTERS: Mapping[str, OperationFilter] = {
    "all": OperationFilter(),
    "active, 3 there are": OperationFilter(ACTIVE_STATUSES),
    "failed": OperationFilter(frozenset({OperationStatus.FAILED})),
    "trainings that ended": OperationFilter(frozenset(ENDED), frozenset({OperationType.TRAINING})),
}


class Log(Sequence[Metric]):
    """Metrics that are made when they are asked for."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Metric: ...
    @overload
    def __getitem__(self, place: slice) -> list[Metric]: ...
    def __getitem__(self, place: int | slice) -> Metric | list[Metric]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(self._length))]
        loss = 1.0 / (place + 1)
        values = {"train_loss": loss, "val_loss": 1.1 * loss, "val_accuracy": 1.0 - loss}
        return Metric(DAY + timedelta(seconds=place), "epoch", place + 1, values)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one database."""

    reads: Mapping[str, Spread]
    """Nanoseconds per call."""
    seconds: float
    """Of the end of an operation with a million metrics."""
    memory: float
    """MiB by which the process grew for it."""
    trips: Sequence[float]
    """Seconds of each operation that was created, saved and ended."""


def _settings(url: str) -> ProcessSettings:
    return ProcessSettings(state_url=SecretStr(url))


def _finish_many(told: Connection, url: str) -> None:
    """End an operation with a million metrics; send the seconds and the MiB it took."""
    store = open_store(_settings(url), "bench")
    few = replace(record(0, OperationStatus.COMPLETED), request_id="few")
    store.finish(_named(few, "few"), Log(FEW))
    before = peak_memory()
    start = perf_counter()
    store.finish(_named(few, "many"), Log(METRICS))
    seconds = perf_counter() - start
    grown = peak_memory() - before
    store.close()
    told.send((seconds, grown / MIB))


def _named(kept: OperationRecord, operation_id: str) -> OperationRecord:
    return replace(kept, operation=replace(kept.operation, operation_id=operation_id))


def name_of(number: int) -> str:
    """The id of a record."""
    return record(number, OperationStatus.COMPLETED).operation.operation_id


def fill(url: str, records: int, active: int) -> None:
    """Keep so many records, of which a few are active."""
    engine = open_database(_settings(url), "bench")
    running = {records * (1 + place) // (active + 1) for place in range(active)}
    rows = [
        record_to_row(
            "bench",
            record(number, OperationStatus.RUNNING if number in running else None),
        )
        for number in range(records)
    ]
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(insert(OPERATIONS), rows)
        connection.exec_driver_sql("COMMIT")
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("VACUUM ANALYZE operations")  # as it does by itself, soon
    engine.dispose()


def _reads(store: SqlOperationStore) -> Mapping[str, Round]:
    middle = (DAY + timedelta(seconds=RECORDS // 2), "op")

    def last_of(operation_id: str, count: int) -> Round:
        return repeated(lambda: store.metrics(operation_id, count - LAST, LAST))

    def page(wanted: OperationFilter) -> Round:
        return repeated(lambda: store.page(wanted, middle, PAGE))

    def count(wanted: OperationFilter) -> Round:
        return repeated(lambda: store.count(wanted))

    return {
        f"last {LAST} of {FEW:,}": last_of("few", FEW),
        f"last {LAST} of {METRICS:,}": last_of("many", METRICS),
        **{f"page: {name}": page(wanted) for name, wanted in _FILTERS.items()},
        **{f"count: {name}": count(wanted) for name, wanted in _FILTERS.items()},
    }


def _trips(store: SqlOperationStore) -> list[float]:
    """Seconds of each operation that is created, saved as running and ended."""
    times = []
    for number in range(RECORDS, RECORDS + TRIPS):
        start = perf_counter()
        store.create(record(number, OperationStatus.PENDING))
        store.save(record(number, OperationStatus.RUNNING), Log(5))
        store.finish(record(number, OperationStatus.COMPLETED), Log(10)[5:], 5)
        times.append(perf_counter() - start)
    return times


def bench(url: str) -> Figures:
    """Measure one database, which is empty."""
    with spawned(_finish_many, url, within=PATIENCE) as ((seconds, memory), _):
        pass
    fill(url, RECORDS, ACTIVE)
    store = open_store(_settings(url), "bench")
    try:
        reads = measure(_reads(store), calls=CALLS, rounds=ROUNDS)
        return Figures(reads, seconds, memory, _trips(store))
    finally:
        store.close()


@contextmanager
def databases() -> Iterator[Mapping[str, str]]:
    """Yield the URL of an empty database of each kind there is."""
    with TemporaryDirectory() as folder:
        found = {SQLITE: f"sqlite:///{Path(folder).resolve()}/bench.db"}
        try:
            server = PostgresServer(fsync="on", synchronous_commit="on", full_page_writes="on")
        except FileNotFoundError as error:
            print(f"Without {POSTGRES}: {error}", file=sys.stderr)
            yield found
            return
        try:
            yield {**found, POSTGRES: server.new_database()}
        finally:
            server.close()


def _targets(figures: Figures) -> list[Target]:
    few, many = (figures.reads[f"last {LAST} of {count:,}"] for count in (FEW, METRICS))
    ratio = many.over(few)
    pages = {name: spread.median / MS for name, spread in figures.reads.items() if "page" in name}
    worst = max(pages, key=lambda name: pages[name])
    return [
        Target(
            f"last {LAST} of {METRICS:,} metrics at most 1.2 times last {LAST} of {FEW:,}",
            ratio.median <= 1.2,
            f"{ratio:.2f}",
        ),
        Target(
            f"a page of {PAGE} among {RECORDS:,} records within 10 ms, whatever the filter",
            pages[worst] <= 10,
            f"{pages[worst]:.1f} ms, {worst.removeprefix('page: ')}",
        ),
        Target(
            f"the end of an operation with {METRICS:,} metrics within 60 s",
            figures.seconds <= 60,
            f"{figures.seconds:.1f} s, {METRICS / figures.seconds:,.0f} metrics/s",
        ),
        Target("in at most 64 MiB of memory", figures.memory <= 64, f"{figures.memory:.1f} MiB"),
    ]


def report(name: str, figures: Figures) -> bool:
    """Print the table of a database; return whether every target is met."""
    print(f"{name}: {CALLS} calls a round, {ROUNDS} interleaved rounds; ms per call\n")
    print(table(figures.reads, unit=MS, digits=3))
    trip = median(figures.trips)
    print(f"\n{1 / trip:.0f} operations/s created, saved and ended, one after the other")
    named = [target._replace(wanted=f"{name}: {target.wanted}") for target in _targets(figures)]
    met = judged(named)
    print()
    return met


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    with databases() as urls:
        found = {name: bench(url) for name, url in urls.items()}
    met = [report(name, figures) for name, figures in found.items()]
    return exit_code(judged(there_is_postgres(urls)) and all(met))


def there_is_postgres(urls: Mapping[str, str]) -> list[Target]:
    """Without one half of this is not measured, which is no success."""
    there = POSTGRES in urls
    return [Target(f"a {POSTGRES} is measured as well", there, "it was" if there else "none found")]


if __name__ == "__main__":
    sys.exit(main())
