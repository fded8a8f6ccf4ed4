"""Between the operations domain and its messages.

Outside servicers, stubs and modules like this one nobody sees a message.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ktrdr.operations.v1 import operation_pb2 as pb
from shared.operations.model import (
    Freshness,
    FreshnessSource,
    Liveness,
    Metric,
    Operation,
    OperationError,
    OperationStatus,
    OperationType,
    Progress,
)
from shared.operations.views import OperationView
from shared.rpc.paging import fitting

STATUS_TO_PROTO = {
    status: pb.OperationStatus.Value(f"OPERATION_STATUS_{status.value}")
    for status in OperationStatus
}
STATUS_FROM_PROTO = {number: status for status, number in STATUS_TO_PROTO.items()}
TYPE_TO_PROTO = {
    type_: pb.OperationType.Value(f"OPERATION_TYPE_{type_.value}") for type_ in OperationType
}
TYPE_FROM_PROTO = {number: type_ for type_, number in TYPE_TO_PROTO.items()}
SOURCE_TO_PROTO = {
    source: pb.FreshnessSource.Value(f"FRESHNESS_SOURCE_{source.value}")
    for source in FreshnessSource
}
SOURCE_FROM_PROTO = {number: source for source, number in SOURCE_TO_PROTO.items()}


MAX_ERROR_MESSAGE = 2000
"""Characters of an operation's error that are sent."""
MAX_ERROR_FACT = 500
"""Characters of each fact that goes with it."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400


# The conversions of protobuf's own classes check and normalise in Python, and
# cost an answer more than all the rest of it.


def set_time(message: Timestamp, at: datetime) -> None:
    """Set a timestamp to an aware datetime."""
    since = at - _EPOCH
    message.seconds = since.days * _DAY + since.seconds
    message.nanos = since.microseconds * 1000


def timestamp(at: datetime) -> Timestamp:
    """Convert an aware datetime."""
    message = Timestamp()
    set_time(message, at)
    return message


def optional_timestamp(at: datetime | None) -> Timestamp | None:
    """Convert an aware datetime, or leave a field unset."""
    return None if at is None else timestamp(at)


def time_of(message: Timestamp) -> datetime:
    """Convert to a datetime in UTC, to the microsecond; OverflowError if there is none."""
    return _EPOCH + timedelta(0, message.seconds, message.nanos // 1000)


def set_duration(message: Duration, seconds: float) -> None:
    """Set a duration to seconds, to the microsecond."""
    microseconds = round(seconds * 1e6)
    whole, rest = divmod(microseconds, 1_000_000)
    if whole < 0 and rest:  # both parts have the sign of the whole
        whole, rest = whole + 1, rest - 1_000_000
    message.seconds = whole
    message.nanos = rest * 1000


def duration(seconds: float) -> Duration:
    """Convert seconds, to the microsecond."""
    message = Duration()
    set_duration(message, seconds)
    return message


def seconds(message: Duration) -> float:
    """Convert to seconds."""
    return message.seconds + message.nanos / 1e9


def view_to_proto(view: OperationView) -> pb.Operation:
    """Convert a snapshot without its metrics."""
    message = operation_to_proto(view.operation)
    _add_view(message, view)
    return message


class OperationMessages:
    """Remembers the messages of operations that are answered more than once.

    With many readers most answers are of a snapshot that was answered before:
    only how fresh it is has changed. Safe to use from several threads.
    """

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._lock = threading.Lock()  # guards changes of _kept
        self._kept: OrderedDict[str, tuple[Operation, pb.Operation | None]] = OrderedDict()

    def fill(self, message: pb.Operation, view: OperationView) -> None:
        """Convert a snapshot without its metrics into the empty `message`."""
        operation = view.operation
        known, kept = self._kept.get(operation.operation_id, (None, None))
        if known is not operation:  # frozen, so the same is equal
            set_operation(message, operation)
            self._keep(operation, None)
        elif kept is None:
            set_operation(message, operation)
            again = pb.Operation()
            again.CopyFrom(message)
            self._keep(operation, again)
        else:
            message.CopyFrom(kept)
        _add_view(message, view)

    def _keep(self, operation: Operation, message: pb.Operation | None) -> None:
        with self._lock:
            self._kept[operation.operation_id] = operation, message
            self._kept.move_to_end(operation.operation_id)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)


def _add_view(message: pb.Operation, view: OperationView) -> None:
    _set_freshness(message.freshness, view.freshness)
    if view.liveness is not None:
        _set_liveness(message.liveness, view.liveness)


def operation_to_proto(operation: Operation) -> pb.Operation:
    """Convert an operation as recorded."""
    message = pb.Operation()
    set_operation(message, operation)
    return message


def set_operation(message: pb.Operation, operation: Operation) -> None:
    """Set an empty message to an operation as recorded."""
    message.operation_id = operation.operation_id
    message.type = TYPE_TO_PROTO[operation.type]
    message.status = STATUS_TO_PROTO[operation.status]
    for name, fact in operation.metadata.items():  # `update` is not protobuf's own, and slow
        message.metadata[name] = fact
    message.metrics_count = operation.metrics_count
    message.cancel_reason = operation.cancel_reason
    set_time(message.create_time, operation.create_time)
    set_time(message.update_time, operation.update_time)
    if operation.start_time is not None:
        set_time(message.start_time, operation.start_time)
    if operation.end_time is not None:
        set_time(message.end_time, operation.end_time)
    if operation.cancel_time is not None:
        set_time(message.cancel_time, operation.cancel_time)
    if operation.progress is not None:
        message.progress.SetInParent()  # also of a progress that says nothing
        _set_progress(message.progress, operation.progress)
    if operation.result is not None:
        packed = AnyMessage(type_url=operation.result.type_url, value=operation.result.value)
        message.result.CopyFrom(packed)
    elif operation.error is not None:
        message.error.CopyFrom(error_to_proto(operation.error))


def _set_progress(message: pb.Progress, progress: Progress) -> None:
    try:
        _set_words(message, progress)
    except UnicodeEncodeError:
        _set_words(
            message,
            progress._replace(
                message=in_utf8(progress.message),
                phase=in_utf8(progress.phase),
                context={in_utf8(k): in_utf8(v) for k, v in progress.context.items()},
            ),
        )
    message.current_step = progress.current_step
    message.items_processed = progress.items_processed
    if progress.percentage is not None:
        message.percentage = progress.percentage
    if progress.total_steps is not None:
        message.total_steps = progress.total_steps
    if progress.items_total is not None:
        message.items_total = progress.items_total
    if progress.update_time is not None:
        set_time(message.update_time, progress.update_time)
    if progress.estimated_remaining is not None:
        set_duration(message.estimated_remaining, progress.estimated_remaining)


def _set_words(message: pb.Progress, progress: Progress) -> None:
    """Set what a worker has said; UnicodeEncodeError if UTF-8 lacks some of it."""
    message.message = progress.message
    message.phase = progress.phase
    for name, fact in progress.context.items():
        message.context[name] = fact


def metric_to_proto(metric: Metric) -> pb.Metric:
    """Convert a metric."""
    try:
        return _metric(metric)
    except UnicodeEncodeError:
        return _metric(
            metric._replace(
                kind=in_utf8(metric.kind),
                values={in_utf8(k): value for k, value in metric.values.items()},
                labels={in_utf8(k): in_utf8(v) for k, v in metric.labels.items()},
            )
        )


def _metric(metric: Metric) -> pb.Metric:
    return pb.Metric(
        time=timestamp(metric.time),
        kind=metric.kind,
        step=metric.step,
        values=metric.values,
        labels=metric.labels,
    )


def metrics_page(metrics: Iterable[Metric], max_bytes: int) -> list[pb.Metric]:
    """Convert metrics until `max_bytes` are full; at least one if there is one."""
    return fitting(map(metric_to_proto, metrics), max_bytes)


def error_to_proto(error: OperationError) -> pb.OperationError:
    """Convert an error."""
    return pb.OperationError(
        code=error.code,
        reason=error.reason,
        message=_sendable(error.message, MAX_ERROR_MESSAGE),
        retryable=error.retryable,
        metadata={k: _sendable(fact, MAX_ERROR_FACT) for k, fact in error.metadata.items()},
    )


def _sendable(text: str, length: int) -> str:
    """Cut a text to what is sent of it; what a worker raised may hold a file's whole content."""
    return in_utf8(text if len(text) <= length else text[: length - 1] + "…")


