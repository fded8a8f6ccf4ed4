from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.marketdata.gaps import THRESHOLDS, GapClass, find_gaps
from shared.marketdata.holidays import early_closes, holidays
from shared.marketdata.sample import SampleBarSource
from shared.marketdata.timeframes import TIMEFRAMES

EXPLAINED = {GapClass.WEEKEND, GapClass.HOLIDAY, GapClass.TRADING_HOURS}
SAMPLE = SampleBarSource()


def sessions(first: str, last: str, timeframe: str) -> pd.DatetimeIndex:
    """The bars of a stock from 9:30 to 16:00 in New York, 13:00 on short days."""
    parts = []
    for session in pd.bdate_range(first, last):
        day = session.date()
        if day not in holidays(day.year):
            close = "13:00" if day in early_closes(day.year) else "16:00"
            parts.append(
                pd.date_range(
                    f"{day} 09:30",
                    f"{day} {close}",
                    freq=TIMEFRAMES[timeframe],
                    inclusive="left",
                    tz="America/New_York",
                )
            )
    return pd.DatetimeIndex(parts[0].append(parts[1:])).tz_convert("UTC")


def without(times: pd.DatetimeIndex, first: str, last: str) -> pd.DatetimeIndex:
    """The times but those in [first, last), in New York."""
    local = times.tz_convert("America/New_York")
    start, end = (pd.Timestamp(text, tz="America/New_York") for text in (first, last))
    return times[(local < start) | (local >= end)]


def unexplained(times: pd.DatetimeIndex, timeframe: str) -> list[tuple[str, str, str]]:
    """Gaps no calendar explains, in New York: start, end, class."""
    return [
        (
            f"{pd.Timestamp(gap.start).tz_convert('America/New_York'):%Y-%m-%d %H:%M}",
            f"{pd.Timestamp(gap.end).tz_convert('America/New_York'):%Y-%m-%d %H:%M}",
            gap.gap_class.value,
        )
        for gap in find_gaps(times, timeframe)
        if not gap.gap_class.explained
    ]


def test_the_classes_a_calendar_explains() -> None:
    assert EXPLAINED == {each for each in GapClass if each.explained}


def test_no_bars_and_one_bar_have_no_gaps() -> None:
    assert [] == find_gaps(pd.DatetimeIndex([], tz="UTC"), "1d")
    assert [] == find_gaps(pd.DatetimeIndex(["2024-01-02"], tz="UTC"), "1d")


@pytest.mark.parametrize("series", SAMPLE.series(), ids="_".join)
def test_a_calendar_explains_every_gap_in_thirteen_years_of_real_prices(
    series: tuple[str, str],
) -> None:
    bars = SAMPLE.read(*series, None, None)

    assert {gap.gap_class for gap in find_gaps(pd.DatetimeIndex(bars.index), series[1])} <= {
        GapClass.WEEKEND,
        GapClass.HOLIDAY,
    }


@pytest.mark.parametrize(
    ("missing", "gap_class"),
    [
        (["2024-03-06"], GapClass.UNEXPECTED),
        (["2024-03-08"], GapClass.UNEXPECTED),  # a Friday: the weekend does not explain it
        (["2024-03-06", "2024-03-07", "2024-03-08"], GapClass.UNEXPECTED),
        (["2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08"], GapClass.MARKET_CLOSURE),
        ([], None),
    ],
)
def test_a_weekday_without_a_bar_is_a_gap(missing: list[str], gap_class: GapClass | None) -> None:
    days = pd.bdate_range("2024-03-01", "2024-03-28", tz="UTC").as_unit("us")
    left = days[~days.isin(pd.DatetimeIndex(missing, tz="UTC"))]

    gaps = [gap for gap in find_gaps(left, "1d") if not gap.gap_class.explained]

    assert ([gap_class] if gap_class else []) == [gap.gap_class for gap in gaps]
    assert missing[:1] == [f"{gap.start:%Y-%m-%d}" for gap in gaps]


def test_a_gap_runs_from_the_first_missing_bar_to_the_next_there_is() -> None:
    (gap,) = find_gaps(pd.DatetimeIndex(["2024-03-01", "2024-03-04"], tz="UTC"), "1d")

    assert (datetime(2024, 3, 2, tzinfo=UTC), datetime(2024, 3, 4, tzinfo=UTC)) == (
        gap.start,
        gap.end,
    )
    assert GapClass.WEEKEND == gap.gap_class


def test_a_weekend_is_a_gap_where_weekends_are_traded() -> None:
    days = pd.date_range("2024-01-01", "2024-03-31", tz="UTC")
    missing = days.isin(pd.DatetimeIndex(["2024-02-10", "2024-02-11"], tz="UTC"))

    (gap,) = find_gaps(days[~missing], "1d")

    assert GapClass.UNEXPECTED == gap.gap_class


