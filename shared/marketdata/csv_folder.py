"""A folder of CSV files: bars of one's own, as `SYMBOL_timeframe.csv`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from stat import S_ISREG

import pandas as pd

from shared.marketdata.bars import between, in_order, require_series
from shared.marketdata.csv_file import CsvUnreadableError, read_csv_bars
from shared.marketdata.provider import (
    Fetched,
    FetchWatch,
    check_provided,
    in_pieces,
    require_provided,
)
from shared.marketdata.ranges import TimeRange
from shared.marketdata.timeframes import TIMEFRAMES
from shared.marketdata.validation import validate
from shared.rpc.errors import FieldViolation
from shared.rpc.limits import MIB

logger = logging.getLogger("ktrdr.marketdata")


@dataclass(frozen=True, slots=True)
class _Parsed:
    """The bars of a file as it was."""

    path: Path
    state: tuple[int, int]
    """When it was changed, and its size."""
    bars: pd.DataFrame


class CsvFolder:
    """The bars of one folder: a BarSource, and a BarProvider to load them from.

    Files may come, change and go at any time. See shared.marketdata.csv_file for
    what they may look like.
    """

    name = "csv"

    def __init__(self, folder: Path, most_bytes: int = 256 * MIB) -> None:
        """Larger files than `most_bytes` are refused: each is read whole."""
        self._folder = folder
        self._most_bytes = most_bytes
        # The file read last; replaced as a whole, so that it needs no lock.
        self._latest: _Parsed | None = None

    def series(self) -> Sequence[tuple[str, str]]:
        """Return every series there is; see BarSource.series."""
        stems = (path.stem.rpartition("_") for path in self._folder.glob("[!.]*.csv"))
        return in_order(
            (symbol, timeframe)
            for symbol, _, timeframe in stems
            if symbol and timeframe in TIMEFRAMES
        )

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        """Return the bars that start in [start, end); see BarSource.read.

        Rows that cannot be right are left out. Raises CsvUnreadableError.
        """
        require_series(self, symbol, timeframe)
        checked = validate(self._bars(symbol, timeframe))
        for problem in checked.problems:
            logger.warning("%s: %s", self._path(symbol, timeframe), problem)
        return between(checked.frame, start, end)

    def trouble(self) -> str:
        """Return why the folder cannot be read, if so; see BarSource.trouble."""
        try:
            with os.scandir(self._folder):
                return ""
        except OSError as error:
            return (
                f"The folder {self._folder}, named by KTRDR_CSV_FOLDER, cannot be read "
                f"({error.strerror}); put it back."
            )

    def check(self, symbols: Sequence[str], timeframe: str) -> list[FieldViolation]:
        """Return a violation for each file there is not; see BarProvider.check."""
        return check_provided(self, symbols, timeframe)

    def begins(
        self,
        symbol: str,
        timeframe: str,
        watch: FetchWatch | None = None,  # noqa: ARG002  # nobody has to be asked
    ) -> datetime:
        """Return when the first bar starts; see BarProvider.begins."""
        return self._times(symbol, timeframe)[0]

    def fetch(
        self, symbol: str, timeframe: str, wanted: TimeRange, watch: FetchWatch
    ) -> Iterator[Fetched]:
        """Yield the bars of a range; see BarProvider.fetch.

        Nothing after the last bar is covered, so that a file may grow.
        """
        _, last = self._times(symbol, timeframe)
        end = min(wanted.end, last + TIMEFRAMES[timeframe])
        if end <= wanted.start:
            return
        covered = TimeRange(wanted.start, end)
        bars = self._bars(symbol, timeframe)
        times = pd.DatetimeIndex(bars.index)
        inside = (times >= pd.Timestamp(covered.start)) & (times < pd.Timestamp(covered.end))
        part = bars.loc[inside | times.isna()]  # rows without a time are for validation to report
        watch.estimate(len(part))
        yield from in_pieces(part, covered)

    def _times(self, symbol: str, timeframe: str) -> tuple[datetime, datetime]:
        """Return the starts of the first and of the last bar."""
        times = self._bars(symbol, timeframe).index
        first, last = times.min(), times.max()
        if pd.isna(first):
            raise CsvUnreadableError(self._path(symbol, timeframe), "it holds no bars")
        return first.to_pydatetime(), last.to_pydatetime()

    def _bars(self, symbol: str, timeframe: str) -> pd.DataFrame:
        """Return the bars of a file as written, read anew if it has changed."""
        require_provided(self, symbol, timeframe)
        path = self._path(symbol, timeframe)
        try:
            status = path.stat()
        except OSError as error:
            raise CsvUnreadableError(path, f"it cannot be read ({error.strerror})") from error
        if not S_ISREG(status.st_mode):
            raise CsvUnreadableError(path, "it is not a file; put one in its place")
        if status.st_size > self._most_bytes:
            text = (
                f"it has {status.st_size} bytes, more than the {self._most_bytes} that are read; "
                "leave out what is old, or raise KTRDR_MAX_CSV_BYTES"
            )
            raise CsvUnreadableError(path, text)
        state = (status.st_mtime_ns, status.st_size)
        latest = self._latest
        if latest is None or (latest.path, latest.state) != (path, state):
            latest = self._latest = _Parsed(path, state, read_csv_bars(path, timeframe))
        return latest.bars

    def _path(self, symbol: str, timeframe: str) -> Path:
        """Return the file of a series that is listed, so the name leads nowhere else."""
        return self._folder / f"{symbol}_{timeframe}.csv"
