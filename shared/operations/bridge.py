"""The progress bridge: a worker writes, readers pull, neither waits for the other.

Record raw, resolve at read. A hot method publishes one immutable record, a
monotonic timestamp and its raw arguments; percentages, messages, wall times and
mappings are built by the reader. So nothing is throttled, nothing is formatted
for nobody, and a report costs well below a microsecond.

The bridge knows nothing of operations, caches or gRPC, and calls nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import isnan
from operator import index
from time import monotonic
from typing import Any, ClassVar, NamedTuple, SupportsIndex, TypeVar

from shared.operations.cancellation import CancelSignal
from shared.operations.model import Metric, Progress

Record = tuple[Any, ...]
"""(monotonic time, kind, raw arguments…): what a report leaves behind."""

SnapshotT = TypeVar("SnapshotT", bound=Callable[..., Any])

_STATE = "state"
_METRIC = "metric"

_PROGRESS_FIELDS = frozenset(
    {"phase", "current_step", "total_steps", "items_processed", "items_total"}
)


class BridgeSnapshot(NamedTuple):
    """State and metrics of one instant."""

    progress: Progress | None
    """None before the first report."""
    metrics: tuple[Metric, ...]
    """From the cursor on, in order; at most as many as asked for."""
    metrics_count: int
    """Length of the whole log."""
    last_report_age: float | None
    """Seconds since the worker reported; None before the first report."""


def waits_for_nothing(snapshot: SnapshotT) -> SnapshotT:
    """Say of a bridge's `snapshot` that it takes microseconds, whatever the worker does.

    Such a bridge may be read where calls are taken in; one of another kind is read by
    a thread of its caller's own.
    """
    snapshot.waits_for_nothing = True  # type: ignore[attr-defined]  # as `may_wait` looks for it
    return snapshot


def may_wait(bridge: ProgressBridge) -> bool:
    """Whether reading a bridge may take longer than microseconds."""
    return not getattr(bridge.snapshot, "waits_for_nothing", False)


class ProgressBridge:
    """One writer's progress and metrics, readable from any thread.

    Usable as it is, or as the base of a bridge that speaks a domain's words.
    The methods that report, except those that say the work has ended, raise
    OperationCancelledError once `cancel` is set.
    """

    _logged_states: ClassVar[frozenset[str]] = frozenset()
    """Kinds of log entries that are states as well: one append publishes both."""

    def __init__(self, *, cancel: CancelSignal | None = None) -> None:
        self.cancel = cancel if cancel is not None else CancelSignal()
        # Guards _high_water and whatever a subclass must publish as one. Not
        # needed to publish a state alone, which is one attribute store, nor a
        # metric alone, which is one append to a log that only ever grows.
        self._lock = threading.RLock()
        self._latest: Record | None = None
        self._log: list[Record] = []
        self._high_water: float | None = None
        self._anchor = (datetime.now(UTC), monotonic())

    # ------------------------------------------------------------- for readers

    def get_status(self) -> Progress | None:
        """Return the progress now; None before the first report."""
        return self._progress(self._instant()[0])

    def get_metrics(self, cursor: int = 0) -> tuple[list[Metric], int]:
        """Return the metrics from index `cursor` on, and the next cursor."""
        snapshot = self.snapshot(cursor)
        return list(snapshot.metrics), cursor + len(snapshot.metrics)

    @waits_for_nothing
    def snapshot(self, cursor: int = 0, limit: int | None = None) -> BridgeSnapshot:
        """Return state and metrics since `cursor` of one instant.

        At most `limit` metrics; the cost follows their number, not the log's.
        Raises ValueError for a negative cursor. One past the end gives none.
        """
        if cursor < 0:
            raise ValueError(f"cursor must not be negative, got {cursor}")
        with self._lock:
            latest, count = self._instant()
        raw = self._log[cursor : count if limit is None else min(count, cursor + limit)]
        return BridgeSnapshot(
            progress=self._progress(latest),
            metrics=tuple(self._resolve_metric(record) for record in raw),
            metrics_count=count,
            last_report_age=None if latest is None else max(0.0, monotonic() - latest[0]),
        )

    # --------------------------------------------------- for writers (subclasses)

    def _update_state(self, percentage: float | None, message: str, **fields: object) -> None:
        """Publish a state. Fields that Progress lacks go to its context.

        A percentage of None keeps the last one; one beyond 0 to 100 is cut to it.
        Raises TypeError unless values, percentage and message are plain numbers or
        strings, and those that Progress has are of its types; ValueError for a
        percentage of NaN or a count beyond 64 bits. Then nothing is published.
        """
        self._publish_state(percentage, message, fields)
        if self.cancel.requested:
            self.cancel.raise_if_requested()

    def _append_metric(self, metric: Metric) -> None:
        """Append one metric to the log.

        Raises TypeError unless its values are plain numbers, its labels strings, its
        step a whole number and its time aware; ValueError for a step beyond 64 bits,
        OverflowError for a value that no float holds.
        """
        values, labels = dict(metric.values), dict(metric.labels)
        refuse_mutable(values)
        refuse_mutable(labels)
        _refuse_untold(metric)
        metric = metric._replace(values=values, labels=labels)
        with self._lock:
            self._log.append((monotonic(), _METRIC, metric))

    def _publish_state(
        self, percentage: float | None, message: str, fields: Mapping[str, object]
    ) -> None:
        refuse_mutable(fields)
        refuse_mutable({"percentage": percentage, "message": message})
        _refuse_unfit({"message": message, **fields})
        if percentage is not None and isnan(percentage):  # it would read as 100, for ever
            raise ValueError("percentage must be a number, got nan; None leaves it as it is")
        if percentage is None and (progress := self.get_status()) is not None:
            percentage = progress.percentage
        with self._lock:
            self._latest = (monotonic(), _STATE, percentage, message, fields)

    # ------------------------------------------------------- resolving, at read

    def _instant(self) -> tuple[Record | None, int]:
        """The newest state and the length of the log when it was the newest.

        The state is read before the log: a record that was logged in between is
        newer, and if it is a state too, it is the one that goes with the log.
        """
        latest = self._latest
        count = len(self._log)
        if count:
            logged = self._log[count - 1]
            if logged[1] in self._logged_states and (latest is None or logged[0] > latest[0]):
                latest = logged
        return latest, count

    def _progress(self, record: Record | None) -> Progress | None:
        """Resolve a record; the percentage never falls from one read to the next."""
        if record is None:
            return None
        progress = self._resolve(record)
        _refuse_untold_counts(progress)
        with self._lock:
            if progress.percentage is not None:
                known = min(100.0, progress.percentage)
                self._high_water = max(known, self._high_water or 0.0)
            return progress.placed(self._high_water, self._wall(record[0]))

    def _resolve(self, record: Record) -> Progress:
        """Build what a record stands for; a subclass resolves its own kinds."""
        _, _, percentage, message, fields = record
        known = {name: value for name, value in fields.items() if name in _PROGRESS_FIELDS}
        rest = {name: str(value) for name, value in fields.items() if name not in known}
        return Progress(percentage=percentage, message=message, context=rest, **known)

    def _resolve_metric(self, record: Record) -> Metric:
        """Build the metric of a log entry; a subclass resolves its own kinds."""
        metric: Metric = record[2]
        return metric

    def _wall(self, at: float) -> datetime:
        """The wall time of a monotonic timestamp."""
        wall, start = self._anchor
        return wall + timedelta(seconds=at - start)


_LEAST, _MOST = -(2**63), 2**63 - 1
_TEXTS = frozenset({"message", "phase"})
_TOTALS = frozenset({"total_steps", "items_total"})
"""Counts that may be unknown."""


def _refuse_unfit(fields: Mapping[str, object]) -> None:
    """Raise TypeError or ValueError if fields of Progress are not what it has there.

    No message could be made of it, and no listing of the operations it is among.
    """
    for name in fields.keys() & (_PROGRESS_FIELDS | _TEXTS):
        value = fields[name]
        if name in _TEXTS:
            _refuse_unless(str, name, value)
        elif value is not None or name not in _TOTALS:
            _refuse_unless(int, name, value)


def _refuse_untold(metric: Metric) -> None:
    """Raise as `_append_metric` for a metric that could be neither told nor stored."""
    _refuse_unless(str, "kind", metric.kind)
    _refuse_unless(int, "step", metric.step)
    if metric.time.tzinfo is None:
        raise TypeError("time has no time zone: take datetime.now(UTC)")
    values: Mapping[str, object] = metric.values
    for name, value in values.items():
        _refuse_unless(str, "the name of a value", name)
        if not isinstance(value, int | float):
            raise TypeError(f"{name} is a {type(value).__name__}: report a number")
    refuse_beyond_floats(values)
    for name, text in metric.labels.items():
        _refuse_unless(str, "the name of a label", name)
        _refuse_unless(str, name, text)


def _refuse_untold_counts(progress: Progress) -> None:
    """Raise as `refuse_uncountable`: a hot method takes what it is given as it is."""
    steps = progress.current_step, progress.total_steps
    for count in (*steps, progress.items_processed, progress.items_total):
        if count is not None:
            refuse_uncountable("a count", count)


def refuse_uncountable(name: str, value: SupportsIndex) -> None:
    """Raise TypeError unless it is a whole number, be it NumPy's; ValueError beyond 64 bits."""
    if not _LEAST <= index(value) <= _MOST:
        raise ValueError(f"{name} is beyond 64 bits: {value}")


