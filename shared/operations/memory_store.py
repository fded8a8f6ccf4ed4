"""Records in memory, for as long as the process lives: the store of tests."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from shared.operations.model import Metric, OperationRecord, OperationStatus, OperationType
from shared.operations.store import REMEMBERED, MetricsMissingError, OperationFilter, SortKey


class MemoryOperationStore:
    """Keeps records for as long as the process lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._records: dict[str, OperationRecord] = {}
        self._metrics: dict[str, list[Metric]] = {}
        self._order: list[SortKey] = []
        self._counts: Counter[tuple[OperationType, OperationStatus]] = Counter()
        self._forgotten: dict[SortKey, None] = {}

    def create(self, record: OperationRecord) -> OperationRecord:
        """Keep a new record; if its id is taken, return the kept one."""
        with self._lock:
            kept = self._records.get(record.operation.operation_id)
            if kept is None:
                self._forgotten.pop(_key(record), None)
                insort(self._order, _key(record))
                self._put(record)
            return kept or record

    def discard(self, record: OperationRecord) -> None:
        """Forget an operation that was refused before it began."""
        with self._lock:
            kept = self._records.get(record.operation.operation_id)
            if kept is None or kept.operation.status.terminal:
                return
            if kept.operation.create_time == record.operation.create_time:
                self._forget(kept)

    def save(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord | None:
        """Replace the record of an operation that has not ended and keep `metrics`."""
        with self._lock:
            return self._replace(record, metrics, first)

    def finish(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord | None:
        """Keep a terminal record and the rest of its metrics."""
        with self._lock:
            return self._replace(record, metrics, first)

    def get(self, operation_id: str) -> OperationRecord | None:
        """Return a record, or None."""
        with self._lock:
            return self._records.get(operation_id)

    def metrics(self, operation_id: str, cursor: int, limit: int) -> Sequence[Metric]:
        """Return the kept metrics of an operation from `cursor` on, at most `limit`."""
        with self._lock:
            return tuple(self._metrics.get(operation_id, [])[cursor : cursor + limit])

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

    def mark_read(self, operation_id: str) -> None:
        """Note that whoever started a finished operation knows how it ended."""
        with self._lock:
            record = self._records.get(operation_id)
            if record is not None and record.operation.status.terminal:
                self._records[operation_id] = replace(record, outcome_read=True)

    def delete(self, operation_id: str) -> bool:
        """Forget a finished operation and its metrics."""
        with self._lock:
            record = self._records.get(operation_id)
            if record is None or not record.operation.status.terminal:
                return False
            self._forget(record)
            return True

    def prune(self, keep: int, ended_before: datetime, limit: int) -> Sequence[str]:
        """Forget finished operations beyond the retention, the oldest first."""
        with self._lock:
            ended = sorted(filter(_has_ended, self._records.values()), key=_ended)
            surplus = ended[: max(0, len(ended) - keep)]
            beyond = [
                record
                for place, record in enumerate(ended)
                if _ended(record)[0] < ended_before
                or (place < len(surplus) and not (record.starter and not record.outcome_read))
            ]
            for record in beyond[:limit]:
                self._forget(record)
            return [record.operation.operation_id for record in beyond[:limit]]

    def _replace(
        self, record: OperationRecord, metrics: Sequence[Metric], first: int
    ) -> OperationRecord | None:
        operation_id = record.operation.operation_id
        kept = self._records.get(operation_id)
        if _key(record) in self._forgotten or (kept is not None and _key(kept) != _key(record)):
            return None
        if kept is not None and kept.operation.status.terminal:
            return kept
        log = self._metrics.get(operation_id, [])
        if metrics and first > len(log):
            raise MetricsMissingError(operation_id, len(log))
        if kept is None:
            insort(self._order, _key(record))
        self._put(record)
        log.extend(metrics[max(0, len(log) - first) :])
        self._metrics[operation_id] = log
        return record

    def _put(self, record: OperationRecord) -> None:
        kept = self._records.get(record.operation.operation_id)
        if kept is not None:
            self._counts[_class(kept)] -= 1
        self._counts[_class(record)] += 1
        self._records[record.operation.operation_id] = record

    def _forget(self, record: OperationRecord) -> None:
        operation_id = record.operation.operation_id
        del self._records[operation_id]
        self._metrics.pop(operation_id, None)
        self._counts[_class(record)] -= 1
        del self._order[bisect_left(self._order, _key(record))]
        self._forgotten[_key(record)] = None
        if len(self._forgotten) > REMEMBERED:
            del self._forgotten[next(iter(self._forgotten))]

    def _older_than(self, after: SortKey | None) -> Iterator[OperationRecord]:
        end = len(self._order) if after is None else bisect_left(self._order, after)
        for index in range(end - 1, -1, -1):
            yield self._records[self._order[index][1]]


def _key(record: OperationRecord) -> SortKey:
    return record.operation.create_time, record.operation.operation_id


def _ended(record: OperationRecord) -> SortKey:
    operation = record.operation
    return operation.end_time or operation.update_time, operation.operation_id


def _has_ended(record: OperationRecord) -> bool:
    return record.operation.status.terminal


def _class(record: OperationRecord) -> tuple[OperationType, OperationStatus]:
    return record.operation.type, record.operation.status
