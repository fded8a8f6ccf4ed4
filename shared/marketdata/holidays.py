"""The days on which the exchanges of the United States do not trade, by rule.

The rules are those of the New York Stock Exchange (its Rule 7.2 and its list of
special closings). They are not those of federal holidays: Good Friday is one,
Columbus and Veterans Day are not, and a New Year's Day on a Saturday is not made
up for. Exact from 1998 on; earlier years had days of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache

_MONDAY, _THURSDAY, _SATURDAY, _SUNDAY = 0, 3, 5, 6
_DAY = timedelta(days=1)

_SPECIAL_CLOSINGS = frozenset(
    {
        *(date(2001, 9, day) for day in (11, 12, 13, 14)),  # the attacks of that day
        date(2004, 6, 11),  # mourning for presidents, as are the next three
        date(2007, 1, 2),
        date(2018, 12, 5),
        date(2025, 1, 9),
        *(date(2012, 10, day) for day in (29, 30)),  # hurricane Sandy
    }
)


@cache
def holidays(year: int) -> frozenset[date]:
    """Return the weekdays of a year without trading."""
    special = {day for day in _SPECIAL_CLOSINGS if day.year == year}
    return frozenset({*_holidays(year), *special})


@cache
def early_closes(year: int) -> frozenset[date]:
    """Return the days of a year on which trading ends at 13:00 in New York."""
    days = {
        _nth(year, 11, _THURSDAY, 4) + _DAY,
        date(year, 12, 24),
        date(year, 7, 3),
    }
    closed = holidays(year)
    return frozenset(day for day in days if day.weekday() < _SATURDAY and day not in closed)


def _holidays(year: int) -> Iterator[date]:
    new_year = date(year, 1, 1)
    if new_year.weekday() != _SATURDAY:
        yield _observed(new_year)
    if year >= 1998:
        yield _nth(year, 1, _MONDAY, 3)  # Martin Luther King, Jr. Day
    yield _nth(year, 2, _MONDAY, 3)  # Washington's Birthday
    yield _easter(year) - 2 * _DAY  # Good Friday
    yield _nth(year, 6, _MONDAY, 1) - 7 * _DAY  # Memorial Day, the last Monday of May
    if year >= 2022:
        yield _observed(date(year, 6, 19))  # Juneteenth
    yield _observed(date(year, 7, 4))  # Independence Day
    yield _nth(year, 9, _MONDAY, 1)  # Labor Day
    yield _nth(year, 11, _THURSDAY, 4)  # Thanksgiving
    yield _observed(date(year, 12, 25))  # Christmas


def _observed(day: date) -> date:
    """The weekday on which a holiday of a fixed date is kept."""
    if day.weekday() == _SATURDAY:
        return day - _DAY
    return day + _DAY if day.weekday() == _SUNDAY else day


def _nth(year: int, month: int, weekday: int, count: int) -> date:
    """The first, second, … of a weekday in a month."""
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (count - 1))


def _easter(year: int) -> date:
    """Easter Sunday by the anonymous Gregorian algorithm (Meeus, Jones, Butcher)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)
