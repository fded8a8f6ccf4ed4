"""The result of a training that nobody has carried out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared.training.result import SplitMetrics, TrainingResult

_END = datetime(2024, 5, 1, tzinfo=UTC)
_FIGURES = SplitMetrics(0.6, 0.9, 0.5, 0.6, 0.55, 0.4)
RESULT = TrainingResult(
    model_path="",
    model_name="",
    instance="",
    train=_FIGURES,
    validation=_FIGURES,
    test=_FIGURES,
    class_shares={"BUY": 0.5, "HOLD": 0.2, "SELL": 0.3},
    baseline_accuracy=0.4,
    epochs_trained=3,
    best_epoch=2,
    parameter_count=688,
    train_sample_count=100,
    validation_sample_count=20,
    test_sample_count=20,
    feature_count=2,
    symbols=("AAA",),
    timeframes=("1d",),
    start_time=_END - timedelta(days=900),
    end_time=_END,
    seed=1,
    duration=1.5,
    samples_per_second=1000.0,
)
