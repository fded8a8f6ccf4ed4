"""Gaps: stretches without bars, and whether a calendar explains them.

Which hours are traded is taken from the series itself: an hour of a weekday in
which most such weekdays have a bar. Days without trading are those of the
exchanges of the United States (shared.marketdata.holidays), their time zone is
New York's. Nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import Enum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.marketdata.holidays import early_closes, holidays
from shared.marketdata.timeframes import TIMEFRAMES


class GapClass(Enum):
    """What explains a gap."""

    WEEKEND = "WEEKEND"
    HOLIDAY = "HOLIDAY"
    TRADING_HOURS = "TRADING_HOURS"
    MARKET_CLOSURE = "MARKET_CLOSURE"
    """No calendar does; it is longer than 72 hours, weekends left out."""
    UNEXPECTED = "UNEXPECTED"
    """Nothing does."""

    @property
    def explained(self) -> bool:
        """Whether a calendar explains it."""
        return self not in {GapClass.MARKET_CLOSURE, GapClass.UNEXPECTED}


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch without bars."""

    start: datetime
    """Start of the first bar that is missing."""
    end: datetime
    """Start of the next bar there is."""
    gap_class: GapClass


THRESHOLDS: Mapping[str, timedelta] = {
    "1m": timedelta(minutes=5),
    "5m": timedelta(minutes=15),
    "15m": timedelta(hours=1),
    "30m": timedelta(hours=2),
    "1h": timedelta(hours=4),
    "4h": timedelta(days=1),
    "1d": timedelta(days=2),
    "1w": timedelta(weeks=1),
}
"""From the start of one bar to that of the next: what is shorter is no gap."""

_CLOSURE = timedelta(hours=72)
_ZONE = "America/New_York"
_DAY = timedelta(days=1)
_WEEK = timedelta(weeks=1)
_THURSDAY, _SATURDAY = 3, 5
_EARLY_CLOSE = timedelta(hours=13)
_USUAL = 0.5
"""Share of the days that have a bar in a slot which makes the slot a traded one."""
_FEW_DAYS = 3
"""Weekdays seen less often are judged by all days from Monday to Friday."""


def find_gaps(times: pd.DatetimeIndex, timeframe: str) -> list[Gap]:
    """Return every gap between bars that start at these times, oldest first.

    The times are unique and ascend, in UTC. Days and weeks are those of UTC.
    """
    length = TIMEFRAMES[timeframe]
    ticks = times.as_unit("us").asi8
    steps = np.diff(ticks)
    wide = (steps > _us(length)) & (steps >= _us(THRESHOLDS[timeframe]))
    if not wide.any():
        return []
    calendar = _Calendar(times, timeframe)
    before = np.flatnonzero(wide)
    starts, ends = times[before] + length, times[before + 1]
    classes = calendar.classes(before)
    return [
        Gap(start, end, gap_class)
        for start, end, gap_class in zip(
            starts.to_pydatetime(), ends.to_pydatetime(), classes, strict=True
        )
    ]


