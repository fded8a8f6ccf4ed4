"""Real daily prices of five stocks, embedded: the source that needs no account.

Prices are as traded, not adjusted for splits (see sample/NOTICE.md).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.resources import as_file, files

import pandas as pd

from shared.marketdata.bars import between, in_canonical_form, in_order, require_series
from shared.marketdata.provider import (
    Fetched,
    FetchWatch,
    check_provided,
    in_pieces,
    require_provided,
)
from shared.marketdata.ranges import TimeRange
from shared.rpc.errors import FieldViolation

_PIECE_ROWS = 500


class SampleBarSource:
    """The embedded bars: 1d as traded, 1w aggregated from them.

    Days start at midnight UTC, weeks on Monday at midnight UTC; a week is made
    of the trading days there are. Read on first use, then kept. A BarSource, and
    a BarProvider to load them from.
    """

    name = "sample"

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the series, so that several first readers load once
        self._series: Mapping[tuple[str, str], pd.DataFrame] | None = None

    def series(self) -> Sequence[tuple[str, str]]:
        """Return every series there is; see BarSource.series."""
        return in_order(self._loaded())

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        """Return the bars that start in [start, end); see BarSource.read."""
        require_series(self, symbol, timeframe)
        return between(self._loaded()[symbol, timeframe], start, end).copy()

    def trouble(self) -> str:
        """Return nothing: the bars are embedded; see BarSource.trouble."""
        return ""

    def check(self, symbols: Sequence[str], timeframe: str) -> list[FieldViolation]:
        """Return a violation for each series there is not; see BarProvider.check."""
        return check_provided(self, symbols, timeframe)

    def begins(
        self,
        symbol: str,
        timeframe: str,
        watch: FetchWatch | None = None,  # noqa: ARG002  # nobody has to be asked
    ) -> datetime:
        """Return when the first bar starts; see BarProvider.begins."""
        first: datetime = self._provided(symbol, timeframe).index[0].to_pydatetime()
        return first

    def fetch(
        self, symbol: str, timeframe: str, wanted: TimeRange, watch: FetchWatch
    ) -> Iterator[Fetched]:
        """Yield the bars of a range; see BarProvider.fetch."""
        frame = between(self._provided(symbol, timeframe), wanted.start, wanted.end)
        watch.estimate(len(frame))
        yield from in_pieces(frame, wanted, rows=_PIECE_ROWS)

    def _provided(self, symbol: str, timeframe: str) -> pd.DataFrame:
        require_provided(self, symbol, timeframe)
        return self._loaded()[symbol, timeframe]

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
        daily = in_canonical_form(rows.set_index("time").sort_index())
        series[str(symbol), "1d"] = daily
        series[str(symbol), "1w"] = _weekly(daily)
    return series


def _weekly(daily: pd.DataFrame) -> pd.DataFrame:
    """Aggregate days to weeks that start on Monday; weeks without a day are left out."""
    weeks = daily.resample("W-MON", label="left", closed="left")
    columns = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    return in_canonical_form(weeks.agg(columns).dropna())
