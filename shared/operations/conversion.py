"""Between the operations domain and its messages.

Outside servicers, stubs and modules like this one nobody sees a message.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ktrdr.operations.v1 import operation_pb2 as pb
from shared.operations.model import (
    Freshness,
    FreshnessSource,
    Hop,
    Liveness,
    Metric,
    Operation,
    OperationError,
    OperationStatus,
    OperationType,
    Progress,
)
from shared.operations.views import OperationView

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


MAX_ERROR_MESSAGE = 2000
"""Characters of an operation's error that are sent."""
MAX_ERROR_FACT = 500
"""Characters of each fact that goes with it."""


def timestamp(at: datetime) -> Timestamp:
    """Convert an aware datetime."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def duration(seconds: float) -> Duration:
    """Convert seconds, to the microsecond."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def seconds(message: Duration) -> float:
    """Convert to seconds."""
    return message.seconds + message.nanos / 1e9


def view_to_proto(view: OperationView) -> pb.Operation:
    """Convert a snapshot without its metrics."""
    message = pb.Operation()
    _fill(message, operation_to_proto(view.operation), view)
    return message


class OperationMessages:
    """Remembers the messages of the operations that were converted last.

    Most answers are of a snapshot that was answered before: only how fresh it
    is has changed. Safe to use from several threads.
    """

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._lock = threading.Lock()  # guards _kept
        self._kept: OrderedDict[str, tuple[Operation, pb.Operation]] = OrderedDict()

    def fill(self, message: pb.Operation, view: OperationView) -> None:
        """Convert a snapshot without its metrics into `message`."""
        _fill(message, self._of(view.operation), view)

    def _of(self, operation: Operation) -> pb.Operation:
        with self._lock:
            kept = self._kept.get(operation.operation_id)
        if kept is not None and kept[0] is operation:  # frozen, so the same is equal
            return kept[1]
        message = operation_to_proto(operation)
        with self._lock:
            self._kept[operation.operation_id] = (operation, message)
            self._kept.move_to_end(operation.operation_id)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return message


def _fill(message: pb.Operation, operation: pb.Operation, view: OperationView) -> None:
    message.CopyFrom(operation)
    message.freshness.CopyFrom(freshness_to_proto(view.freshness))
    if view.liveness is not None:
        message.liveness.CopyFrom(liveness_to_proto(view.liveness))


def operation_to_proto(operation: Operation) -> pb.Operation:
    """Convert an operation as recorded."""
    message = pb.Operation(
        operation_id=operation.operation_id,
        type=TYPE_TO_PROTO[operation.type],
        status=STATUS_TO_PROTO[operation.status],
        metadata=operation.metadata,
        metrics_count=operation.metrics_count,
        create_time=timestamp(operation.create_time),
        update_time=timestamp(operation.update_time),
        cancel_reason=operation.cancel_reason,
    )
    for field in ("start_time", "end_time", "cancel_time"):
        if (at := getattr(operation, field)) is not None:
            getattr(message, field).FromDatetime(at)
    if operation.progress is not None:
        message.progress.CopyFrom(progress_to_proto(operation.progress))
    if operation.result is not None:
        packed = AnyMessage(type_url=operation.result.type_url, value=operation.result.value)
        message.result.CopyFrom(packed)
    elif operation.error is not None:
        message.error.CopyFrom(error_to_proto(operation.error))
    return message


def progress_to_proto(progress: Progress) -> pb.Progress:
    """Convert a progress."""
    message = pb.Progress(
        percentage=progress.percentage,
        message=progress.message,
        phase=progress.phase,
        current_step=progress.current_step,
        total_steps=progress.total_steps,
        items_processed=progress.items_processed,
        items_total=progress.items_total,
        context=progress.context,
    )
    if progress.update_time is not None:
        message.update_time.FromDatetime(progress.update_time)
    if progress.estimated_remaining is not None:
        message.estimated_remaining.CopyFrom(duration(progress.estimated_remaining))
    return message


def metric_to_proto(metric: Metric) -> pb.Metric:
    """Convert a metric."""
    return pb.Metric(
        time=timestamp(metric.time),
        kind=metric.kind,
        step=metric.step,
        values=metric.values,
        labels=metric.labels,
    )


def metrics_page(metrics: Iterable[Metric], max_bytes: int) -> list[pb.Metric]:
    """Convert metrics until `max_bytes` are full; at least one if there is one."""
    page: list[pb.Metric] = []
    used = 0
    for metric in metrics:
        message = metric_to_proto(metric)
        used += message.ByteSize()
        if page and used > max_bytes:
            break
        page.append(message)
    return page


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
    """Cut a text and replace what UTF-8 lacks.

    What a worker raised may hold anything: a file's whole content, half a
    character of a file name. Its operation must stay readable, and every
    listing that holds it.
    """
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut.encode("utf-8", "replace").decode()


def freshness_to_proto(freshness: Freshness) -> pb.Freshness:
    """Convert a freshness with its path."""
    message = pb.Freshness(
        age=duration(freshness.age),
        source=SOURCE_TO_PROTO[freshness.source],
        cached=freshness.cached,
        path=[_hop_to_proto(hop) for hop in freshness.path],
    )
    if freshness.refresh_error is not None:
        message.refresh_error.CopyFrom(error_to_proto(freshness.refresh_error))
    return message


def _hop_to_proto(hop: Hop) -> pb.Hop:
    return pb.Hop(
        instance=hop.instance,
        source=SOURCE_TO_PROTO[hop.source],
        cached=hop.cached,
        age=duration(hop.age),
    )


def liveness_to_proto(liveness: Liveness) -> pb.Liveness:
    """Convert a liveness."""
    message = pb.Liveness(worker_alive=liveness.worker_alive)
    if liveness.last_report_age is not None:
        message.last_report_age.CopyFrom(duration(liveness.last_report_age))
    return message
