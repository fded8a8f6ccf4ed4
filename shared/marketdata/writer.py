"""The writer of one series: keeps bars as they come, without writing all the time."""

from __future__ import annotations

import pandas as pd

from shared.clock import Clock
from shared.marketdata.bars import no_bars
from shared.marketdata.ranges import TimeRange
from shared.marketdata.store import BarStore

_SHARE = 10
"""Writing takes at most one part in this many of the time of a load."""
_HELD_ROWS = 100_000


class SeriesWriter:
    """Puts pieces of a series into the store, several at once if writing takes long.

    A merge writes the whole series, so its cost grows with what is there. What is
    held is lost in a crash, and is then missing and fetched again. Used on one
    thread; `flush` ends it.
    """

    def __init__(self, store: BarStore, symbol: str, timeframe: str, clock: Clock) -> None:
        self._store = store
        self._symbol = symbol
        self._timeframe = timeframe
        self._clock = clock
        self._held: list[pd.DataFrame] = []
        self._covered: TimeRange | None = None
        self._cost = 0.0
        self._written = clock.monotonic()

    def add(self, frame: pd.DataFrame, covered: TimeRange) -> None:
        """Take validated bars and the range they cover; write them if it is time to.

        Raises as BarStore.merge does.
        """
        if self._covered is not None and self._covered.end != covered.start:
            self.flush()
        start = covered.start if self._covered is None else self._covered.start
        self._covered = TimeRange(start, covered.end)
        self._held.append(frame)
        waited = self._clock.monotonic() - self._written
        if waited >= self._cost * _SHARE or sum(map(len, self._held)) >= _HELD_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is held. Raises as BarStore.merge does; it is not held any more."""
        if self._covered is None:
            return
        frames = [frame for frame in self._held if len(frame)]
        covered, self._covered, self._held = self._covered, None, []
        started = self._clock.monotonic()
        whole = pd.concat(frames) if frames else no_bars()
        self._store.merge(self._symbol, self._timeframe, whole, covered)
        self._written = self._clock.monotonic()
        self._cost = self._written - started
