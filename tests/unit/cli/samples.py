"""Operations, metrics and models as a backend would answer them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration

from ktrdr.operations.v1 import operation_pb2 as op
from ktrdr.operations.v1 import operations_service_pb2 as service
from ktrdr.training.v1 import model_pb2, training_pb2

ID = "op_training_3f2a9c1b7d4e8a60"
PENDING = op.OPERATION_STATUS_PENDING
RUNNING = op.OPERATION_STATUS_RUNNING
CANCELLING = op.OPERATION_STATUS_CANCELLING
COMPLETED = op.OPERATION_STATUS_COMPLETED
FAILED = op.OPERATION_STATUS_FAILED
CANCELLED = op.OPERATION_STATUS_CANCELLED
START = datetime(2024, 1, 31, 10, 22, 5, tzinfo=UTC)


def operation(
    status: op.OperationStatus.ValueType = RUNNING,
    *,
    phase: str = "",
    message: str = "",
    percentage: float | None = None,
    epoch: int = 0,
    epochs: int | None = None,
    left: float | None = None,
) -> op.Operation:
    """A training in a state; a completed one has a result, a failed one an error."""
    operation = op.Operation(
        operation_id=ID,
        type=op.OPERATION_TYPE_TRAINING,
        status=status,
        metadata={"strategy": "demo", "symbols": "IBM,GOOG"},
        freshness=op.Freshness(source=op.FRESHNESS_SOURCE_BRIDGE, age=Duration(nanos=200_000_000)),
    )
    operation.create_time.FromDatetime(START)
    if phase or percentage is not None:
        operation.progress.phase, operation.progress.message = phase, message
        operation.progress.current_step = epoch
    if percentage is not None:
        operation.progress.percentage = percentage
    if epochs is not None:
        operation.progress.total_steps = epochs
    if left is not None:
        operation.progress.estimated_remaining.FromNanoseconds(round(left * 1e9))
    _add_outcome(operation)
    return operation


def _add_outcome(operation: op.Operation) -> None:
    if operation.status == COMPLETED:
        operation.result.Pack(result())
    elif operation.status == FAILED:
        operation.error.CopyFrom(
            op.OperationError(
                code=9,
                reason="DATA_TOO_SHORT",
                message="IBM has 12 bars; train on a longer period.",
                metadata={"bars": "12"},
                retryable=True,
            )
        )
    elif operation.status == CANCELLED:
        operation.cancel_reason = "wrong seed"
        operation.error.CopyFrom(
            op.OperationError(code=1, reason="CANCELLED", message="Cancelled: wrong seed")
        )


def result() -> training_pb2.TrainingResult:
    """The result of a small training."""
    split = training_pb2.SplitMetrics(
        accuracy=0.712, loss=0.7123, precision=0.7, recall=0.71, f1=0.705, baseline_accuracy=0.41
    )
    result = training_pb2.TrainingResult(
        model_path="/models/demo/1d_v1",
        model_name="demo/1d_v1",
        train=split,
        validation=split,
        test=split,
        class_shares={"BUY": 0.31, "HOLD": 0.41, "SELL": 0.28},
        baseline_accuracy=0.41,
        epochs_trained=3,
        best_epoch=2,
        parameter_count=1688,
        train_sample_count=4215,
        validation_sample_count=903,
        test_sample_count=904,
        feature_count=9,
        symbols=["IBM", "GOOG"],
        timeframes=["1d"],
        seed=42,
        duration=Duration(seconds=12, nanos=300_000_000),
        samples_per_second=12345.6,
        warnings=["No better than the baseline."],
    )
    result.start_time.FromDatetime(datetime(2004, 8, 19, tzinfo=UTC))
    result.end_time.FromDatetime(datetime(2010, 3, 1, tzinfo=UTC))
    return result


def epoch(step: int, val_loss: float | None = None) -> op.Metric:
    """The metric of an epoch; losses fall with the epochs."""
    metric = op.Metric(
        kind="epoch",
        step=step,
        values={
            "train_loss": 1.1 / step,
            "train_accuracy": 1 - 0.6 / step,
            "val_loss": 1.2 / math.sqrt(step) if val_loss is None else val_loss,
            "val_accuracy": 1 - 0.7 / step,
            "learning_rate": 0.001,
            "duration": 0.42,
        },
    )
    metric.time.FromDatetime(START)
    return metric


def look(
    operation: op.Operation,
    *metrics: op.Metric,
    new_cursor: int | None = None,
    has_more: bool = False,
) -> service.GetOperationResponse:
    """An answer of GetOperation; the cursor is the last metric's step unless given."""
    cursor = metrics[-1].step if metrics and new_cursor is None else new_cursor or 0
    return service.GetOperationResponse(
        operation=operation, metrics=metrics, new_cursor=cursor, has_more=has_more
    )


def a_whole_training() -> list[service.GetOperationResponse]:
    """The answers of a training from waiting to its end, three epochs long."""
    return [
        look(operation(PENDING)),
        look(operation(phase="preprocessing", message="IBM (1/2)", percentage=1.0)),
        look(
            operation(phase="training", message="Epoch 2/3", percentage=50, epochs=3, left=7.2),
            epoch(1),
        ),
        look(
            operation(phase="training", message="Epoch 3/3", percentage=90, epochs=3, left=1.0),
            epoch(2),
            has_more=True,
        ),
        look(operation(COMPLETED, phase="completed", percentage=100, epochs=3), epoch(3, 0.9)),
    ]


def model(name: str = "demo/1d_v1") -> model_pb2.Model:
    """A model as GetModel answers it."""
    model = model_pb2.Model(
        name=name,
        path="/models/demo/1d_v1",
        size_bytes=12_345,
        strategy_yaml="name: demo\nmodel:\n  type: mlp\n",
        features=["1d_rsi_14_oversold", "1d_rsi_14_neutral"],
        result=result(),
    )
    model.create_time.FromDatetime(START)
    return model