def in_utf8(text: str) -> str:
    """Replace what UTF-8 lacks.

    What a worker says or raises may hold half a character of a file name. Its
    operation must stay readable, and every listing that holds it.
    """
    return text.encode("utf-8", "replace").decode()


def freshness_to_proto(freshness: Freshness) -> pb.Freshness:
    """Convert a freshness with its path."""
    message = pb.Freshness()
    _set_freshness(message, freshness)
    return message


def _set_freshness(message: pb.Freshness, freshness: Freshness) -> None:
    set_duration(message.age, freshness.age)
    message.age.SetInParent()
    message.source = SOURCE_TO_PROTO[freshness.source]
    message.cached = freshness.cached
    for hop in freshness.path:
        added = message.path.add(
            instance=hop.instance, source=SOURCE_TO_PROTO[hop.source], cached=hop.cached
        )
        added.age.SetInParent()
        set_duration(added.age, hop.age)
    if freshness.refresh_error is not None:
        message.refresh_error.CopyFrom(error_to_proto(freshness.refresh_error))


def _set_liveness(message: pb.Liveness, liveness: Liveness) -> None:
    message.SetInParent()
    message.worker_alive = liveness.worker_alive
    if liveness.last_report_age is not None:
        set_duration(message.last_report_age, liveness.last_report_age)
        message.last_report_age.SetInParent()
