"""Bars: what a series looks like, and the port through which bars are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Protocol

import pandas as pd

from shared.marketdata.timeframes import TIMEFRAMES
from shared.rpc.errors import FieldViolation, InvalidArgumentError

COLUMNS = ("open", "high", "low", "close", "volume")
"""The columns of a frame of bars, all float64."""


class BarSource(Protocol):
    """A place that bars are read from; safe to use from several threads."""

    def series(self) -> Sequence[tuple[str, str]]:
        """Return every series there is, symbol and timeframe.

        By symbol, then from the finest timeframe to the coarsest.
        """
        ...

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        """Return the bars that start in [start, end), oldest first; maybe none.

        The frame is in canonical form, unique and without missing values. A bar
        is known only once it has ended: its index plus its timeframe's length.
        `start` and `end` are aware; None means the first and past the last.

        Raises InvalidArgumentError for an unknown symbol or timeframe.
        """
        ...

    def trouble(self) -> str:
        """Return why series may be missing that should be there, and the mend; "" if nothing is.

        Whole sentences, without waiting for anyone.
        """
        ...


def in_canonical_form(frame: pd.DataFrame) -> pd.DataFrame:
    """Return bars with nothing but what a frame of bars has, in their order.

    The index is the bar's start (UTC in microseconds, named "time"), the columns
    are COLUMNS. `frame` has them and an index of aware times.
    """
    times = pd.DatetimeIndex(frame.index).tz_convert("UTC").as_unit("us")
    index = pd.DatetimeIndex(times.asi8.view("datetime64[us]"), tz="UTC", name="time")
    return pd.DataFrame({name: frame[name].to_numpy("float64") for name in COLUMNS}, index=index)


def no_bars() -> pd.DataFrame:
    """Return a frame of no bars, in canonical form."""
    return in_canonical_form(
        pd.DataFrame(columns=list(COLUMNS), index=pd.DatetimeIndex([], tz="UTC"))
    )


def between(frame: pd.DataFrame, start: datetime | None, end: datetime | None) -> pd.DataFrame:
    """Return the bars, ascending in time, that start in [start, end)."""
    times = pd.DatetimeIndex(frame.index)
    first = 0 if start is None else int(times.searchsorted(pd.Timestamp(start)))
    last = len(times) if end is None else int(times.searchsorted(pd.Timestamp(end)))
    return frame.iloc[first : max(first, last)]


def in_order(series: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return series by symbol, then from the finest timeframe to the coarsest."""
    return sorted(series, key=lambda one: (one[0], TIMEFRAMES[one[1]]))


def check_series(
    source: BarSource,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    *,
    symbols_field: str = "symbols",
    timeframes_field: str = "timeframes",
) -> list[FieldViolation]:
    """Return a violation for each name the source lacks, and for each series it lacks.

    A symbol that is there, but not in every timeframe asked for, is one violation
    of the symbol. Timeframes nobody has are violations of their own. Each tells
    the trouble that the source is in, if it is.
    """
    series = source.series()
    known: dict[str, list[str]] = {}
    for symbol, timeframe in series:
        known.setdefault(symbol, []).append(timeframe)
    there = sorted({timeframe for _, timeframe in series}, key=TIMEFRAMES.__getitem__)
    violations = [
        *_unknown(symbols_field, "symbol", symbols, list(known)),
        *_incomplete(symbols_field, symbols, [name for name in timeframes if name in there], known),
        *_unknown(timeframes_field, "timeframe", timeframes, there),
    ]
    trouble = source.trouble() if violations else ""
    return [FieldViolation(v.field, f"{v.description} {trouble}".rstrip()) for v in violations]


def require_series(source: BarSource, symbol: str, timeframe: str) -> None:
    """Raise InvalidArgumentError unless the source has this series."""
    violations = check_series(
        source, [symbol], [timeframe], symbols_field="symbol", timeframes_field="timeframe"
    )
    if violations:
        # One series, not a list of them: the fields carry no index.
        raise InvalidArgumentError(
            [FieldViolation(v.field.removesuffix("[0]"), v.description) for v in violations]
        )


def _unknown(
    field: str, noun: str, asked: Sequence[str], known: Sequence[str]
) -> list[FieldViolation]:
    return [
        FieldViolation(f"{field}[{index}]", _description(noun, name, known))
        for index, name in enumerate(asked)
        if name not in known
    ]


def _incomplete(
    field: str,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    known: Mapping[str, Sequence[str]],
) -> list[FieldViolation]:
    """Return a violation for each known symbol that lacks a timeframe others have."""
    violations = []
    for index, symbol in enumerate(symbols):
        has = known.get(symbol, timeframes)
        if lacks := [timeframe for timeframe in timeframes if timeframe not in has]:
            text = (
                f"there are no bars for symbol {symbol[:40]!r} in timeframe {', '.join(lacks)}. "
                f"There are: {', '.join(has)}."
            )
            violations.append(FieldViolation(f"{field}[{index}]", text))
    return violations


def _description(noun: str, name: str, known: Sequence[str]) -> str:
    folded = {other.casefold(): other for other in known}
    near = get_close_matches(name.casefold()[:40], folded, n=1, cutoff=0.5)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else "."
    listed = ", ".join(known[:50]) + (f" and {len(known) - 50} more" if len(known) > 50 else "")
    return f"there are no bars for {noun} {name[:40]!r}{hint} There are: {listed or 'none'}."
