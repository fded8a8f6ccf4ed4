from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from shared.training.caveats import caveats
from shared.training.dataset import Dataset, Part
from shared.training.holes import Hole
from shared.training.result import SplitMetrics, TrainingResult
from shared.training.scaler import Scaler
from shared.training.strategy import Strategy

Small = Callable[..., Strategy]

GOOD = SplitMetrics(0.6, 0.9, 0.6, 0.6, 0.6, 0.4)
NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def result() -> TrainingResult:
    return TrainingResult(
        "", "", "i", GOOD, GOOD, GOOD, {"BUY": 0.5, "HOLD": 0.2, "SELL": 0.3}, 0.4, 2, 1, 10,
        6, 6, 6, 2, ("A",), ("1d",), NOW, NOW, 1, 1.0, 1.0,
    )  # fmt: skip


@pytest.fixture
def dataset() -> Dataset:
    part = Part(
        np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2], dtype=np.int64)
    )
    return Dataset(part, part, part, Scaler.identity(2), ("a", "b"))


def test_a_sound_result_has_no_caveats(
    result: TrainingResult, dataset: Dataset, small: Small
) -> None:
    assert () == caveats(result, dataset, small())


def test_near_constant_labels_are_told(
    result: TrainingResult, dataset: Dataset, small: Small
) -> None:
    shares = {"BUY": 0.02, "HOLD": 0.95, "SELL": 0.03}

    (text,) = caveats(replace(result, class_shares=shares), dataset, small())

    assert text.startswith("95.0% of the labels are HOLD: near-constant")
    assert "zigzag_threshold (0.05) or label_lookahead (8)" in text


def test_a_label_the_train_part_lacks_is_told(
    result: TrainingResult, dataset: Dataset, small: Small
) -> None:
    lacking = Part(dataset.train.inputs, np.zeros(6, dtype=np.int64))

    (text,) = caveats(result, replace(dataset, train=lacking), small())

    assert "The train part has no HOLD and no SELL, so the model cannot learn it." == text


def test_an_accuracy_not_above_the_baseline_is_told(
    result: TrainingResult, dataset: Dataset, small: Small
) -> None:
    test = replace(GOOD, accuracy=0.4)

    (text,) = caveats(replace(result, test=test), dataset, small())

    assert text.startswith("Test accuracy 40.0% is not above the baseline 40.0%")


def test_a_loss_still_falling_is_told(
    result: TrainingResult, dataset: Dataset, small: Small
) -> None:
    (text,) = caveats(replace(result, best_epoch=2), dataset, small())

    assert "more epochs may help" in text


def test_one_epoch_tells_nothing_of_a_loss_that_falls(
    result: TrainingResult, dataset: Dataset, small: Small
) -> None:
    strategy = small({"model.training.epochs": "1"})

    assert () == caveats(replace(result, epochs_trained=1, best_epoch=1), dataset, strategy)


def test_features_that_do_not_vary_are_told(
    result: TrainingResult, dataset: Dataset, small: Small
) -> None:
    inputs = dataset.train.inputs.copy()
    inputs[:, 1] = 3

    (text,) = caveats(result, replace(dataset, train=Part(inputs, dataset.train.labels)), small())

    assert text.startswith("1 of 2 features do not vary over the train part")


def test_the_longest_hole_is_told(result: TrainingResult, dataset: Dataset, small: Small) -> None:
    day = timedelta(days=1)
    holes = [
        Hole("AAA", "1d", NOW, NOW + 9 * day),
        Hole("BBB", "1d", NOW, NOW + 30 * day),
        Hole("BBB", "1w", NOW, NOW + 28 * day),
    ]

    (one,) = caveats(result, dataset, small(), holes[:1])
    (many,) = caveats(result, dataset, small(), holes)

    assert one.startswith("1 series has a hole that no calendar explains, the longest is in AAA 1d")
    assert "3 series have a hole" in many
    assert "in BBB 1d: no bars from 2024-01-01 until 2024-01-31. Indicators and labels" in many
