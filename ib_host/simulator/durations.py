"""Bar sizes, durations and ends of historical requests: which there are, how they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from zoneinfo import ZoneInfo

from ib_host.simulator.refusals import bad_end, history, not_valid


class BarKind(StrEnum):
    """How the bars of a size are dated."""

    INTRADAY = "intraday"
    """By the instant they begin."""
    DAY = "day"
    """By the date of their session."""
    LONGER = "longer"
    """By the date of the last session in them."""


@dataclass(frozen=True, slots=True)
class BarSize:
    """A size of bars as TWS names it."""

    name: str
    timeframe: str
    """The same size as a source of bars names it: 1m, 1h, 1d, and 5s, 1mo for others."""
    length: timedelta
    kind: BarKind = BarKind.INTRADAY

    @property
    def small(self) -> bool:
        """Whether the strict pacing rules hold."""
        return self.length <= timedelta(seconds=30)


def _intraday() -> list[BarSize]:
    seconds = [("1 secs", 1), ("5 secs", 5), ("10 secs", 10), ("15 secs", 15), ("30 secs", 30)]
    minutes = [("1 min", 1), *((f"{n} mins", n) for n in (2, 3, 5, 10, 15, 20, 30))]
    hours = [("1 hour", 1), *((f"{n} hours", n) for n in (2, 3, 4, 8))]
    return [
        *(BarSize(name, f"{n}s", timedelta(seconds=n)) for name, n in seconds),
        *(BarSize(name, f"{n}m", timedelta(minutes=n)) for name, n in minutes),
        *(BarSize(name, f"{n}h", timedelta(hours=n)) for name, n in hours),
    ]


_ALL = (
    *_intraday(),
    BarSize("1 day", "1d", timedelta(days=1), BarKind.DAY),
    BarSize("1W", "1w", timedelta(weeks=1), BarKind.LONGER),
    BarSize("1M", "1mo", timedelta(days=30), BarKind.LONGER),
)
BAR_SIZES: Mapping[str, BarSize] = {
    **{size.name: size for size in _ALL},
    "1 week": _ALL[-2],
    "1 month": _ALL[-1],
}
"""Every legal bar size by its name; both names of weeks and months."""


@dataclass(frozen=True, slots=True)
class Duration:
    """How far a request reaches back: a number of units."""

    count: int
    unit: str
    """S, D (sessions), W, M or Y."""


_DURATION = re.compile(r"(\d{1,6}) ([SDWMY])")
_LONGEST = {
    "S": (86400, "86400 seconds", "days"),
    "D": (365, "365 days", "years"),
    "W": (52, "52 weeks", "years"),
    "M": (12, "12 months", "years"),
    "Y": (68, "68 years", "shorter requests"),
}
_SMALLEST_BARS = {
    "D": timedelta(seconds=5),
    "W": timedelta(seconds=10),
    "M": timedelta(seconds=30),
    "Y": timedelta(minutes=1),
}
"""The smallest bars that are served over a duration in this unit."""
_SHORTEST_SECONDS, _LONGEST_OF_ONE_SECOND_BARS = 30, 2000
_UTC_END = re.compile(r"(\d{8})-(\d\d:\d\d:\d\d)")
_ZONED_END = re.compile(r"(?:(\d{8}) +)?(\d\d:\d\d:\d\d)(?: +(\S+))?")


def bar_size(name: str) -> BarSize:
    """Return the bar size of this name; raises Refusal 321 if there is none."""
    if name not in BAR_SIZES:
        legal = ", ".join(size.name for size in _ALL)
        raise not_valid(f"Historical data bar size setting is invalid. Legal ones are: {legal}")
    return BAR_SIZES[name]


def duration(text: str, size: BarSize) -> Duration:
    """Read a duration; raises Refusal 321, or 162 if it does not go with the bar size."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise not_valid("Historical data query duration is invalid: use integer{SPACE}unit (SDWMY)")
    count, unit = int(match[1]), match[2]
    longest, named, instead = _LONGEST[unit]
    if count > longest:
        raise not_valid(
            f"Historical data requests for durations longer than {named} must be made in {instead}."
        )
    if unit == "S" and count < _SHORTEST_SECONDS:
        raise not_valid(f"Historical data requests start at {_SHORTEST_SECONDS} seconds.")
    if unit == "S" and size.name == "1 secs" and count > _LONGEST_OF_ONE_SECOND_BARS:
        raise history("Time length exceed max.")
    if size.length < _SMALLEST_BARS.get(unit, timedelta()):
        raise history(f"invalid step: {int(size.length.total_seconds())}")
    return Duration(count, unit)


@dataclass(frozen=True, slots=True)
class End:
    """The end of a request."""

    instant: datetime
    """Aware, in UTC."""
    implied_zone: bool
    """Whether the request named no time zone, which deserves a warning."""


def end(text: str, now: datetime, zone: ZoneInfo) -> End:
    """Read where a request ends; raises Refusal 10314 if that cannot be read.

    Empty means now; without a time zone the instrument's is meant.
    """
    if not text:
        return End(now, implied_zone=False)
    if match := _UTC_END.fullmatch(text):
        return End(_instant(match[1], match[2], UTC), implied_zone=False)
    match = _ZONED_END.fullmatch(text)
    if match is None:
        raise bad_end()
    said = _zone(match[3]) if match[3] else zone
    date = match[1] or now.astimezone(said).strftime("%Y%m%d")
    return End(_instant(date, match[2], said), implied_zone=match[3] is None)


def _zone(name: str) -> ZoneInfo:
    if "/" not in name and name != "UTC":  # TWS refuses EST and GMT as well
        raise bad_end()
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise bad_end() from error


def _instant(date: str, time: str, zone: tzinfo) -> datetime:
    try:
        read = datetime.strptime(f"{date} {time}", "%Y%m%d %H:%M:%S").replace(tzinfo=zone)
        return read.astimezone(UTC)
    except (OverflowError, ValueError) as error:
        raise bad_end() from error
