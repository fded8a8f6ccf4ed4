"""Caveats: what a careful reader of a result should know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.training.dataset import Dataset
from shared.training.holes import Hole
from shared.training.labels import Label
from shared.training.result import TrainingResult
from shared.training.strategy import Strategy

NEAR_CONSTANT = 0.9
"""The share of one label above which accuracy says little."""


def caveats(
    result: TrainingResult, dataset: Dataset, strategy: Strategy, holes: Sequence[Hole] = ()
) -> tuple[str, ...]:
    """Return a sentence for each reason to doubt the result or to do it differently."""
    return (
        *_of_holes(holes),
        *_of_labels(result, dataset, strategy),
        *_of_accuracy(result),
        *_of_epochs(result, strategy),
        *_of_features(dataset),
    )


def _of_holes(holes: Sequence[Hole]) -> list[str]:
    if not holes:
        return []
    longest = max(holes, key=lambda hole: hole.end - hole.start)
    where = "1 series has" if len(holes) == 1 else f"{len(holes)} series have"
    text = (
        f"{where} a hole that no calendar explains, the longest is in {longest.symbol} "
        f"{longest.timeframe}: no bars from {longest.start:%Y-%m-%d} until {longest.end:%Y-%m-%d}. "
        "Indicators and labels run across it: load what is missing, or train on a range without it."
    )
    return [text]


def _of_labels(result: TrainingResult, dataset: Dataset, strategy: Strategy) -> list[str]:
    labels = strategy.supervision.labels
    warnings = [
        f"{share:.1%} of the labels are {name}: near-constant, so accuracy says little. Change "
        f"zigzag_threshold ({labels.zigzag_threshold:g}) or label_lookahead "
        f"({labels.label_lookahead})."
        for name, share in result.class_shares.items()
        if share > NEAR_CONSTANT
    ]
    missing = [label.name for label in Label if not np.any(dataset.train.labels == label)]
    if missing:
        warnings.append(
            f"The train part has no {' and no '.join(missing)}, so the model cannot learn it."
        )
    return warnings


def _of_accuracy(result: TrainingResult) -> list[str]:
    test = result.test
    if test.accuracy > test.baseline_accuracy:
        return []
    text = (
        f"Test accuracy {test.accuracy:.1%} is not above the baseline {test.baseline_accuracy:.1%} "
        "of always answering the most frequent label of the train part."
    )
    return [text]


def _of_epochs(result: TrainingResult, strategy: Strategy) -> list[str]:
    # The one epoch of a training is its best and its last, and fell from nothing.
    if 1 < result.best_epoch == result.epochs_trained == strategy.model.training.epochs:
        return ["The validation loss was still falling in the last epoch: more epochs may help."]
    return []


def _of_features(dataset: Dataset) -> list[str]:
    constant = int((np.ptp(dataset.train.inputs, axis=0) == 0).sum())
    if not constant:
        return []
    text = (
        f"{constant} of {len(dataset.features)} features do not vary over the train part, so the "
        "model learns nothing from them: see whether their fuzzy sets fit the indicator's range."
    )
    return [text]
