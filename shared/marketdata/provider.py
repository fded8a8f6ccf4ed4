"""Providers: where bars are loaded from, and the port through which a load asks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import pandas as pd

from shared.marketdata.bars import BarSource, check_series
from shared.marketdata.ranges import TimeRange
from shared.rpc.errors import Code, FieldViolation, KtrdrError

PIECE_ROWS = 50_000
"""Bars in a piece of a provider that has them all at hand."""


class SeriesFailedError(KtrdrError):
    """One series cannot be had; a load goes on with the others.

    `reason` says which of the provider's reasons it is; the message says what
    to do.
    """

    code = Code.FAILED_PRECONDITION
    reason = "SERIES_FAILED"

    def __init__(
        self, message: str, *, reason: str = reason, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)


class FetchWatch(Protocol):
    """Whoever waits for a fetch: is told how it goes, and may want it to stop."""

    def note(self, message: str) -> None:
        """Say what the fetch is doing now, such as "waiting 12 s for IB pacing"."""
        ...

    def estimate(self, rows: int) -> None:
        """Say how many bars this fetch will bring in all, as far as known."""
        ...

    def raise_if_cancelled(self) -> None:
        """Raise OperationCancelledError if the fetch should stop."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait; raise OperationCancelledError as soon as the fetch should stop."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """One piece of a fetch."""

    frame: pd.DataFrame
    """Bars by their start (UTC, named "time"), with COLUMNS; not yet validated."""
    covered: TimeRange
    """What need not be asked for again: its bars are in this piece, or there are none."""


class BarProvider(Protocol):
    """A place that bars are loaded from; safe to use from several threads."""

    @property
    def name(self) -> str:
        """A word for people: sample, csv, ib."""
        ...

    def check(self, symbols: Sequence[str], timeframe: str) -> list[FieldViolation]:
        """Return a violation for each series that can be seen not to be there.

        For the fields `symbols[i]` and `timeframe`; without waiting for anyone.
        """
        ...

    def begins(
        self, symbol: str, timeframe: str, watch: FetchWatch | None = None
    ) -> datetime | None:
        """Return a time before which no bar starts (aware); None if none is known.

        Whoever has to be asked first is asked under the watch. Raises as fetch.
        """
        ...

    def fetch(
        self, symbol: str, timeframe: str, wanted: TimeRange, watch: FetchWatch
    ) -> Iterator[Fetched]:
        """Yield the bars that start in the wanted range, oldest first.

        In pieces small enough to be kept at once, whose covered ranges follow
        each other. What no piece covers is asked for again by the next load.

        Raises SeriesFailedError if the series cannot be had, UnavailableError if
        at present none can, OperationCancelledError through the watch.
        """
        ...


class ReadableProvider(BarProvider, BarSource, Protocol):
    """A provider that has its bars at hand, so that they can be read without a load."""


def check_provided(
    source: BarSource, symbols: Sequence[str], timeframe: str
) -> list[FieldViolation]:
    """Check the series of a provider that can list what it has: see BarProvider.check."""
    violations = check_series(source, symbols, [timeframe], timeframes_field="timeframe")
    return [replace(v, field=v.field.replace("timeframe[0]", "timeframe")) for v in violations]


def require_provided(source: BarSource, symbol: str, timeframe: str) -> None:
    """Raise SeriesFailedError unless a provider that can list what it has has this series."""
    if violations := check_provided(source, [symbol], timeframe):
        text = " ".join(violation.description for violation in violations)
        raise SeriesFailedError(text[:1].upper() + text[1:], reason="NO_SUCH_SERIES")


def in_pieces(
    frame: pd.DataFrame, covered: TimeRange, *, rows: int = PIECE_ROWS
) -> Iterator[Fetched]:
    """Yield the bars of a range in pieces that cover it without a seam.

    Bars of the same time stay together. A frame that does not ascend is one
    piece, so that whoever validates it sees it as it is.
    """
    times = pd.DatetimeIndex(frame.index)
    start, first = covered.start, 0
    while times.is_monotonic_increasing and first + rows < len(times):
        cut = int(times.searchsorted(times[first + rows - 1], side="right"))
        if cut >= len(times):
            break
        seam = times[cut].to_pydatetime()
        yield Fetched(frame.iloc[first:cut], TimeRange(start, seam))
        start, first = seam, cut
    yield Fetched(frame.iloc[first:], TimeRange(start, covered.end))
