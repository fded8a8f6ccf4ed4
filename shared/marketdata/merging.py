"""Merging: new bars among those of a series, without holding the series."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.marketdata.bars import no_bars


class Merging:
    """Yields both, oldest first, the new bars in place of those of the same time.

    Iterated once; then it knows what it did.
    """

    def __init__(self, new: pd.DataFrame, old: Iterator[pd.DataFrame]) -> None:
        self._new = new
        self._old = old
        self._ticks: list[NDArray[np.int64]] = []
        self.added = 0
        """Bars that were not there."""
        self.changed = 0
        """Bars that were there with other values."""

    def __iter__(self) -> Iterator[pd.DataFrame]:
        rest = self._new
        for batch in self._old:
            cut = int(rest.index.searchsorted(batch.index[-1], side="right"))
            yield self._taken(self._joined(batch, rest.iloc[:cut]))
            rest = rest.iloc[cut:]
        if len(rest):
            yield self._taken(self._joined(no_bars(), rest))

    def times(self) -> pd.DatetimeIndex:
        """Return the starts of all bars that have been given."""
        ticks = np.concatenate([np.array([], dtype="int64"), *self._ticks])
        return pd.DatetimeIndex(ticks.view("datetime64[us]"), tz="UTC")

    def _taken(self, frame: pd.DataFrame) -> pd.DataFrame:
        self._ticks.append(pd.DatetimeIndex(frame.index).asi8)
        return frame

    def _joined(self, old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
        known, replaced = new.index.isin(old.index), old.index.isin(new.index)
        differs = new.loc[known].to_numpy() != old.loc[replaced].to_numpy()
        self.added += int((~known).sum())
        self.changed += int(differs.any(axis=1).sum())
        parts = [part for part in (old.loc[~replaced], new) if len(part)]
        return pd.concat(parts).sort_index() if len(parts) > 1 else parts[0]
