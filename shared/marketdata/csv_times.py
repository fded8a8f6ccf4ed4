"""Times in text: the ways of writing dates that bar files have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Literal

import numpy as np
import pandas as pd

_ISO = re.compile(r"\d{4}-\d{1,2}-\d{1,2}.*")
_EPOCHS: Mapping[int, Literal["s", "ms", "us"]] = {9: "s", 10: "s", 13: "ms", 16: "us"}
"""Units of plain numbers by their digits: times to 2286, in seconds from 1973, finer from 2001."""
_RUNS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Formats of plain digits by their number."""
_DATES = (
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m-%d-%Y",
    "%d-%m-%Y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%b %d %Y",
)
_CLOCKS = {
    r"\d{1,2}:\d\d": "%H:%M",
    r"\d{1,2}:\d\d:\d\d": "%H:%M:%S",
    r"\d{1,2}:\d\d:\d\d\.\d{1,6}": "%H:%M:%S.%f",
    r"\d{4}": "%H%M",
    r"\d{6}": "%H%M%S",
}
_FIRST, _END = pd.Timestamp("0001-01-01", tz="UTC"), pd.Timestamp("9999-01-01", tz="UTC")
"""What the times of a series may lie between, so that the end of its last bar is a time too."""
_LONGEST = 40


class TimesUnclearError(ValueError):
    """Texts cannot be understood as times, or in two ways; `place` is where."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


def times_of(texts: pd.Series[str], *, days: bool) -> pd.DatetimeIndex:
    """Return texts, all written alike, as times in UTC; an empty text is no time.

    A time without a zone is taken as UTC. With `days` only the date as written
    counts, at midnight UTC. Raises TimesUnclearError.
    """
    texts = texts.str.strip()
    there = texts[texts != ""]
    if there.empty:
        return pd.DatetimeIndex([pd.NaT] * len(texts), tz="UTC")
    parsed = _parsed(texts, str(there.iloc[0]), days=days)
    times = pd.DatetimeIndex(parsed)
    times = times.tz_localize("UTC") if times.tz is None else times.tz_convert("UTC")
    times = times.as_unit("us")
    odd = np.asarray((times < _FIRST) | (times >= _END))
    if odd.any():
        place = int(odd.argmax())
        shown = str(texts.iloc[place])[:_LONGEST]
        raise TimesUnclearError(f"{shown!r} is before the year 1 or after 9998", place)
    return times.normalize() if days else times


def _parsed(texts: pd.Series[str], first: str, *, days: bool) -> pd.Series[pd.Timestamp]:
    """Return the texts read as the first one is written."""
    if _ISO.fullmatch(first):
        # The date as written: in UTC it may be the one before.
        shown = texts.str.slice(0, 10) if days else texts.str.replace(" UTC", "Z")
        return _all_read(texts, pd.to_datetime(shown, format="ISO8601", utc=True, errors="coerce"))
    if first.isdigit() and (unit := _EPOCHS.get(len(first))):
        numbers = pd.to_numeric(texts, errors="coerce")
        return _all_read(texts, pd.to_datetime(numbers, unit=unit, errors="coerce"))
    formats = list(_formats(first))
    if not formats:
        raise TimesUnclearError(_unknown(first), _place_of(texts, first))
    read = [pd.to_datetime(texts, format=form, errors="coerce") for form in formats]
    whole = [times for times in read if not (times.isna() & (texts != "")).any()]
    if not whole:
        best = min(read, key=lambda times: int(times.isna().sum()))
        return _all_read(texts, best)
    if any(not times.equals(whole[0]) for times in whole[1:]):
        raise TimesUnclearError(
            f"it is not clear which number of {first[:_LONGEST]!r} is the day and which the "
            "month; write dates as 2012-01-31",
            _place_of(texts, first),
        )
    return whole[0]


def _formats(text: str) -> Iterator[str]:
    """Give the formats a text may be written in."""
    date, _, end = text.rpartition(" ")
    clocks = ["", *(f" {form}" for shape, form in _CLOCKS.items() if re.fullmatch(shape, end))]
    # Digits without signs can be cut in several ways: how many there are decides.
    runs = [_RUNS[len(run)] for run in (text, date) if run.isdigit() and len(run) in _RUNS]
    for form in (*dict.fromkeys(runs), *_DATES):
        for clock in clocks:
            with suppress(ValueError):
                pd.to_datetime(pd.Series([text]), format=form + clock)
                yield form + clock


def _all_read(texts: pd.Series[str], times: pd.Series[pd.Timestamp]) -> pd.Series[pd.Timestamp]:
    """Return the times if every text is one."""
    unread = times.isna() & (texts != "")
    if unread.any():
        place = int(unread.to_numpy().argmax())
        raise TimesUnclearError(_unknown(str(texts.iloc[place])), place)
    return times


def _unknown(text: str) -> str:
    return (
        f"{text[:_LONGEST]!r} is no time, or is written in another way than the first; write "
        "times as 2012-01-31 or 2012-01-31T14:30:00Z"
    )


def _place_of(texts: pd.Series[str], text: str) -> int:
    return int((texts == text).to_numpy().argmax())
