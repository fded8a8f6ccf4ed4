from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ib_host.requests import BAR_SIZES, bar_start, earliest, split
from ib_host.simulator.durations import bar_size, duration
from shared.marketdata.ranges import TimeRange
from shared.marketdata.timeframes import TIMEFRAMES

START = datetime(2012, 1, 1, tzinfo=UTC)
moments = st.datetimes(
    datetime(1990, 1, 1),  # noqa: DTZ001  # made aware below
    datetime(2026, 1, 1),  # noqa: DTZ001  # made aware below
    timezones=st.just(UTC),
)
UNITS = {"D": timedelta(days=1), "W": timedelta(weeks=1), "Y": timedelta(days=365)}


def reach(text: str) -> timedelta:
    """How far back a duration reaches at least: of n sessions the last may have just begun."""
    count, unit = text.split()
    return (int(count) - (unit == "D")) * UNITS[unit]


@given(st.sampled_from([*TIMEFRAMES]), moments, st.integers(1, 4 * 365 * 24 * 60))
def test_requests_cover_a_range_without_a_seam(
    timeframe: str, start: datetime, minutes: int
) -> None:
    span = min(timedelta(minutes=minutes), 40 * BAR_SIZES[timeframe].span)
    wanted = TimeRange(start, start + span)

    requests = list(split(wanted, timeframe))

    assert (wanted.start, wanted.end) == (requests[0].covered.start, requests[-1].covered.end)
    assert all(one.covered.end == other.covered.start for one, other in pairwise(requests))
    for request in requests:
        # A bar more on either side, so that IB sees the first and the last one whole.
        length = TIMEFRAMES[timeframe]
        assert request.end >= request.covered.end + length
        assert request.end - reach(request.duration) <= request.covered.start - length


@given(st.sampled_from([*TIMEFRAMES]), moments, st.integers(1, 10**6))
def test_ib_takes_every_request(timeframe: str, start: datetime, minutes: int) -> None:
    span = min(timedelta(minutes=minutes), 3 * BAR_SIZES[timeframe].span)
    for request in split(TimeRange(start, start + span), timeframe):
        size = bar_size(request.bar_size)
        assert timeframe == size.timeframe
        assert request.duration == "{0.count} {0.unit}".format(duration(request.duration, size))
        assert 0 == request.end.microsecond


@pytest.mark.parametrize(
    ("timeframe", "days", "durations"),
    [
        ("1m", 1, ["3 D"]),
        ("5m", 21, ["9 D", "9 D", "9 D"]),
        ("1h", 56, ["9 W"]),
        ("4h", 182, ["27 W"]),
        ("1d", 1, ["5 D"]),
        ("1d", 365, ["52 W", "12 D"]),
        ("1w", 365, ["2 Y"]),
    ],
)
def test_durations_are_as_short_as_may_be(timeframe: str, days: int, durations: list[str]) -> None:
    wanted = TimeRange(START, START + timedelta(days=days))
    assert durations == [request.duration for request in split(wanted, timeframe)]


def test_a_request_brings_a_few_thousand_bars_at_most() -> None:
    assert all(size.span / TIMEFRAMES[name] < 3000 for name, size in BAR_SIZES.items())


@pytest.mark.parametrize(
    ("timeframe", "expected"),
    [
        ("1m", datetime(2000, 3, 1, 14, 29, tzinfo=UTC)),
        ("1h", datetime(2000, 3, 1, 13, 30, tzinfo=UTC)),
        ("1d", datetime(2000, 3, 1, tzinfo=UTC)),
        ("1w", datetime(2000, 2, 28, tzinfo=UTC)),
    ],
)
def test_no_bar_starts_before_the_head_timestamp_allows(timeframe: str, expected: datetime) -> None:
    assert expected == earliest(datetime(2000, 3, 1, 14, 30, tzinfo=UTC), timeframe)


@pytest.mark.parametrize(
    ("dated", "timeframe", "expected"),
    [
        (datetime(2012, 4, 5, 14, 30, tzinfo=UTC), "5m", datetime(2012, 4, 5, 14, 30, tzinfo=UTC)),
        (date(2012, 4, 5), "1d", datetime(2012, 4, 5, tzinfo=UTC)),
        (date(2012, 4, 5), "1w", datetime(2012, 4, 2, tzinfo=UTC)),
        (date(2012, 4, 2), "1w", datetime(2012, 4, 2, tzinfo=UTC)),
    ],
)
def test_bars_start_when_ib_says_by_its_own_way_of_dating(
    dated: date, timeframe: str, expected: datetime
) -> None:
    assert expected == bar_start(dated, timeframe)


@pytest.mark.parametrize("dated", [date(2012, 4, 5), datetime(2012, 4, 5)])  # noqa: DTZ001  # the point
def test_an_intraday_bar_without_an_instant_makes_no_sense(dated: date) -> None:
    with pytest.raises(ValueError, match=r"IB dated a bar of 5m 2012-04-05.*without"):
        bar_start(dated, "5m")
