"""Where operation records are kept: the port.

The store is written at creation, at each transition and, with all metrics, at
the end; and with what a reader has learnt, now and then. Never on a worker's
hot path. An implementation raises StoreUnavailableError for whatever keeps it
from answering, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from shared.rpc.errors import StoreUnavailableError

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
REMEMBERED = 10_000
"""Forgotten operations that a store remembers not to take back, the last ones of each service.

Of one, nothing is left but its id, so this bounds what deletions leave behind. Only who still has
one in memory could bring it back, and finds out when he next stores something of it.
"""


class MetricsMissingError(StoreUnavailableError):
    """The store has lost metrics it once kept: it was replaced by an older one."""

    def __init__(self, operation_id: str, kept: int) -> None:
        """Of the operation's log, the first `kept` metrics are there."""
        super().__init__(
            f"Metrics of operation {operation_id} could not be stored: those from {kept} on are "
            "missing in the store. Store them again, from there on."
        )
        self.kept = kept


class OperationStore(Protocol):
    """Keeps records by operation id, and each operation's metrics by their place in its log.

    Which operation a record is of, its id and `create_time` say: an id that was
    forgotten can be used anew. What was forgotten, the store does not take back.
    """

    def create(self, record: OperationRecord) -> OperationRecord:
        """Keep a new record; if its id is taken, change nothing and return the kept one."""
        ...

    def discard(self, record: OperationRecord) -> None:
        """Forget an operation that was refused before it began.

        It is the open one with this record's id and `create_time`, whatever else
        of it has been changed: one that has ended stays, and one that another
        process has created under the id.
        """
        ...

    def save(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord | None:
        """Replace the record of an operation that has not ended and keep `metrics`, as one.

        They are the log's from index `first` on; what is kept of them stays.
        Raises MetricsMissingError if metrics before `first` are not kept.
        Returns the kept record: the given one, or the terminal one, which stays
        as it is. None, and nothing is changed, if the operation has been forgotten;
        one that the store does not know for another reason, it keeps.
        """
        ...

    def finish(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord | None:
        """Keep a terminal record and the rest of its metrics, durably and as one.

        `metrics` and None as for `save`. If the kept record is terminal already,
        change nothing and return it.
        """
        ...

    def get(self, operation_id: str) -> OperationRecord | None:
        """Return a record, or None."""
        ...

    def metrics(self, operation_id: str, cursor: int, limit: int) -> Sequence[Metric]:
        """Return the kept metrics of an operation from `cursor` on, at most `limit`."""
        ...

    def page(
        self, wanted: OperationFilter, after: SortKey | None, limit: int
    ) -> Sequence[OperationRecord]:
        """Return the newest records that match and are older than `after`."""
        ...

    def count(self, wanted: OperationFilter) -> int:
        """Return how many records match."""
        ...

    def mark_read(self, operation_id: str) -> None:
        """Note that whoever started a finished operation knows how it ended."""
        ...

    def delete(self, operation_id: str) -> bool:
        """Forget a finished operation and its metrics; False if there is none or it is open."""
        ...

    def prune(self, keep: int, ended_before: datetime, limit: int) -> Sequence[str]:
        """Forget finished operations beyond the retention, the oldest first; return their ids.

        Beyond it is what ended before `ended_before`; and what ended before the
        `keep` that ended last, unless another process started it and has not
        read how it ended. At most `limit` at a time.
        """
        ...
