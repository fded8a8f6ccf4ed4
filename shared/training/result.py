"""The result of a training, as told to clients and kept with the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SplitMetrics:
    """The figures of a model on one part of the data."""

    accuracy: float
    """Fraction of samples labelled right, 0 to 1."""
    loss: float
    """Mean cross-entropy, in nats."""
    precision: float
    """Averaged over the labels by their support, as are recall and f1."""
    recall: float
    f1: float
    baseline_accuracy: float
    """Accuracy here of always answering the most frequent label of the train part."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished training has to say."""

    model_path: str
    """Folder of the model, on the machine of `instance`."""
    model_name: str
    """{strategy}/{timeframe}_v{N}"""
    instance: str
    """Instance id of the process that trained."""
    train: SplitMetrics
    validation: SplitMetrics
    test: SplitMetrics
    class_shares: Mapping[str, float]
    """Share of BUY, HOLD and SELL over all samples."""
    baseline_accuracy: float
    """That of the test part."""
    epochs_trained: int
    best_epoch: int
    """1-based; the epoch of the lowest validation loss, whose weights are kept."""
    parameter_count: int
    train_sample_count: int
    validation_sample_count: int
    test_sample_count: int
    feature_count: int
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    start_time: datetime
    """Start of the first bar used."""
    end_time: datetime
    """Start of the last bar used."""
    seed: int
    duration: float
    """Seconds from the start of the work until the model was ready to be saved."""
    samples_per_second: float
    """Training samples seen per second of the training phase."""
    warnings: tuple[str, ...] = ()
