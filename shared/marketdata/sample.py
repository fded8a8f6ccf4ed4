"""Real daily prices of five stocks, embedded: the source that needs no account.

Prices are as traded, not adjusted for splits (see sample/NOTICE.md).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import as_file, files

import pandas as pd

from shared.marketdata.bars import COLUMNS, require_series


class SampleBarSource:
    """The embedded bars: 1d as traded, 1w aggregated from them.

    Days start at midnight UTC, weeks on Monday at midnight UTC; a week is made
    of the trading days there are. Read on first use, then kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # so that several first readers load once
        self._series: Mapping[tuple[str, str], pd.DataFrame] | None = None

    def symbols(self) -> Sequence[str]:
        """Return the symbols there are, sorted."""
        return sorted({symbol for symbol, _ in self._loaded()})

    def timeframes(self) -> Sequence[str]:
        """Return the timeframes every symbol has."""
        return ("1d", "1w")

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        """Return the bars that start in [start, end); see BarSource.read."""
        require_series(self, symbol, timeframe)
        bars = self._loaded()[symbol, timeframe]
        chosen = pd.Series(data=True, index=bars.index)
        if start is not None:
            chosen &= bars.index >= pd.Timestamp(start)
        if end is not None:
            chosen &= bars.index < pd.Timestamp(end)
        return bars.loc[chosen].copy()

    def _loaded(self) -> Mapping[tuple[str, str], pd.DataFrame]:
        with self._lock:
            if self._series is None:
                self._series = _load()
            return self._series


def _load() -> dict[tuple[str, str], pd.DataFrame]:
    with as_file(files("shared.marketdata").joinpath("sample", "stocks.csv.gz")) as path:
        table = pd.read_csv(path, parse_dates=["Date"])
    table.columns = table.columns.str.lower()
    table["time"] = table["date"].dt.tz_localize("UTC")
    series = {}
    for symbol, rows in table.groupby("ticker"):
        daily = rows.set_index("time").sort_index()[list(COLUMNS)].astype("float64")
        series[str(symbol), "1d"] = daily
        series[str(symbol), "1w"] = _weekly(daily)
    return series


def _weekly(daily: pd.DataFrame) -> pd.DataFrame:
    """Aggregate days to weeks that start on Monday; weeks without a day are left out."""
    weeks = daily.resample("W-MON", label="left", closed="left")
    return weeks.agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    ).dropna()
