"""Open operations as the doctor sees them, in the states that it has to tell apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from backend.cli.observation import Observation, Trouble
from ktrdr.operations.v1 import operation_pb2 as op
from ktrdr.operations.v1 import operations_service_pb2 as service
from tests.unit.cli.samples import ID, PENDING, RUNNING

NOW = datetime(2024, 1, 31, 12, 0, 0, tzinfo=UTC)
HOST = "127.0.0.1:50052"
TRAINING = op.OPERATION_TYPE_TRAINING
LOADING = op.OPERATION_TYPE_DATA_LOADING


def ago(seconds: float) -> datetime:
    """An instant before NOW."""
    return NOW - timedelta(seconds=seconds)


def working(
    status: op.OperationStatus.ValueType = RUNNING,
    *,
    operation_id: str = ID,
    type_: op.OperationType.ValueType = TRAINING,
    alive: bool = True,
    silence: float | None = 0.5,
    phase: str = "training",
    message: str = "Epoch 5/10, batch 3/36",
    items: int = 0,
    started: float = 3_600,
    host: str = "",
    skew: float = 0.0,
) -> op.Operation:
    """An operation that began `started` seconds ago and reported `silence` seconds ago.

    `skew` is how much its owner's clock is fast.
    """
    made = op.Operation(operation_id=operation_id, type=type_, status=status)
    made.create_time.FromDatetime(ago(started + 60))
    if host:
        made.metadata["host_service_url"] = host
    if status == PENDING:
        made.liveness.worker_alive = False
        return made
    made.start_time.FromDatetime(ago(started - skew))
    made.liveness.worker_alive = alive
    if silence is not None:
        made.liveness.last_report_age.CopyFrom(lasting(silence))
        made.progress.update_time.FromDatetime(ago(silence - skew))
        made.progress.phase, made.progress.message = phase, message
        made.progress.items_processed = items
    return made


def steps(*ended: float, kind: str = "epoch", skew: float = 0.0) -> tuple[op.Metric, ...]:
    """Metrics of steps that ended so many seconds ago, the oldest first."""
    made = []
    for number, seconds in enumerate(ended, start=1):
        metric = op.Metric(kind=kind, step=number)
        metric.time.FromDatetime(ago(seconds - skew))
        made.append(metric)
    return tuple(made)


def each(seconds: float, *, last: float, count: int = 10, **kwargs: Any) -> tuple[op.Metric, ...]:
    """Metrics of steps that took `seconds` each; the last one ended `last` seconds ago."""
    return steps(*(last + seconds * left for left in reversed(range(count))), **kwargs)


def seen(operation: op.Operation, *metrics: op.Metric) -> Observation:
    """An operation as it is now."""
    return Observation(operation, NOW, metrics)


def last_known(operation: op.Operation, reason: str, message: str, **facts: str) -> Observation:
    """An operation whose state now could not be had."""
    trouble = Trouble(reason, message, facts)
    return Observation(operation, NOW, trouble=trouble, is_current=False)


def listed(*operations: op.Operation) -> service.ListOperationsResponse:
    """An answer of ListOperations."""
    return service.ListOperationsResponse(operations=operations, total_count=len(operations))


def lasting(seconds: float) -> Duration:
    """Seconds as a message."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
