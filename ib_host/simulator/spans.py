"""Which bars of a series a request covers: sessions, regular hours, durations.

Durations in D count sessions back from the end, as TWS does; the others are
spans of time. A bar is delivered if it begins in the span.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from ib_host.simulator.durations import BarKind, Duration
from ib_host.simulator.listings import Hours

_UNITS: Mapping[str, Callable[[int], pd.DateOffset]] = {
    "S": lambda count: pd.DateOffset(seconds=count),
    "D": lambda count: pd.DateOffset(days=count),
    "W": lambda count: pd.DateOffset(weeks=count),
    "M": lambda count: pd.DateOffset(months=count),
    "Y": lambda count: pd.DateOffset(years=count),
}


@dataclass(frozen=True, slots=True)
class Timed:
    """A series' bars, ascending, with when they begin, in regular hours or in all."""

    frame: pd.DataFrame
    begins: pd.DatetimeIndex
    """Per bar: its instant, or when the session of its date, or its first one, begins."""
    sessions: pd.DatetimeIndex
    """Per bar: the date of its session, without time zone."""

    def between(self, start: pd.Timestamp, end: pd.Timestamp) -> Timed:
        """Return the bars that begin in [start, end)."""
        first, last = self.begins.searchsorted(start), self.begins.searchsorted(end)
        kept = slice(int(first), int(last))
        return Timed(self.frame.iloc[kept], self.begins[kept], self.sessions[kept])


def timed(frame: pd.DataFrame, kind: BarKind, hours: Hours, *, regular: bool) -> Timed:
    """Say when the bars of a series begin; leaves out what begins outside the hours asked for."""
    index = pd.DatetimeIndex(frame.index)
    if kind is BarKind.INTRADAY:
        sessions = _session_dates(index, hours)
        if not regular:
            return Timed(frame, index, sessions)
        kept = _in_regular_hours(index, hours)
        return Timed(frame[kept], index[kept], sessions[kept])
    dates = index.tz_convert("UTC").tz_localize(None).normalize()
    return Timed(frame, session_begins(dates, hours, regular=regular), dates)


def session_begins(dates: pd.DatetimeIndex, hours: Hours, *, regular: bool) -> pd.DatetimeIndex:
    """Return when the sessions of these dates begin, in UTC."""
    some_day = datetime(2000, 1, 3)  # noqa: DTZ001  # only the way from a date to its begin counts
    begin = hours.session_begin(some_day.date(), regular=regular).replace(tzinfo=None)
    return (dates + (begin - some_day)).tz_localize(hours.zone).tz_convert("UTC")


def stated_start(end: datetime, duration: Duration) -> pd.Timestamp:
    """Return the end less the duration, as a calendar has it."""
    return pd.Timestamp(end) - _UNITS[duration.unit](duration.count)


def covered(
    bars: Timed,
    known: pd.DatetimeIndex,
    end: datetime,
    duration: Duration,
    hours: Hours,
    *,
    regular: bool,
) -> Timed:
    """Return the bars a request covers.

    `known` are the dates of the sessions there were, as far as they are known;
    past them every weekday is one.
    """
    if duration.unit != "D":
        return bars.between(stated_start(end, duration), pd.Timestamp(end))
    first = _first_session(known, end, duration.count, hours, regular=regular)
    start = session_begins(pd.DatetimeIndex([first]), hours, regular=regular)[0]
    return bars.between(start, pd.Timestamp(end))


def _first_session(
    known: pd.DatetimeIndex, end: datetime, count: int, hours: Hours, *, regular: bool
) -> pd.Timestamp:
    """Return the date of the session `count` sessions back, of those that begin before the end."""
    last = pd.Timestamp(end).tz_convert("UTC").tz_localize(None).normalize() + timedelta(days=1)
    # Back far enough to have `count` weekdays if nothing is known.
    weekdays = pd.bdate_range(end=last, periods=count + 3)
    if len(known):
        later = weekdays[weekdays > known.max()]
        earlier = pd.bdate_range(end=known.min() - timedelta(days=1), periods=count)
        weekdays = pd.DatetimeIndex(earlier.append([known, later]))
    begun = weekdays[session_begins(weekdays, hours, regular=regular) < pd.Timestamp(end)]
    return begun[-count:].min()


def _session_dates(index: pd.DatetimeIndex, hours: Hours) -> pd.DatetimeIndex:
    local = index.tz_convert(hours.zone).tz_localize(None)
    return (local + hours.day_shift).normalize()


def _in_regular_hours(index: pd.DatetimeIndex, hours: Hours) -> npt.NDArray[np.bool_]:
    if hours.begins_day_before:  # around the clock
        return np.ones(len(index), dtype=bool)
    local = index.tz_convert(hours.zone)
    seconds = (local.hour * 60 + local.minute) * 60 + local.second
    opens, closes = (
        (at.hour * 60 + at.minute) * 60 for at in (hours.regular_opens, hours.regular_closes)
    )
    return np.asarray((seconds >= opens) & (seconds < closes) & (local.day_of_week < 5))
