"""Where operation records are kept: the port, and the one in memory.

The store is written at creation, at each transition and, with all metrics, at
the end; never on a worker's hot path. An implementation raises
StoreUnavailableError for whatever keeps it from answering, and nothing else.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.operations.model import (
    ACTIVE_STATUSES,
    Metric,
    OperationRecord,
    OperationStatus,
    OperationType,
)

SortKey = tuple[datetime, str]
"""(create_time, operation_id): the order of every listing, newest first."""


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Which operations a listing wants; an empty set means any."""

    statuses: frozenset[OperationStatus] = frozenset()
    types: frozenset[OperationType] = frozenset()

    def matches(self, type_: OperationType, status: OperationStatus) -> bool:
        """Whether an operation of this type and status is wanted."""
        return (not self.types or type_ in self.types) and (
            not self.statuses or status in self.statuses
        )


ACTIVE = OperationFilter(statuses=ACTIVE_STATUSES)


class OperationStore(Protocol):
    """Keeps records by operation id."""

    def create(self, record: OperationRecord) -> OperationRecord:
        """Keep a new record; if its id is taken, change nothing and return the kept one."""
        ...

    def discard(self, operation_id: str) -> None:
        """Forget an operation that was refused before it began."""
        ...

    def save(self, record: OperationRecord) -> None:
        """Replace the record of an operation that has not ended."""
        ...

    def finish(self, record: OperationRecord, metrics: Sequence[Metric]) -> OperationRecord:
        """Keep a terminal record and all its metrics, durably.

        If the kept record is terminal already, change nothing and return it.
        """
        ...

    def get(self, operation_id: str) -> OperationRecord | None:
        """Return a record, or None."""
        ...

    def metrics(self, operation_id: str, cursor: int, limit: int) -> Sequence[Metric]:
        """Return a finished operation's metrics from `cursor` on, at most `limit`."""
        ...

    def page(
        self, wanted: OperationFilter, after: SortKey | None, limit: int
    ) -> Sequence[OperationRecord]:
        """Return the newest records that match and are older than `after`."""
        ...

    def count(self, wanted: OperationFilter) -> int:
        """Return how many records match."""
        ...


class MemoryOperationStore:
    """Keeps records for as long as the process lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._records: dict[str, OperationRecord] = {}
        self._metrics: dict[str, tuple[Metric, ...]] = {}
        self._order: list[SortKey] = []
        self._counts: Counter[tuple[OperationType, OperationStatus]] = Counter()

    def create(self, record: OperationRecord) -> OperationRecord:
        """Keep a new record; if its id is taken, return the kept one."""
        with self._lock:
            kept = self._records.get(record.operation.operation_id)
            if kept is None:
                insort(self._order, _key(record))
                self._put(record)
            return kept or record

    def discard(self, operation_id: str) -> None:
        """Forget an operation that was refused before it began."""
        with self._lock:
            record = self._records.pop(operation_id, None)
            if record is not None:
                self._counts[_class(record)] -= 1
                del self._order[bisect_left(self._order, _key(record))]

    def save(self, record: OperationRecord) -> None:
        """Replace the record of an operation that has not ended."""
        with self._lock:
            if not self._records[record.operation.operation_id].operation.status.terminal:
                self._put(record)

    def finish(self, record: OperationRecord, metrics: Sequence[Metric]) -> OperationRecord:
        """Keep a terminal record and all its metrics."""
        with self._lock:
            kept = self._records[record.operation.operation_id]
            if kept.operation.status.terminal:
                return kept
            self._put(record)
            self._metrics[record.operation.operation_id] = tuple(metrics)
            return record

    def get(self, operation_id: str) -> OperationRecord | None:
        """Return a record, or None."""
        with self._lock:
            return self._records.get(operation_id)

    def metrics(self, operation_id: str, cursor: int, limit: int) -> Sequence[Metric]:
        """Return a finished operation's metrics from `cursor` on, at most `limit`."""
        with self._lock:
            return self._metrics.get(operation_id, ())[cursor : cursor + limit]

    def page(
        self, wanted: OperationFilter, after: SortKey | None, limit: int
    ) -> Sequence[OperationRecord]:
        """Return the newest records that match and are older than `after`."""
        with self._lock:
            found: list[OperationRecord] = []
            for record in self._older_than(after):
                if len(found) == limit:
                    break
                if wanted.matches(*_class(record)):
                    found.append(record)
            return found

    def count(self, wanted: OperationFilter) -> int:
        """Return how many records match."""
        with self._lock:
            return sum(n for key, n in self._counts.items() if wanted.matches(*key))

    def _put(self, record: OperationRecord) -> None:
        kept = self._records.get(record.operation.operation_id)
        if kept is not None:
            self._counts[_class(kept)] -= 1
        self._counts[_class(record)] += 1
        self._records[record.operation.operation_id] = record

    def _older_than(self, after: SortKey | None) -> Iterator[OperationRecord]:
        end = len(self._order) if after is None else bisect_left(self._order, after)
        for index in range(end - 1, -1, -1):
            yield self._records[self._order[index][1]]


def _key(record: OperationRecord) -> SortKey:
    return record.operation.create_time, record.operation.operation_id


def _class(record: OperationRecord) -> tuple[OperationType, OperationStatus]:
    return record.operation.type, record.operation.status
