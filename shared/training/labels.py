"""Labels: what the network is taught to say of a bar, from a zigzag of the closes.

A zigzag joins the closes' turning points: a leg begins at an extreme close and
is confirmed once the close has moved away from it by `threshold` (a fraction of
the extreme); it runs to its own extreme, where the next confirmed leg begins.
Before the first confirmed leg there is none.

The label of bar t is the direction of the leg that the step from t to t + 1
belongs to, as the zigzag stands at bar t + lookahead: BUY in a rising leg, SELL
in a falling one, HOLD if no confirmed leg holds that step by then. A leg holds
the steps from its first bar up to its extreme so far. So a label never depends
on a close after bar t + lookahead, and once known it never changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class Label(IntEnum):
    """The answers of the network, with their class index."""

    BUY = 0
    HOLD = 1
    SELL = 2


Labels = NDArray[np.int64]

Known = tuple[int, int, int, Label]
"""(first bar, end, at, direction): the steps from bars first to end - 1 are known
at bar `at` to run in this direction."""


def zigzag_labels(close: pd.Series[float], threshold: float, lookahead: int) -> pd.Series[int]:
    """Return the label of each bar that has `lookahead` bars after it.

    Closes are positive. The last `lookahead` bars have no label and are left out.
    """
    closes = close.to_numpy(dtype=np.float64).tolist()
    labels = np.full(len(closes), int(Label.HOLD), dtype=np.int64)
    for first, end, at, direction in _known_steps(closes, threshold):
        # Of these steps, those whose bar's look-ahead reaches to `at`.
        labels[max(first, at - lookahead) : end] = direction
    kept = max(0, len(closes) - lookahead)
    return pd.Series(labels[:kept], index=close.index[:kept], name="label")


def _known_steps(closes: list[float], threshold: float) -> Iterator[Known]:
    """Walk the closes once and yield steps as their direction becomes known."""
    if not closes:
        return
    low = high = 0  # bars of the extremes since the last turning point
    direction: Label | None = None
    for at, close in enumerate(closes):
        if direction is not Label.SELL and close > closes[high]:
            if direction is Label.BUY:
                yield high, at, at, Label.BUY
            high = at
        if direction is not Label.BUY and close < closes[low]:
            if direction is Label.SELL:
                yield low, at, at, Label.SELL
            low = at
        if direction is not Label.BUY and close >= closes[low] * (1 + threshold):
            direction, high = Label.BUY, at
            yield low, at, at, Label.BUY
        elif direction is not Label.SELL and close <= closes[high] * (1 - threshold):
            direction, low = Label.SELL, at
            yield high, at, at, Label.SELL


def class_shares(labels: Labels) -> Mapping[str, float]:
    """Return each label's share of all, by name; zeros if there are none."""
    counts = np.bincount(labels, minlength=len(Label))
    return {label.name: float(counts[label] / max(1, labels.size)) for label in Label}