class _Calendar:
    """When a series is traded, as far as its bars and the exchange's rules tell."""

    def __init__(self, times: pd.DatetimeIndex, timeframe: str) -> None:
        self._length = TIMEFRAMES[timeframe]
        self._threshold = THRESHOLDS[timeframe]
        # A day or a week has one start, at midnight UTC; hours follow New York's clock.
        self._intraday = self._length < _DAY
        self._local = (times.tz_convert(_ZONE) if self._intraday else times).tz_localize(None)
        self._slots = max(1, _DAY // self._length)
        usual = self._usual_slots()
        self._weekends = bool(usual[_SATURDAY].any())
        # How many traded slots of a weekday come before each slot.
        self._before = np.pad(usual.cumsum(axis=1), ((0, 0), (1, 0))).tolist()

    def classes(self, before: NDArray[np.int64]) -> list[GapClass]:
        """Return the class of the gap after each of these bars."""
        starts = (self._local[before] + self._length).to_pydatetime()
        ends = self._local[before + 1].to_pydatetime()
        return [self._class(start, end) for start, end in zip(starts, ends, strict=True)]

    def _class(self, start: datetime, end: datetime) -> GapClass:
        if self._length < _WEEK and self._explained(start, end):
            return self._explanation(start.date(), end.date())
        return _unexplained(start, end)

    def _explained(self, start: datetime, end: datetime) -> bool:
        """Whether nothing is missing between two bars but what is not traded."""
        inner = edges = 0
        for day in _dates(start.date(), end.date()):
            missing = self._missing(day, start, end)
            if self._intraday and day in {start.date(), end.date()}:
                edges += missing
            else:
                inner += missing
        # A bar or two may be missing where a session ends or begins.
        return not inner and (not edges or (edges + 1) * self._length < self._threshold)

    def _missing(self, day: date, start: datetime, end: datetime) -> int:
        """Count the traded slots of one day that lie in the gap."""
        if day in holidays(day.year):
            return 0
        midnight = _midnight(day)
        until = midnight + _EARLY_CLOSE if self._closes_early(day) else midnight + _DAY
        first = (max(start, midnight) - midnight) // self._length
        last = (min(end, until) - midnight) // self._length
        slots = self._before[day.weekday()]
        return int(slots[max(first, last)] - slots[first])

    def _closes_early(self, day: date) -> bool:
        return self._intraday and day in early_closes(day.year)

    def _explanation(self, first: date, last: date) -> GapClass:
        days = list(_dates(first, last))
        if self._closes_early(first) or any(day in holidays(day.year) for day in days):
            return GapClass.HOLIDAY
        weekend = any(day.weekday() >= _SATURDAY for day in days)
        if weekend and not self._weekends:
            return GapClass.WEEKEND
        return GapClass.TRADING_HOURS

    def _usual_slots(self) -> NDArray[np.bool_]:
        """Return by weekday and slot of the day whether most such days have a bar there."""
        days, ticks = np.divmod(self._local.as_unit("us").asi8, _us(_DAY))
        bars = _distinct(days * self._slots + ticks // _us(self._length))
        weekdays = (bars // self._slots + _THURSDAY) % 7  # day 0 was one
        counts = np.zeros((7, self._slots), dtype="int64")
        np.add.at(counts, (weekdays, bars % self._slots), 1)
        number = np.bincount((_distinct(days) + _THURSDAY) % 7, minlength=7)
        span = np.arange(days[0], days[-1] + 1) + _THURSDAY
        number[_SATURDAY:] = np.bincount(span % 7, minlength=7)[_SATURDAY:]
        usual: NDArray[np.bool_] = counts >= np.maximum(1, _USUAL * number)[:, None]
        if self._intraday:
            few = number[:_SATURDAY] < _FEW_DAYS
            pooled = counts[:_SATURDAY].sum(axis=0)
            usual[:_SATURDAY][few] = pooled >= max(1, _USUAL * number[:_SATURDAY].sum())
        else:
            usual[:_SATURDAY] = True
        return usual


def _distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what numpy.unique does, faster for numbers that are nearly in order."""
    ordered = np.sort(numbers, kind="stable")
    first: NDArray[np.bool_] = np.diff(ordered, prepend=ordered[0] - 1) != 0
    return ordered[first]


def _unexplained(start: datetime, end: datetime) -> GapClass:
    """Return the class of a gap by its length, weekends left out."""
    traded = end - start
    for midnight in map(_midnight, _dates(start.date(), end.date())):
        if midnight.weekday() >= _SATURDAY:
            weekend = min(end, midnight + _DAY) - max(start, midnight)
            traded -= max(weekend, timedelta())
    return GapClass.MARKET_CLOSURE if traded > _CLOSURE else GapClass.UNEXPECTED


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001  # in the local time of the bars


def _dates(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


def _us(length: timedelta) -> int:
    return length // timedelta(microseconds=1)
