"""Requests: how a range of bars is asked of IB, and what its answers mean in time.

IB is asked for a duration that ends at an instant, and reads both generously:
days are sessions, a bar that is still forming at the end comes as far as it has
got. So each request reaches past its range by more than a bar on either side,
and only bars that start in the range are kept: none is lost at a seam, none
comes twice, none is half a bar.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from shared.marketdata.ranges import TimeRange
from shared.marketdata.timeframes import TIMEFRAMES

_DAY = timedelta(days=1)
_WEEK = timedelta(weeks=1)
_SESSION_SLACK = timedelta(hours=6)
"""After midnight UTC the last session in America may go on this long; none has begun anew."""


@dataclass(frozen=True, slots=True)
class BarSize:
    """How a timeframe is asked for."""

    name: str
    """As IB names it."""
    span: timedelta
    """How much one request covers: a few thousand bars at most, as IB advises."""


BAR_SIZES: Mapping[str, BarSize] = {
    "1m": BarSize("1 min", timedelta(days=2)),
    "5m": BarSize("5 mins", timedelta(weeks=1)),
    "15m": BarSize("15 mins", timedelta(weeks=2)),
    "30m": BarSize("30 mins", timedelta(weeks=4)),
    "1h": BarSize("1 hour", timedelta(weeks=8)),
    "4h": BarSize("4 hours", timedelta(weeks=26)),
    "1d": BarSize("1 day", timedelta(weeks=51)),
    "1w": BarSize("1W", timedelta(weeks=52 * 5)),
}
"""Every timeframe there is."""


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """One request for bars."""

    covered: TimeRange
    """The bars that start in here are those that the answer is kept for."""
    end: datetime
    """Instant the answer ends at, in whole seconds UTC."""
    duration: str
    """How far it reaches back from there, in IB's units, such as 3 W."""
    bar_size: str
    """As IB names it, such as 1 day."""


def split(wanted: TimeRange, timeframe: str) -> Iterator[HistoryRequest]:
    """Yield the requests for a range, oldest first; what they cover follows without a seam."""
    size = BAR_SIZES[timeframe]
    start = wanted.start
    while start < wanted.end:
        end = min(start + size.span, wanted.end)
        yield _request(TimeRange(start, end), timeframe)
        start = end


def earliest(head: datetime, timeframe: str) -> datetime:
    """Return a time no bar starts before, given when IB's first bar of any size does."""
    length = TIMEFRAMES[timeframe]
    if length < _DAY:
        return head.astimezone(UTC) - length  # a bar may have begun before its first trade
    return _start_of(head.astimezone(UTC).date(), timeframe)


def bar_start(dated: date, timeframe: str) -> datetime:
    """Return when a bar starts, given the date IB puts on it.

    Days start at midnight UTC, weeks on Monday; IB dates a week by its last
    session. Raises ValueError if an intraday bar has no time.
    """
    if TIMEFRAMES[timeframe] < _DAY:
        if not isinstance(dated, datetime) or dated.tzinfo is None:
            raise ValueError(f"IB dated a bar of {timeframe} {dated}, without time or time zone")
        return dated.astimezone(UTC)
    return _start_of(dated.date() if isinstance(dated, datetime) else dated, timeframe)


def _start_of(day: date, timeframe: str) -> datetime:
    first = day - timedelta(days=day.weekday()) if timeframe == "1w" else day
    return datetime.combine(first, time(), UTC)


def _request(covered: TimeRange, timeframe: str) -> HistoryRequest:
    length = TIMEFRAMES[timeframe]
    slack = length if length < _DAY else length + _SESSION_SLACK
    end = covered.end + slack
    if end.microsecond:  # IB reads whole seconds
        end = end.replace(microsecond=0) + timedelta(seconds=1)
    return HistoryRequest(
        covered, end, _duration(end - covered.start + length, timeframe), BAR_SIZES[timeframe].name
    )


def _duration(reach: timedelta, timeframe: str) -> str:
    """Return a duration that reaches back at least this far, whether it counts days or sessions.

    Of n sessions that begin before the end, the first began n - 1 days before it or earlier.
    """
    if timeframe == "1w":
        return f"{math.ceil(reach / (365 * _DAY)):d} Y"
    if timeframe != "4h" and reach <= 2 * _WEEK:
        return f"{math.ceil(reach / _DAY) + 1:d} D"
    return f"{math.ceil(reach / _WEEK):d} W"
