"""Bars for tests, and a provider that does what a test says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from shared.marketdata.bars import COLUMNS, between, in_canonical_form
from shared.marketdata.provider import Fetched, FetchWatch, SeriesFailedError
from shared.marketdata.ranges import TimeRange
from shared.rpc.errors import FieldViolation

START = datetime(2020, 1, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    """Return the start of a day, counted from START."""
    return START + timedelta(days=number)


def days(first: int, last: int) -> TimeRange:
    """Return the time from one day to another."""
    return TimeRange(day(first), day(last))


def bars_at(times: Sequence[datetime], *, seed: int = 0) -> pd.DataFrame:
    """Return consistent bars, in canonical form, that start at these times."""
    count = len(times)
    chance = np.random.default_rng(seed)
    prices = np.sort(chance.uniform(10, 20, (count, 4)), axis=1)
    columns = {
        "open": prices[:, 1],
        "high": prices[:, 3],
        "low": prices[:, 0],
        "close": prices[:, 2],
        "volume": chance.uniform(0, 1e6, count),
    }
    return in_canonical_form(pd.DataFrame(columns, index=pd.DatetimeIndex(list(times), tz="UTC")))


def daily(first: int, last: int, *, seed: int = 0) -> pd.DataFrame:
    """Return a bar for each day from one to another."""
    return bars_at([day(number) for number in range(first, last)], seed=seed)


def row(**values: float) -> list[float]:
    """Return the values of a bar in the order of COLUMNS; a good one if nothing is said."""
    good = {"open": 2.0, "high": 4.0, "low": 1.0, "close": 3.0, "volume": 10.0}
    return [{**good, **values}[name] for name in COLUMNS]


class ScriptedProvider:
    """Has some series, gives them a day range at a time, and remembers what it was asked."""

    name = "scripted"

    def __init__(
        self,
        series: Mapping[str, pd.DataFrame],
        *,
        piece: timedelta = timedelta(days=10),
        knows_begin: bool = True,
    ) -> None:
        self.series = dict(series)
        self.failing: dict[str, Exception] = {}
        """What to raise in place of a symbol's second piece."""
        self.fetches: list[tuple[str, TimeRange]] = []
        self.estimates: dict[str, int] = {}
        self.notes: dict[str, str] = {}
        self.waits: dict[str, float] = {}
        self.head_waits: dict[str, float] = {}
        """How long each symbol's fetch, and the question for its first bar, wait."""
        self._piece = piece
        self._knows_begin = knows_begin

    def check(self, symbols: Sequence[str], timeframe: str) -> list[FieldViolation]:
        return []

    def begins(
        self, symbol: str, timeframe: str, watch: FetchWatch | None = None
    ) -> datetime | None:
        if watch is not None and symbol in self.head_waits:
            watch.note("asking for the first bar")
            watch.wait(self.head_waits[symbol])
        if symbol not in self.series:
            raise SeriesFailedError(f"{symbol} is not had here.", reason="NO_SUCH_SERIES")
        first: datetime = self.series[symbol].index[0].to_pydatetime()
        return first if self._knows_begin else None

    def fetch(
        self, symbol: str, timeframe: str, wanted: TimeRange, watch: FetchWatch
    ) -> Iterator[Fetched]:
        self.fetches.append((symbol, wanted))
        if symbol in self.estimates:
            watch.estimate(self.estimates[symbol])
        if symbol in self.notes:
            watch.note(self.notes[symbol])
        if symbol in self.waits:
            watch.wait(self.waits[symbol])
        start = wanted.start
        while start < wanted.end:
            if start > wanted.start and symbol in self.failing:
                raise self.failing[symbol]
            end = min(start + self._piece, wanted.end)
            yield Fetched(between(self.series[symbol], start, end), TimeRange(start, end))
            start = end