def _refuse_unless(kind: type, name: str, value: object) -> None:
    """Raise TypeError unless a value is of a type, ValueError for one beyond 64 bits."""
    if type(value) is not kind:
        what = "text" if kind is str else "a whole number"
        raise TypeError(f"{name} is a {type(value).__name__}: report {what}")
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        raise ValueError(f"{name} is beyond 64 bits: {value}")


def refuse_beyond_floats(values: Mapping[str, object]) -> None:
    """Raise OverflowError for a whole number that no float holds, as the reader's do."""
    for name, value in values.items():
        if isinstance(value, int):
            try:
                float(value)
            except OverflowError:
                raise OverflowError(
                    f"{name} is beyond what a float holds: report a smaller number"
                ) from None


_PLAIN = frozenset({float, int, str, bool, type(None)})


def refuse_mutable(values: Mapping[str, object]) -> None:
    """Raise TypeError unless every value is a plain number, string or None.

    A tensor or an array would pin memory and may change before it is read; even
    a numpy scalar is one conversion away from safe, and that conversion belongs
    to the caller, once per report.
    """
    if not _PLAIN.issuperset(map(type, values.values())):
        for name, value in values.items():
            if type(value) not in _PLAIN:
                raise TypeError(
                    f"{name} is a {type(value).__name__}: report plain numbers and "
                    "strings; convert with float() or .item(), once an epoch"
                )
