"""The store of bars: one Parquet file per series, replaced whole.

A series is `{root}/{timeframe}/{SYMBOL}.parquet`. What has been loaded of it and
its gaps are kept in the file itself, so that bars and coverage change as one.
Several processes may share a store.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, unquote

import pandas as pd

from shared.clock import Clock, SystemClock
from shared.durable import sync_folders
from shared.marketdata.bars import in_order, no_bars
from shared.marketdata.gaps import Gap, find_gaps
from shared.marketdata.merging import Merging
from shared.marketdata.ranges import TimeRange, before, union
from shared.marketdata.series_file import (
    BATCH_ROWS,
    Contents,
    SeriesFile,
    SeriesUnreadableError,
    write_series,
)
from shared.marketdata.timeframes import TIMEFRAMES, last_end
from shared.rpc.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

_SUFFIX = ".parquet"
_NAME_LIMIT = 200
"""Bytes of a symbol's file name, with its suffix; file systems allow 255 with what is added."""
KEPT_GAPS = 100
"""How many gaps of a series are kept, the oldest; all are counted."""


class SeriesNotFoundError(NotFoundError):
    """Nothing has been loaded of the series."""

    reason = "SERIES_NOT_FOUND"

    def __init__(self, symbol: str, timeframe: str) -> None:
        super().__init__(
            f"There are no {timeframe[:10]} bars of {symbol[:40]!r} here. Load them with "
            f"StartDataLoad (`ktrdr data load {symbol[:40]} {timeframe[:10]}`); ListSeries shows "
            "what there is.",
            metadata={"symbol": symbol[:200], "timeframe": timeframe[:200]},
        )


class SeriesNotSavedError(FailedPreconditionError):
    """Bars could not be written."""

    reason = "SERIES_NOT_SAVED"

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(
            f"The bars could not be saved to {path} ({cause}). Free space there or make it "
            "writable, then load again.",
            metadata={"path": str(path)},
        )


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """What there is of one series."""

    symbol: str
    timeframe: str
    row_count: int
    first: datetime | None
    """Start of the first bar; None if there is none."""
    last: datetime | None
    """Start of the last bar."""
    covered: tuple[TimeRange, ...]
    """What has been loaded, oldest first, whether or not there were bars."""
    gaps: tuple[Gap, ...]
    """Gaps that no calendar explains, oldest first; at most KEPT_GAPS."""
    gap_count: int
    """How many such gaps there are."""
    update_time: datetime
    """When the series was last written."""

    @property
    def key(self) -> tuple[str, str]:
        """Symbol and timeframe."""
        return self.symbol, self.timeframe


@dataclass(frozen=True, slots=True)
class SeriesListing:
    """What lies in a store."""

    series: Sequence[SeriesInfo]
    """By symbol, then from the finest timeframe to the coarsest."""
    unreadable: Sequence[str]
    """The files that could not be read, as {timeframe}/{file name}."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did to a series."""

    added: int
    """Bars that were not there before."""
    changed: int
    """Bars that were there with other values."""


