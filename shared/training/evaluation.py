"""Evaluation: the figures of a model's answers against the labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.training.labels import Label, Labels
from shared.training.result import SplitMetrics


def majority_label(labels: Labels) -> int:
    """Return the most frequent label; the lower one of equals."""
    return int(np.bincount(labels, minlength=len(Label)).argmax())


def evaluate(logits: NDArray[np.floating], labels: Labels, majority: int) -> SplitMetrics:
    """Return the figures of logits (samples, 3) against labels (samples,).

    `majority` is the most frequent label of the train part. A label that is
    never answered has precision 0; averages are weighted by support.
    """
    confusion = confusion_matrix(np.argmax(logits, axis=1), labels)
    support = confusion.sum(axis=1)
    weights = support / support.sum()
    hits = np.diag(confusion)
    precision = _share(hits, confusion.sum(axis=0))
    recall = _share(hits, support)
    f1 = _share(2 * precision * recall, precision + recall)
    return SplitMetrics(
        accuracy=float(hits.sum() / support.sum()),
        loss=cross_entropy(logits, labels),
        precision=float(weights @ precision),
        recall=float(weights @ recall),
        f1=float(weights @ f1),
        baseline_accuracy=float(weights[majority]),
    )


def confusion_matrix(answers: NDArray[np.integer], labels: Labels) -> NDArray[np.int64]:
    """Return how often each label (row) was answered with each label (column)."""
    size = len(Label)
    counts = np.bincount(labels * size + answers, minlength=size * size)
    return counts.astype(np.int64).reshape(size, size)


def cross_entropy(logits: NDArray[np.floating], labels: Labels) -> float:
    """Return the mean of -log softmax(logits) at the labels, in nats."""
    values = np.asarray(logits, dtype=np.float64)
    shifted = values - values.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sum - shifted[np.arange(len(labels)), labels]).mean())


def _share(part: NDArray[np.generic], whole: NDArray[np.generic]) -> NDArray[np.float64]:
    """Divide, with 0 where there is nothing to divide by."""
    below = whole.astype(np.float64)
    return np.divide(part.astype(np.float64), below, out=np.zeros(len(below)), where=below > 0)