def test_a_missing_week_is_a_gap() -> None:
    weeks = pd.date_range("2024-01-01", periods=20, freq="W-MON", tz="UTC")

    gaps = find_gaps(weeks.delete([5, 9, 10]), "1w")

    assert [GapClass.MARKET_CLOSURE] * 2 == [gap.gap_class for gap in gaps]
    assert [weeks[5], weeks[9]] == [gap.start for gap in gaps]


@pytest.mark.parametrize("timeframe", ["1m", "5m", "15m", "30m", "1h"])
def test_nights_weekends_holidays_and_short_days_explain_the_gaps_between_sessions(
    timeframe: str,
) -> None:
    """Over a year of 252 sessions, through both changes of the clock."""
    gaps = find_gaps(sessions("2024-01-02", "2024-12-31", timeframe), timeframe)

    assert {"TRADING_HOURS": 195, "WEEKEND": 46, "HOLIDAY": 10} == Counter(
        gap.gap_class.value for gap in gaps
    )


def test_a_hole_within_a_session_is_a_gap() -> None:
    times = sessions("2024-03-01", "2024-04-30", "5m")
    times = without(times, "2024-03-20 11:00", "2024-03-20 12:00")

    assert [("2024-03-20 11:00", "2024-03-20 12:00", "UNEXPECTED")] == unexplained(times, "5m")


def test_a_session_without_bars_is_a_gap_for_every_length_of_bar() -> None:
    for timeframe in ("1m", "5m", "15m", "30m", "1h", "4h"):
        times = without(sessions("2024-02-01", "2024-04-30", timeframe), "2024-03-20", "2024-03-21")

        ((start, end, gap_class),) = unexplained(times, timeframe)

        assert ("2024-03-21 09:30", "UNEXPECTED") == (end, gap_class)
        assert start.startswith("2024-03-19 1")


def test_most_of_a_session_missing_at_its_end_is_a_gap() -> None:
    times = without(sessions("2024-02-01", "2024-04-30", "5m"), "2024-03-20 12:00", "2024-03-21")

    assert [("2024-03-20 12:00", "2024-03-21 09:30", "UNEXPECTED")] == unexplained(times, "5m")


def test_a_few_bars_missing_where_a_session_ends_are_no_gap() -> None:
    times = without(sessions("2024-02-01", "2024-04-30", "1m"), "2024-03-20 15:58", "2024-03-21")

    assert [] == unexplained(times, "1m")


def test_even_one_week_of_bars_shows_what_is_usual() -> None:
    times = sessions("2024-03-04", "2024-03-08", "1h")
    times = without(times, "2024-03-06 11:00", "2024-03-06 15:00")

    assert 1 == len(unexplained(times, "1h"))


def test_months_without_bars_are_a_market_closure() -> None:
    times = without(sessions("2024-01-02", "2024-06-28", "1h"), "2024-02-01", "2024-05-01")

    assert ["MARKET_CLOSURE"] == [gap_class for _, _, gap_class in unexplained(times, "1h")]


def test_around_the_clock_from_sunday_to_friday_is_explained() -> None:
    """As currencies are traded: from Sunday 17:00 to Friday 17:00 in New York."""
    hours = pd.date_range("2024-01-07", "2024-06-29", freq="h", tz="America/New_York")
    week = hours.day_of_week * 24 + hours.hour
    traded = (week < 4 * 24 + 17) | (week >= 6 * 24 + 17)

    gaps = find_gaps(hours[traded].tz_convert("UTC"), "1h")

    assert 24 == len(gaps)
    assert {gap.gap_class for gap in gaps} <= {GapClass.WEEKEND, GapClass.HOLIDAY}


@given(
    st.sampled_from(list(TIMEFRAMES)),
    st.lists(st.integers(1, 400), min_size=1, max_size=40),
    st.integers(0, 10**6),
)
def test_every_gap_is_a_stretch_without_bars_as_long_as_it_must_be(
    timeframe: str, steps: list[int], start: int
) -> None:
    length = TIMEFRAMES[timeframe]
    origin = datetime(2015, 1, 1, tzinfo=UTC) + timedelta(minutes=start)
    times = [origin]
    for step in steps:
        times.append(times[-1] + step * length)

    gaps = find_gaps(pd.DatetimeIndex(times), timeframe)

    wide = [
        (one + length, other)
        for one, other in pairwise(times)
        if other - one > length and other - one >= THRESHOLDS[timeframe]
    ]
    assert wide == [(gap.start, gap.end) for gap in gaps]
