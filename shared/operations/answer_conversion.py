"""Reads what another process answers: messages to the domain, nothing taken on trust.

A peer may be a newer ktrdr, a damaged one or no ktrdr at all. What cannot be
true is a MalformedAnswerError that names the field; it changes nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ktrdr.operations.v1 import operation_pb2 as pb
from ktrdr.operations.v1 import operations_service_pb2 as service_pb
from shared.operations.conversion import (
    SOURCE_FROM_PROTO,
    STATUS_FROM_PROTO,
    TYPE_FROM_PROTO,
    seconds,
    time_of,
)
from shared.operations.model import (
    Freshness,
    Hop,
    Liveness,
    Metric,
    Operation,
    OperationError,
    OperationStatus,
    PackedResult,
    Progress,
)
from shared.operations.source import OwnerState, SourceReading
from shared.operations.views import OperationView
from shared.rpc.errors import Code, MalformedAnswerError

_OUTCOMES = {
    OperationStatus.COMPLETED: "result",
    OperationStatus.FAILED: "error",
    OperationStatus.CANCELLED: "error",
}
_LONGEST = 315_576_000_000
"""Seconds that google.protobuf.Duration may hold; ages add up and are told to others."""
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""Seconds since 1970 of the first and the last that google.protobuf.Timestamp may hold."""
KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")
NumberT = TypeVar("NumberT", bound=int)
KnownT = TypeVar("KnownT")


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """One page of an operation's log."""

    metrics: tuple[Metric, ...]
    new_cursor: int
    has_more: bool
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class RemotePage:
    """One page of another process's listing."""

    views: tuple[OperationView, ...]
    next_page_token: str
    total_count: int
    active_count: int
    unreachable: tuple[str, ...]
    instance: str
    incarnation: str


def view_from(answer: service_pb.GetOperationResponse, asked: str, cursor: int) -> OperationView:
    """Read the answer of GetOperation(`asked`, metrics_cursor=`cursor`)."""
    view = operation_view_from(answer.operation, asked)
    _check_page(answer, view.operation.metrics_count, cursor)
    return OperationView(
        view.operation, view.freshness, view.liveness, tuple(map(_metric, answer.metrics))
    )


def _check_page(answer: service_pb.GetOperationResponse, count: int, cursor: int) -> None:
    """Check that the metrics are those from the cursor on."""
    end = cursor + len(answer.metrics)
    if count < 0:
        raise _malformed("metrics_count", "is negative")
    if end > count and end > cursor:
        raise _malformed("metrics", "go past metrics_count")
    # Of a shorter log than we know, its end.
    if answer.new_cursor != min(end, count):
        raise _malformed("new_cursor", "skips metrics")


def reading_from(answer: service_pb.GetOperationResponse, asked: str, cursor: int) -> SourceReading:
    """Read the same answer as news of an operation: what is known of it here is only checked."""
    message = answer.operation
    freshness = message.freshness
    if message.operation_id != asked:
        raise _malformed("operation_id", "is another's")
    _check_page(answer, message.metrics_count, cursor)
    if not message.HasField("freshness"):
        raise _malformed("freshness", "is missing")
    _known("type", message.type, TYPE_FROM_PROTO)
    _known("freshness.source", freshness.source, SOURCE_FROM_PROTO)
    _check_time("create_time", message.create_time)
    _check_time("update_time", message.update_time)
    liveness = _liveness(message.liveness) if message.HasField("liveness") else None
    return SourceReading(
        cursor,
        tuple(map(_metric, answer.metrics)),
        message.metrics_count,
        _progress(message.progress) if message.HasField("progress") else None,
        None if liveness is None else liveness.last_report_age,
        age=_seconds("freshness.age", freshness.age),
        operation=_owner_state(message),
        liveness=liveness,
        path=_path(freshness),
    )


def operation_view_from(message: pb.Operation, asked: str | None = None) -> OperationView:
    """Read an operation as answered; `asked` is the id it has to have."""
    if asked is not None and message.operation_id != asked:
        raise _malformed("operation_id", "is another's")
    if not message.HasField("freshness"):
        raise _malformed("freshness", "is missing")
    liveness = _liveness(message.liveness) if message.HasField("liveness") else None
    return OperationView(_operation(message), _freshness(message.freshness), liveness)


def metrics_page_from(answer: service_pb.GetMetricsResponse, cursor: int) -> MetricsPage:
    """Read the answer of GetMetrics(cursor=`cursor`)."""
    if answer.new_cursor != cursor + len(answer.metrics):
        raise _malformed("new_cursor", "skips metrics")
    if answer.has_more and not answer.metrics:
        raise _malformed("has_more", "promises what is not sent")
    return MetricsPage(
        tuple(map(_metric, answer.metrics)),
        answer.new_cursor,
        answer.has_more,
        _freshness(answer.freshness),
    )


def remote_page_from(answer: service_pb.ListOperationsResponse) -> RemotePage:
    """Read the answer of ListOperations."""
    if not answer.instance or not answer.incarnation:
        raise _malformed("instance", "is missing")
    if answer.total_count < 0:
        raise _malformed("total_count", "is negative")
    if answer.active_count < 0:
        raise _malformed("active_count", "is negative")
    return RemotePage(
        tuple(operation_view_from(message) for message in answer.operations),
        answer.next_page_token,
        answer.total_count,
        answer.active_count,
        tuple(answer.unreachable),
        answer.instance,
        answer.incarnation,
    )


