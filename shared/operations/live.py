"""One open operation in memory: its record, its metrics and who waits for it.

Every method that ends in a change is a compare-and-set under the operation's
own lock. No method calls a source, a store or another operation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf

from shared.operations.endings import Ending
from shared.operations.flight import Flight
from shared.operations.latch import Latch
from shared.operations.live_state import LiveState
from shared.operations.model import (
    TRANSITIONS,
    FreshnessSource,
    Hop,
    Liveness,
    Metric,
    Operation,
    OperationError,
    OperationRecord,
    OperationStatus,
    Owner,
    Progress,
)
from shared.operations.source import OperationSource, OwnerState, SourceReading
from shared.operations.store import MetricsMissingError
from shared.rpc.errors import FailedPreconditionError, StoreUnavailableError

_TRY_AGAIN = 1.0
"""Seconds after which a store that was away is tried again, if somebody asks."""
_ORDER = {
    OperationStatus.PENDING: 0,
    OperationStatus.RUNNING: 1,
    OperationStatus.CANCELLING: 2,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store has of a live operation."""

    operation: Operation
    metrics_count: int
    news_at: float = -inf
    """Monotonic instant of the last attempt to store more than a state."""


class LiveOperation:
    """An operation that has not ended, or has just ended."""

    def __init__(
        self, record: OperationRecord, recorded_at: float, metrics: Sequence[Metric] = ()
    ) -> None:
        """`recorded_at` is the monotonic instant the record is known for, `metrics` its log."""
        self.operation_id = record.operation.operation_id
        self._recorded_at = recorded_at
        # Guards writes of the fields below, and reads of several as one; single
        # fields are also read without it, each once. Held for microseconds: never
        # across a read of a source, a write to the store or another operation's lock.
        self.lock = threading.Lock()
        self.record = record
        self.source: OperationSource | None = None
        self.flight: Flight | None = None
        self.flights_begun = 0
        self.landed = 0
        """Number of the last flight that brought news and was not from a cache."""
        self.observed_at = -inf
        self.ending: Ending | None = None
        """Decided, not yet published: the record is still to be stored."""
        self.sealed = False
        """No more metrics can come: the last drain is done."""
        self.forgotten = False
        """The store was told to forget it: there is no such operation any more."""
        self.store_error: OperationError | None = None
        self._stored = Stored(record.operation, len(metrics))
        self._metrics: list[Metric] = list(metrics)
        self._sent_at = -inf
        self._path: tuple[Hop, ...] = ()
        self._last_report_age: float | None = None
        self._owner_liveness: Liveness | None = None
        self._worker: threading.Thread | None = None
        self._cancel_wanted = _cancel_of(record.operation)
        self._cancel_telling: Latch | None = None
        """Set once the caller who tells the worker has done so or failed; None if nobody does."""
        self._waiters: set[threading.Event] = set()
        self._upstream_wait = False
        self.reconsidered_at = -inf
        """When the store was last asked what has become of it; unguarded, twice does no harm."""
        # Serialises writes to the store, so that an older record never replaces
        # a newer one. Taken before `lock`, never inside it.
        self.store_lock = threading.Lock()

    # ---------------------------------------------------------------- reading

    @property
    def status(self) -> OperationStatus:
        """The recorded state."""
        return self.record.operation.status

    @property
    def unstored(self) -> bool:
        """Whether it has ended and the store would not take it yet."""
        return self.ending is not None and self.store_error is not None

    def to_store(self, now: Callable[[], float], interval: float) -> bool:
        """Whether a read has brought what is to be stored: a state at once, the rest by and by."""
        stored, operation = self._stored, self.record.operation  # looked at once, each
        if self.ending is not None:
            return False
        if operation.status is not stored.operation.status:
            return True
        if self.store_error is not None:
            return now() - stored.news_at >= min(interval, _TRY_AGAIN)
        if now() - stored.news_at < interval:
            return False
        return (
            operation.metrics_count > stored.metrics_count
            or operation.progress != stored.operation.progress
        )

    def raise_if_unstored(self) -> None:
        """Raise StoreUnavailableError if its end is decided and cannot be shown yet."""
        if self.ending is None or self.forgotten:  # unguarded looks: both stay so
            return
        with self.lock:
            if self.status.terminal:
                return
            message = f"How operation {self.operation_id} ended is being stored."
            if self.store_error is not None:
                message = self.store_error.message
        raise StoreUnavailableError(message, metadata={"operation_id": self.operation_id})

    @property
    def metrics_count(self) -> int:
        """How many metrics have been adopted."""
        return len(self._metrics)

    def state(self, cursor: int, limit: int) -> LiveState:
        """Copy the state and at most `limit` metrics from `cursor` on, of one instant."""
        with self.lock:
            operation, source = self.record.operation, self.source
            kind, known_at = FreshnessSource.RECORD, inf
            if source is not None:
                known_at = max(self.observed_at, self._recorded_at)
                if self.observed_at > -inf:
                    kind = source.kind
            return LiveState(
                operation,
                known_at,
                kind,
                self._path,
                None if operation.status.terminal else self._liveness(),
                tuple(self._metrics[cursor : cursor + limit]) if limit else (),
                self.store_error,
            )

    def _liveness(self) -> Liveness | None:
        """What the owner sees; None if it is another process that has not been heard yet."""
        if self._owner_liveness is not None:
            return self._owner_liveness
        if self.source is not None and self.source.kind is FreshnessSource.REMOTE:
            return None
        alive = self._worker is not None and self._worker.is_alive()
        return Liveness(alive, self._last_report_age)

    # ------------------------------------------------------------- transitions

    def assign(self, owner: Owner, metadata: Mapping[str, str], told_by: str, at: datetime) -> None:
        """Name another owner, about to be told, and what belongs to it; nobody is at the work."""
        with self.lock:
            metadata = {**self.record.operation.metadata, **metadata}
            self._change(metadata=metadata, update_time=at)
            self.record = replace(self.record, owner=owner, told_by=told_by)

    def begin(self, worker: threading.Thread, at: datetime) -> bool:
        """PENDING → RUNNING, unless the operation has been ended meanwhile."""
        with self.lock:
            if self.ending is not None or self.status is not OperationStatus.PENDING:
                return False
            self._worker = worker
            self._change(status=OperationStatus.RUNNING, start_time=at, update_time=at)
            return True

    def want_cancel(self, reason: str, at: datetime) -> bool | Latch:
        """Note that somebody wants it cancelled; True if he is to tell the worker.

        False if it has been told, or if it is too late. While another caller is
        telling it, a latch that is set when he has succeeded or failed.
        """
        with self.lock:
            if self.ending is not None or self.status.terminal:
                return False
            if self._cancel_wanted is not None:
                return self._cancel_telling or False
            self._cancel_wanted = (at, reason)
            self._cancel_telling = Latch()
            return True

    def note_cancel_told(self) -> None:
        """Note that the worker knows."""
        self._end_telling(told=True)

    def unwant_cancel(self) -> None:
        """Take the note back: the worker could not be told; whoever waits may try."""
        self._end_telling(told=False)

    def _end_telling(self, *, told: bool) -> None:
        with self.lock:
            telling, self._cancel_telling = self._cancel_telling, None
            if not told:
                self._cancel_wanted = None
        if telling is not None:
            telling.set()

    def mark_cancelling(self, at: datetime) -> bool:
        """RUNNING → CANCELLING, if the worker has not ended meanwhile."""
        with self.lock:
            if self.ending is not None or self.status is not OperationStatus.RUNNING:
                return False
            self._change(status=OperationStatus.CANCELLING, update_time=at)
            self.record = replace(self.record, operation=self._with_cancel(self.record.operation))
            return True

    def claim_ending(
        self,
        decide: Callable[[OperationStatus, bool], Ending],
        only_from: OperationStatus | None = None,
    ) -> bool:
        """Let `decide(status, cancel_wanted)` settle how it ends, once.

        False if the operation has ended already, or is not in the state
        `only_from`. FailedPreconditionError if the transition is not in the
        table.
        """
        with self.lock:
            if self.ending is not None or self.status.terminal:
                return False
            if only_from is not None and self.status is not only_from:
                return False
            ending = decide(self.status, self._cancel_wanted is not None)
            if ending.status not in TRANSITIONS[self.status]:
                raise FailedPreconditionError(
                    f"operation {self.operation_id} is {self.status.value} and cannot become "
                    f"{ending.status.value}",
                    reason="ILLEGAL_TRANSITION",
                )
            self.ending = ending
            return True

    def unstored_part(self) -> tuple[OperationRecord, list[Metric], int]:
        """The record, the metrics that the store lacks, and the place of their first."""
        with self.lock:
            first = self._stored.metrics_count
            return self.record, self._metrics[first:], first

    def note_stored(self, operation: Operation, metrics_count: int, at: float) -> None:
        """Note what the store has now."""
        with self.lock:
            self.store_error = None
            if operation.progress is None and not metrics_count:
                at = self._stored.news_at  # a state alone
            self._stored = Stored(operation, metrics_count, at)

    def note_not_stored(self, error: StoreUnavailableError, at: float) -> bool:
        """Note that the store did not take it; False if that was known.

        One that was replaced by an older copy lacks metrics that it had: it is
        given them again.
        """
        with self.lock:
            known, self.store_error = self.store_error, OperationError.of(error)
            count = self._stored.metrics_count
            if isinstance(error, MetricsMissingError):
                count = error.kept
            self._stored = replace(self._stored, metrics_count=count, news_at=at)
            return known is None

    def follow(self, record: OperationRecord, source: OperationSource) -> None:
        """Take the operation's owner from a record that another process has kept."""
        with self.lock:
            updated = max(self.record.operation.update_time, record.operation.update_time)
            self._change(metadata=record.operation.metadata, update_time=updated)
            self.record = replace(self.record, owner=record.owner, told_by=record.told_by)
            self.source = source

    def seal(self) -> tuple[OperationRecord, list[Metric], int] | None:
        """Build the terminal record after the last drain; None if there is no ending.

        With it the metrics that the store lacks, and the place of their first.
        """
        with self.lock:
            if self.ending is None or self.status.terminal:
                return None
            self.sealed = True
            operation = replace(
                self.record.operation,
                status=self.ending.status,
                end_time=self.ending.end_time,
                update_time=self.ending.end_time,
                result=self.ending.result,
                error=self.ending.error,
            )
            record = replace(self.record, operation=self._with_cancel(_in_order(operation)))
            first = self._stored.metrics_count
            return record, self._metrics[first:], first

    def publish(self, record: OperationRecord) -> None:
        """Make the stored terminal record visible and wake whoever waits."""
        with self.lock:
            self.record = record
            self.source = None
            self.store_error = None
        self.wake_waiters()

    def forget(self) -> None:
        """Note that the operation has been forgotten, and wake whoever waits."""
        with self.lock:
            self.forgotten = True
        self.wake_waiters()

    def _with_cancel(self, operation: Operation) -> Operation:
        if self._cancel_wanted is None:
            return operation
        at, reason = self._cancel_wanted
        return replace(operation, cancel_time=at, cancel_reason=reason)

    def _change(self, **fields: object) -> None:
        operation = replace(self.record.operation, **fields)  # type: ignore[arg-type]  # callers name its fields
        self.record = self.record.of(_in_order(operation))

    # --------------------------------------------------------------- adoption

    def adopt(self, reading: SourceReading, sent_at: float) -> bool:
        """Take over what a read brought; False if it does not continue what is known.

        A delta counts only if it starts where the log ends and the operation
        has not ended. A log shorter than ours was lost in the owner's restart:
        ours and our further progress stay, its state is taken.
        """
        with self.lock:
            if self.sealed or self.status.terminal or sent_at < self._sent_at:
                return False
            lost = reading.metrics_count < len(self._metrics)
            if not lost and reading.cursor != len(self._metrics):
                return False
            self._metrics.extend(() if lost else reading.metrics)
            self._sent_at = sent_at
            self._path = reading.path
            self._owner_liveness = reading.liveness
            self._last_report_age = reading.last_report_age
            operation = self._reported(reading.progress)
            if reading.operation is not None:
                operation = self._told(operation, reading.operation, last_page=not reading.has_more)
            if operation is not self.record.operation:
                self.record = self.record.of(operation)
            return True

    def land(self, flight: Flight, observed_at: float) -> None:
        """Note that a flight brought everything there was at `observed_at`."""
        with self.lock:
            if flight.staleness == 0:
                self.landed = max(self.landed, flight.number)
            self.observed_at = max(self.observed_at, observed_at)

    def drained(self, observed_at: float) -> None:
        """Note that the last drain brought everything there was at `observed_at`."""
        with self.lock:
            self.observed_at = max(self.observed_at, observed_at)

    def _reported(self, progress: Progress | None) -> Operation:
        """The operation with the metrics as they are now and a reading's progress.

        Itself if both are known: many things are remembered of a copy.
        """
        ours, count = self.record.operation, len(self._metrics)
        known, updated = ours.progress, ours.update_time
        if progress is None or (
            known is not None and (progress.percentage or 0.0) < (known.percentage or 0.0)
        ):
            progress = known
        elif progress.update_time is not None:
            updated = max(updated, progress.update_time)
        if count == ours.metrics_count and updated == ours.update_time and progress == known:
            return ours
        return ours.reported(progress, updated, count)

    def _told(self, ours: Operation, theirs: OwnerState, *, last_page: bool) -> Operation:
        """The operation with what its owner's state changes, never going back.

        Its end is taken only with its last metrics.
        """
        status = ours.status
        if not theirs.status.terminal and _ORDER[theirs.status] > _ORDER[status]:
            status = theirs.status
        if theirs.end_time is not None and last_page and self.ending is None:
            self.ending = Ending(theirs.status, theirs.end_time, theirs.result, theirs.error)
        start_time = ours.start_time or theirs.start_time
        cancel_time = ours.cancel_time or theirs.cancel_time
        cancel_reason = ours.cancel_reason or theirs.cancel_reason
        if (status, start_time, cancel_time, cancel_reason) == (
            ours.status,
            ours.start_time,
            ours.cancel_time,
            ours.cancel_reason,
        ):
            return ours
        told = replace(
            ours,
            status=status,
            start_time=start_time,
            cancel_time=cancel_time,
            cancel_reason=cancel_reason,
        )
        return _in_order(told)

    # ---------------------------------------------------------------- waiting

    def add_waiter(self, waiter: threading.Event) -> None:
        """Have `waiter` set when the operation ends or its state must be looked at."""
        with self.lock:
            self._waiters.add(waiter)

    def remove_waiter(self, waiter: threading.Event) -> None:
        """Forget a waiter."""
        with self.lock:
            self._waiters.discard(waiter)

    def lead_upstream_wait(self) -> OperationSource | None:
        """The owner to wait at on behalf of all waiters.

        None if another waiter does, if the work is here or if its end is known.
        """
        with self.lock:
            source = self.source
            if source is None or source.kind is FreshnessSource.BRIDGE:
                return None
            if self._upstream_wait or self.ending is not None:
                return None
            self._upstream_wait = True
            return source

    def end_upstream_wait(self) -> None:
        """Let another waiter lead."""
        with self.lock:
            self._upstream_wait = False

    def wake_waiters(self) -> None:
        """Set every waiter."""
        with self.lock:
            for waiter in self._waiters:
                waiter.set()


def _in_order(operation: Operation) -> Operation:
    """The operation, last changed no earlier than it started; the times may be of two clocks."""
    started = operation.start_time
    if started is None or started <= operation.update_time:
        return operation
    return replace(operation, update_time=started)


def _cancel_of(operation: Operation) -> tuple[datetime, str] | None:
    """The cancellation that a record says was asked for."""
    if operation.cancel_time is None:
        return None
    return operation.cancel_time, operation.cancel_reason