class BarStore:
    """The series below one folder."""

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self._root = root
        self._clock = clock or SystemClock()

    def series(self) -> Sequence[tuple[str, str]]:
        """Return every series there is: by symbol, then from the finest timeframe."""
        files = (
            (unquote(path.name.removesuffix(_SUFFIX)), timeframe, path.name)
            for timeframe in TIMEFRAMES
            for path in (self._root / timeframe).glob(f"[!.]*{_SUFFIX}")
        )
        # A file that was named otherwise by somebody else would not be found again.
        return in_order(
            (symbol, timeframe) for symbol, timeframe, name in files if _is_file_of(symbol, name)
        )

    def info(self, symbol: str, timeframe: str) -> SeriesInfo:
        """Return what there is of a series, without reading its bars.

        Raises SeriesNotFoundError, SeriesUnreadableError.
        """
        with self._opened(symbol, timeframe) as file:
            first, last = file.extent()
            kept = file.contents
            return SeriesInfo(
                symbol=symbol,
                timeframe=timeframe,
                row_count=file.rows,
                first=first,
                last=last,
                covered=self._trusted(kept.covered, last, timeframe),
                gaps=kept.gaps,
                gap_count=kept.gap_count,
                update_time=kept.updated,
            )

    def list(self) -> SeriesListing:
        """Return what there is of every series, and the files that cannot be read."""
        found, unreadable = [], []
        for symbol, timeframe in self.series():
            try:
                found.append(self.info(symbol, timeframe))
            except SeriesUnreadableError:
                unreadable.append(f"{timeframe}/{self._path(symbol, timeframe).name}")
            except SeriesNotFoundError:
                continue  # deleted just now
        return SeriesListing(found, sorted(unreadable))

    def covered(self, symbol: str, timeframe: str) -> tuple[TimeRange, ...]:
        """Return what has been loaded of a series, oldest first; nothing if it is not there.

        Raises SeriesUnreadableError.
        """
        try:
            return self.info(symbol, timeframe).covered
        except SeriesNotFoundError:
            return ()

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        """Return the bars that start in [start, end), in canonical form.

        Raises SeriesNotFoundError, SeriesUnreadableError.
        """
        batches = list(self.iter_batches(symbol, timeframe, start, end))
        return pd.concat(batches) if batches else no_bars()

    def iter_batches(
        self,
        symbol: str,
        timeframe: str,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = None,
        *,
        rows: int = BATCH_ROWS,
    ) -> Iterator[pd.DataFrame]:
        """Yield the bars that start in [start, end) in frames of at most `rows`, oldest first.

        At most `limit` bars. The frames, none empty, are of one state of the
        series, whatever is merged meanwhile; only about one is held in memory.

        Raises SeriesNotFoundError, SeriesUnreadableError.
        """
        left = limit
        with self._opened(symbol, timeframe) as file:
            for frame in file.batches(start, end, rows=rows):
                part = frame if left is None else frame.iloc[:left]
                if len(part):
                    yield part
                if left is not None and (left := left - len(part)) <= 0:
                    return

    def merge(self, symbol: str, timeframe: str, frame: pd.DataFrame, covered: TimeRange) -> Merged:
        """Put bars into a series, in place of those of the same time, and note the coverage.

        The frame is validated bars. Afterwards the series holds both or, whatever
        happens, neither; it is made if need be.

        Raises SeriesUnreadableError, SeriesNotSavedError, InvalidArgumentError for
        an unknown timeframe or a symbol that no file can be named by.
        """
        path = self._path(symbol, timeframe)
        try:
            with _locked(path):
                return self._merge(path, symbol, timeframe, frame, covered)
        except OSError as error:
            raise SeriesNotSavedError(path, error) from error

    def _merge(
        self, path: Path, symbol: str, timeframe: str, frame: pd.DataFrame, covered: TimeRange
    ) -> Merged:
        name = (symbol, timeframe)
        if not path.exists():
            return self._write(path, name, Merging(frame, iter(())), (covered,))
        with SeriesFile.opened(path, symbol, timeframe) as file:
            known = self._trusted(file.contents.covered, file.extent()[1], timeframe)
            if frame.empty and any(part.contains(covered) for part in known):
                return Merged(0, 0)
            return self._write(path, name, Merging(frame, file.batches()), union([*known, covered]))

    def _trusted(
        self, covered: tuple[TimeRange, ...], last: datetime | None, timeframe: str
    ) -> tuple[TimeRange, ...]:
        """The coverage without what a load cannot have known whose clock ran ahead.

        No load covers bars that have not ended yet. Where one did, nobody knows when
        it ran; certainly not before its last bar, which may not have ended then.
        """
        ended = last_end(self._clock.now(), timeframe)
        if not covered or covered[-1].end <= ended:
            return covered
        newest = covered[-1]
        known = newest.start if last is None else min(last, ended)
        return (*covered[:-1], *before([newest], known))

    def _write(
        self,
        path: Path,
        name: tuple[str, str],
        merging: Merging,
        covered: tuple[TimeRange, ...],
    ) -> Merged:
        """Write the file beside its place, then put it there by one rename."""
        beside = path.with_name(f".{path.name}.writing")  # the lock's holder is its only writer
        try:
            with beside.open("wb") as file:
                write_series(file, merging, lambda: self._contents(name, merging, covered))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        sync_folders(path.parent, self._root)
        return Merged(merging.added, merging.changed)

    def _contents(
        self, name: tuple[str, str], merging: Merging, covered: tuple[TimeRange, ...]
    ) -> Contents:
        symbol, timeframe = name
        gaps = [
            gap
            for gap in find_gaps(merging.times(), timeframe)
            if not gap.gap_class.explained and _is_within(gap, covered)
        ]
        kept = tuple(gaps[:KEPT_GAPS])
        return Contents(symbol, timeframe, covered, kept, len(gaps), self._clock.now())

    @contextmanager
    def _opened(self, symbol: str, timeframe: str) -> Iterator[SeriesFile]:
        try:
            path = self._path(symbol, timeframe)
            with SeriesFile.opened(path, symbol, timeframe) as file:
                yield file
        except (FileNotFoundError, InvalidArgumentError) as error:
            raise SeriesNotFoundError(symbol, timeframe) from error

    def _path(self, symbol: str, timeframe: str) -> Path:
        """Return the file of a series; only escaped names become paths."""
        name = _file_name(symbol)
        if timeframe not in TIMEFRAMES:
            raise InvalidArgumentError.of("timeframe", f"choose one of {', '.join(TIMEFRAMES)}.")
        if not symbol or len(name) > _NAME_LIMIT:
            text = (
                "must not be empty and, escaped for a file name, have at most "
                f"{_NAME_LIMIT - len(_SUFFIX)} bytes."
            )
            raise InvalidArgumentError.of("symbol", text)
        return self._root / timeframe / name


def _file_name(symbol: str) -> str:
    """Return the name of a symbol's file; no two symbols share one, and none is hidden."""
    name = quote(symbol, safe="")
    return f"{f'%2E{name[1:]}' if name.startswith('.') else name}{_SUFFIX}"


def _is_file_of(symbol: str, name: str) -> bool:
    """Whether a symbol's file is named so; no symbol's is if the name is not UTF-8."""
    try:
        return name == _file_name(symbol)
    except UnicodeEncodeError:
        return False


def _is_within(gap: Gap, covered: Sequence[TimeRange]) -> bool:
    """Whether all of the gap has been loaded: what has not is missing, but no gap."""
    return any(part.contains(TimeRange(gap.start, gap.end)) for part in covered)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Be the only one, of all threads and processes, that writes this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # The lock is of this opening of the file, so it also keeps out other threads.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)  # gives the lock up