def retry_after_from(answer: service_pb.WaitOperationResponse) -> float | None:
    """The seconds after which to ask again; None if WaitOperation was served."""
    if not answer.HasField("retry_after"):
        return None
    return _seconds("retry_after", answer.retry_after)


def _operation(message: pb.Operation) -> Operation:
    state = _owner_state(message)
    if message.metrics_count < 0:
        raise _malformed("metrics_count", "is negative")
    return Operation(
        operation_id=message.operation_id,
        type=_known("type", message.type, TYPE_FROM_PROTO),
        status=state.status,
        create_time=_time("create_time", message.create_time),
        update_time=_time("update_time", message.update_time),
        progress=_progress(message.progress) if message.HasField("progress") else None,
        metadata=_entries(message.metadata),
        metrics_count=message.metrics_count,
        start_time=state.start_time,
        end_time=state.end_time,
        cancel_time=state.cancel_time,
        cancel_reason=state.cancel_reason,
        result=state.result,
        error=state.error,
    )


def _owner_state(message: pb.Operation) -> OwnerState:
    status = _known("status", message.status, STATUS_FROM_PROTO)
    outcome, terminal = message.WhichOneof("outcome"), status.terminal
    end_time = _time("end_time", message.end_time) if message.HasField("end_time") else None
    if outcome != (_OUTCOMES[status] if terminal else None):
        raise _unfit("outcome", status)
    if (end_time is not None) != terminal:
        raise _unfit("end_time", status)
    return OwnerState(
        status,
        _time("start_time", message.start_time) if message.HasField("start_time") else None,
        end_time,
        _time("cancel_time", message.cancel_time) if message.HasField("cancel_time") else None,
        message.cancel_reason,
        _result(message) if outcome == "result" else None,
        _error(message.error) if outcome == "error" else None,
    )


def _result(message: pb.Operation) -> PackedResult:
    return PackedResult(message.result.type_url, message.result.value)


def _unfit(field: str, status: OperationStatus) -> MalformedAnswerError:
    return _malformed(field, f"does not fit {status.value}")


def _progress(message: pb.Progress) -> Progress:
    has = message.HasField
    percentage = message.percentage if has("percentage") else None
    if percentage is not None and not 0 <= percentage <= 100:
        raise _malformed("progress.percentage", "is not 0 to 100")
    reported = remaining = None
    if has("update_time"):
        reported = _time("progress.update_time", message.update_time)
    if has("estimated_remaining"):
        remaining = _seconds("progress.estimated_remaining", message.estimated_remaining)
    return Progress(
        percentage,
        message.message,
        message.phase,
        message.current_step,
        message.total_steps if has("total_steps") else None,
        message.items_processed,
        message.items_total if has("items_total") else None,
        reported,
        remaining,
        _entries(message.context),
    )


def _metric(message: pb.Metric) -> Metric:
    return Metric(
        time=_time("metrics.time", message.time),
        kind=message.kind,
        step=message.step,
        values=_entries(message.values),
        labels=_entries(message.labels),
    )


def _error(message: pb.OperationError) -> OperationError:
    try:
        code = Code(message.code)
    except ValueError:
        code = Code.UNKNOWN  # a code of google.rpc that ktrdr does not use, or a later one
    return OperationError(
        code, message.reason, message.message, message.retryable, _entries(message.metadata)
    )


def _freshness(message: pb.Freshness) -> Freshness:
    path = _path(message)
    return Freshness(
        age=_seconds("freshness.age", message.age),
        source=_known("freshness.source", message.source, SOURCE_FROM_PROTO),
        cached=message.cached,
        refresh_error=_error(message.refresh_error) if message.HasField("refresh_error") else None,
        path=path,
    )


def _path(message: pb.Freshness) -> tuple[Hop, ...]:
    if not message.path:
        raise _malformed("freshness.path", "is empty")
    return tuple(map(_hop, message.path))


def _hop(message: pb.Hop) -> Hop:
    return Hop(
        message.instance,
        _known("freshness.path.source", message.source, SOURCE_FROM_PROTO),
        message.cached,
        _seconds("freshness.path.age", message.age),
    )


def _liveness(message: pb.Liveness) -> Liveness:
    age = None
    if message.HasField("last_report_age"):
        age = _seconds("liveness.last_report_age", message.last_report_age)
    return Liveness(message.worker_alive, age)


def _entries(message: Mapping[KeyT, ValueT]) -> dict[KeyT, ValueT]:
    """Copy a map; `dict` asks it for keys in Python, and takes four times as long."""
    return {key: message[key] for key in message}


def _seconds(field: str, message: Duration) -> float:
    value = seconds(message)
    if not 0 <= value <= _LONGEST:
        raise _malformed(field, "is no length of time")
    return value


def _time(field: str, message: Timestamp) -> datetime:
    _check_time(field, message)
    return time_of(message)


def _check_time(field: str, message: Timestamp) -> None:
    if not (_FIRST <= message.seconds <= _LAST and 0 <= message.nanos < 1_000_000_000):
        raise _malformed(field, "is no time")


def _known(field: str, number: NumberT, known: Mapping[NumberT, KnownT]) -> KnownT:
    value = known.get(number)
    if value is None:
        raise _malformed(field, f"is {number}, which this version does not know")
    return value


def _malformed(field: str, fault: str) -> MalformedAnswerError:
    return MalformedAnswerError(f"{field} {fault}.")
