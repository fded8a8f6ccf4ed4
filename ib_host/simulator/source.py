"""Where the simulator's bars come from: whole series, by symbol and timeframe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pandas as pd

from shared.marketdata.bars import BarSource

Series = tuple[str, str]
"""Symbol and timeframe."""


class HistorySource(Protocol):
    """Series of bars that are served as they are; nothing is added to them."""

    def series(self) -> Sequence[Series]:
        """Return the series there are; the same at every call."""
        ...

    def frame(self, symbol: str, timeframe: str) -> pd.DataFrame:
        """Return a series as BarSource.read does. Raises KeyError if there is none."""
        ...


class FrameHistory:
    """Frames in memory, checked once."""

    def __init__(self, frames: Mapping[Series, pd.DataFrame]) -> None:
        for (symbol, timeframe), frame in frames.items():
            _check(frame, f"{symbol} {timeframe}")
        self._frames = dict(frames)

    def series(self) -> Sequence[Series]:
        """Return the series there are."""
        return sorted(self._frames)

    def frame(self, symbol: str, timeframe: str) -> pd.DataFrame:
        """Return a series. Raises KeyError if there is none."""
        return self._frames[symbol, timeframe]


class BarSourceHistory:
    """What a source of bars has when a series is first asked for; kept from then on."""

    def __init__(self, source: BarSource) -> None:
        self._source = source
        self._series = tuple(source.series())
        self._frames: dict[Series, pd.DataFrame] = {}

    def series(self) -> Sequence[Series]:
        """Return the series there were at first."""
        return self._series

    def frame(self, symbol: str, timeframe: str) -> pd.DataFrame:
        """Return a series. Raises KeyError if there is none."""
        key = (symbol, timeframe)
        if key not in self._series:
            raise KeyError(key)
        if key not in self._frames:
            self._frames[key] = self._source.read(symbol, timeframe, None, None)
        return self._frames[key]


def _check(frame: pd.DataFrame, name: str) -> None:
    index = frame.index
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        raise ValueError(f"{name}: the index must be aware instants")
    if not (index.is_monotonic_increasing and index.is_unique):
        raise ValueError(f"{name}: the bars must ascend, each instant once")
    if missing := {"open", "high", "low", "close", "volume"} - set(frame.columns):
        raise ValueError(f"{name}: columns are missing: {', '.join(sorted(missing))}")
