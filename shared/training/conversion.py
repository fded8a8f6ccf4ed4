"""Between the training domain and its messages."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage

from ktrdr.training.v1 import model_pb2, training_pb2
from shared.operations.conversion import duration, in_utf8, timestamp
from shared.operations.model import PackedResult
from shared.training.model_store import SavedModel
from shared.training.result import SplitMetrics, TrainingResult


def pack_result(result: TrainingResult) -> PackedResult:
    """Pack a result as the operation's typed outcome."""
    packed = AnyMessage()
    packed.Pack(result_to_proto(result))
    return PackedResult(packed.type_url, packed.value)


def result_to_proto(result: TrainingResult) -> training_pb2.TrainingResult:
    """Convert a training's result."""
    return training_pb2.TrainingResult(
        model_path=in_utf8(result.model_path),
        model_name=result.model_name,
        instance=result.instance,
        train=_split_to_proto(result.train),
        validation=_split_to_proto(result.validation),
        test=_split_to_proto(result.test),
        class_shares=result.class_shares,
        baseline_accuracy=result.baseline_accuracy,
        epochs_trained=result.epochs_trained,
        best_epoch=result.best_epoch,
        parameter_count=result.parameter_count,
        train_sample_count=result.train_sample_count,
        validation_sample_count=result.validation_sample_count,
        test_sample_count=result.test_sample_count,
        feature_count=result.feature_count,
        symbols=result.symbols,
        timeframes=result.timeframes,
        start_time=timestamp(result.start_time),
        end_time=timestamp(result.end_time),
        seed=result.seed,
        duration=duration(result.duration),
        samples_per_second=result.samples_per_second,
        warnings=result.warnings,
    )


def _split_to_proto(metrics: SplitMetrics) -> training_pb2.SplitMetrics:
    return training_pb2.SplitMetrics(
        accuracy=metrics.accuracy,
        loss=metrics.loss,
        precision=metrics.precision,
        recall=metrics.recall,
        f1=metrics.f1,
        baseline_accuracy=metrics.baseline_accuracy,
    )


def model_to_proto(model: SavedModel, *, whole: bool) -> model_pb2.Model:
    """Convert a saved model; `whole` adds its strategy and feature names."""
    message = model_pb2.Model(
        name=model.name,
        path=in_utf8(str(model.path)),
        create_time=timestamp(model.create_time),
        size_bytes=model.size_bytes,
        result=result_to_proto(model.result),
    )
    if whole:
        message.strategy_yaml = model.strategy_yaml
        message.features.extend(model.features)
    return message
