"""Bars: what a series looks like, and the port through which bars are read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Protocol

import pandas as pd

from shared.rpc.errors import FieldViolation, InvalidArgumentError

COLUMNS = ("open", "high", "low", "close", "volume")
"""The columns of a frame of bars, all float64."""


class BarSource(Protocol):
    """A place that bars are read from; safe to use from several threads."""

    def symbols(self) -> Sequence[str]:
        """Return the symbols there are, sorted."""
        ...

    def timeframes(self) -> Sequence[str]:
        """Return the timeframes every symbol has, finest first."""
        ...

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        """Return the bars that start in [start, end), oldest first; maybe none.

        The index is the bar's start (UTC, named "time", unique, ascending), the
        columns are COLUMNS without missing values. A bar is known only once it
        has ended: its index plus its timeframe's length. `start` and `end` are
        aware; None means the first and past the last.

        Raises InvalidArgumentError for an unknown symbol or timeframe.
        """
        ...


def check_series(
    source: BarSource,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    *,
    symbols_field: str = "symbols",
    timeframes_field: str = "timeframes",
) -> list[FieldViolation]:
    """Return a violation for each symbol and timeframe the source does not have."""
    return [
        *_unknown(symbols_field, "symbol", symbols, source.symbols()),
        *_unknown(timeframes_field, "timeframe", timeframes, source.timeframes()),
    ]


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


def _description(noun: str, name: str, known: Sequence[str]) -> str:
    folded = {other.casefold(): other for other in known}
    near = get_close_matches(name.casefold()[:40], folded, n=1, cutoff=0.5)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else "."
    listed = ", ".join(known[:50]) + (f" and {len(known) - 50} more" if len(known) > 50 else "")
    return f"there are no bars for {noun} {name[:40]!r}{hint} There are: {listed or 'none'}."
