from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.marketdata.ranges import TimeRange, before, subtract, union
from tests.unit.marketdata.frames import day, days

DAYS = 40


@st.composite
def a_range(draw: st.DrawFn) -> TimeRange:
    """A range of whole days, so that every day is in it or not."""
    first = draw(st.integers(0, DAYS - 1))
    return days(first, draw(st.integers(first + 1, DAYS)))


def members(*ranges: TimeRange) -> set[int]:
    """The days that lie in any of the ranges."""
    return {
        number for number in range(DAYS) for part in ranges if part.start <= day(number) < part.end
    }


@given(st.lists(a_range()))
def test_a_union_is_the_same_time_in_ranges_apart_from_each_other(parts: list[TimeRange]) -> None:
    joined = union(parts)

    assert members(*parts) == members(*joined)
    assert all(one.end < other.start for one, other in pairwise(joined))
    assert joined == union(joined)


@given(a_range(), st.lists(a_range()))
def test_what_is_missing_and_what_is_covered_make_up_what_is_wanted(
    wanted: TimeRange, covered: list[TimeRange]
) -> None:
    missing = subtract(wanted, covered)

    assert members(wanted) - members(*covered) == members(*missing)
    assert all(one.end < other.start for one, other in pairwise(missing))
    assert () == subtract(wanted, [*covered, *missing])


@given(a_range(), a_range())
def test_a_range_contains_another_if_it_has_all_of_it(one: TimeRange, other: TimeRange) -> None:
    assert (members(other) <= members(one)) == one.contains(other)


def test_ranges_that_touch_are_one() -> None:
    assert (days(0, 3),) == union([days(1, 3), days(0, 1)])


def test_times_of_other_zones_become_utc() -> None:
    east = timezone(timedelta(hours=2))

    part = TimeRange(datetime(2020, 1, 1, 2, tzinfo=east), datetime(2020, 1, 2, tzinfo=UTC))

    assert (days(0, 1), UTC) == (part, part.start.tzinfo)
    assert "2020-01-01 00:00 to 2020-01-02 00:00" == str(part)


@pytest.mark.parametrize(
    ("start", "end", "fault"),
    [
        (day(1), day(1), "ends after its start"),
        (day(2), day(1), "ends after its start"),
        (datetime(2020, 1, 1), day(1), "aware"),  # noqa: DTZ001  # that is what is wrong
        (day(1), datetime(2020, 1, 3), "aware"),  # noqa: DTZ001
    ],
)
def test_an_empty_or_naive_range_is_refused(start: datetime, end: datetime, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        TimeRange(start, end)


@given(st.lists(a_range()), st.integers(0, DAYS))
def test_what_lies_before_a_time_is_nothing_after_it(parts: list[TimeRange], end: int) -> None:
    kept = before(parts, day(end))

    assert members(*parts) & set(range(end)) == members(*kept)
