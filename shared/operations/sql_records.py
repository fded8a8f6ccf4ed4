"""Records and metrics as rows, and rows as what they were.

Text that a database cannot hold as it is (NUL, halves of surrogate pairs) is
escaped, times are counted in microseconds, so that what is read is what was kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row

from shared.operations.model import (
    Metric,
    Operation,
    OperationError,
    OperationRecord,
    OperationStatus,
    OperationType,
    Owner,
    PackedResult,
    Progress,
)
from shared.rpc.errors import Code

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNSAFE = re.compile("[\\\\\x00\ud800-\udfff]")
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


def record_to_row(service: str, record: OperationRecord) -> dict[str, object]:
    """The row of a record, by column."""
    operation, result = record.operation, record.operation.result
    ended = (operation.end_time or operation.update_time) if operation.status.terminal else None
    return {
        "service": service,
        "operation_id": escaped(operation.operation_id),
        "type": operation.type.value,
        "status": operation.status.value,
        "create_time": to_micros(operation.create_time),
        "update_time": to_micros(operation.update_time),
        "start_time": _micros(operation.start_time),
        "end_time": _micros(operation.end_time),
        "cancel_time": _micros(operation.cancel_time),
        "cancel_reason": escaped(operation.cancel_reason),
        "progress": None if operation.progress is None else _progress_text(operation.progress),
        "metadata": to_json(operation.metadata),
        "metrics_count": operation.metrics_count,
        "result_type": None if result is None else escaped(result.type_url),
        "result_value": None if result is None else result.value,
        "error": None if operation.error is None else _error_text(operation.error),
        "owner_instance": escaped(record.owner.instance_id),
        "owner_incarnation": escaped(record.owner.incarnation),
        "owner_address": escaped(record.owner.address),
        "request_id": escaped(record.request_id),
        "fingerprint": escaped(record.fingerprint),
        "starter": escaped(record.starter),
        "outcome_read": record.outcome_read,
        "known_time": _micros(record.known_time),
        "retention_time": _micros(ended),
        "told_by": escaped(record.told_by),
    }


def row_to_record(row: Row[Any]) -> OperationRecord:
    """The record of a row; ValueError, TypeError, KeyError or OverflowError if it makes none."""
    return OperationRecord(
        operation=_operation(row),
        owner=Owner(
            unescaped(row.owner_instance),
            unescaped(row.owner_incarnation),
            unescaped(row.owner_address),
        ),
        request_id=unescaped(row.request_id),
        fingerprint=unescaped(row.fingerprint),
        starter=unescaped(row.starter),
        outcome_read=row.outcome_read,
        known_time=_time(row.known_time),
        told_by=unescaped(row.told_by or ""),
    )


def _operation(row: Row[Any]) -> Operation:
    result = None
    if row.result_type is not None:
        result = PackedResult(unescaped(row.result_type), row.result_value)
    return Operation(
        operation_id=unescaped(row.operation_id),
        type=OperationType(row.type),
        status=OperationStatus(row.status),
        create_time=from_micros(row.create_time),
        update_time=from_micros(row.update_time),
        progress=None if row.progress is None else _progress(json.loads(row.progress)),
        metadata=json.loads(row.metadata),
        metrics_count=row.metrics_count,
        start_time=_time(row.start_time),
        end_time=_time(row.end_time),
        cancel_time=_time(row.cancel_time),
        cancel_reason=unescaped(row.cancel_reason),
        result=result,
        error=None if row.error is None else _error(json.loads(row.error)),
    )


def metric_to_values(metric: Metric) -> tuple[int, str, int, str, str]:
    """What a metric is made of, in the order of its columns."""
    return (
        to_micros(metric.time),
        escaped(metric.kind),
        metric.step,
        to_json(metric.values),
        to_json(metric.labels) if metric.labels else "{}",
    )


def row_to_metric(time: int, kind: str, step: int, values: str, labels: str) -> Metric:
    """The metric that `metric_to_values` has made these of."""
    return Metric(from_micros(time), unescaped(kind), step, json.loads(values), json.loads(labels))


def escaped(text: str) -> str:
    """Text as every database takes it; a backslash escapes, so it is escaped as well."""
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def unescaped(text: str) -> str:
    """What `escaped` was given."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


def to_micros(time: datetime) -> int:
    """Microseconds since 1970 in UTC, exactly."""
    return (time - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The time of `to_micros`, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def _micros(time: datetime | None) -> int | None:
    return None if time is None else to_micros(time)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def to_json(mapping: Mapping[str, object]) -> str:
    """A mapping as JSON in ASCII; floats come back as they were, NaN and infinities too."""
    return _encode(dict(mapping))


# What is no number of Python's, such as numpy's float32, is kept as the number it is.
_encode = json.JSONEncoder(separators=(",", ":"), default=float).encode


def _progress_text(progress: Progress) -> str:
    return to_json(
        {
            "percentage": progress.percentage,
            "message": progress.message,
            "phase": progress.phase,
            "current_step": progress.current_step,
            "total_steps": progress.total_steps,
            "items_processed": progress.items_processed,
            "items_total": progress.items_total,
            "update_time": _micros(progress.update_time),
            "estimated_remaining": progress.estimated_remaining,
            "context": dict(progress.context),
        }
    )


def _progress(fields: dict[str, Any]) -> Progress:
    return Progress(**{**fields, "update_time": _time(fields["update_time"])})


def _error_text(error: OperationError) -> str:
    return to_json(
        {
            "code": error.code.value,
            "reason": error.reason,
            "message": error.message,
            "retryable": error.retryable,
            "metadata": dict(error.metadata),
        }
    )


def _error(fields: dict[str, Any]) -> OperationError:
    return OperationError(**{**fields, "code": Code(fields["code"])})
