from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd

from shared.training.holes import Hole, longest_hole

DAYS = pd.date_range("2010-01-04", "2012-12-28", freq="B", tz="UTC")


def without(*holes: tuple[str, str]) -> pd.DatetimeIndex:
    """Working days but for those from the first day of each hole until before its second."""
    times = DAYS
    for first, next_ in holes:
        times = times[
            (times < pd.Timestamp(first, tz="UTC")) | (times >= pd.Timestamp(next_, tz="UTC"))
        ]
    return times


def test_a_series_without_holes_has_none() -> None:
    assert longest_hole("A", "1d", DAYS) is None


def test_a_weekend_with_a_holiday_is_no_hole() -> None:
    assert longest_hole("A", "1d", without(("2010-12-23", "2010-12-28"))) is None


def test_of_several_holes_the_longest_is_told() -> None:
    times = without(("2010-03-01", "2010-03-15"), ("2011-06-01", "2011-12-01"))

    assert Hole(
        "A", "1d", datetime(2011, 6, 1, tzinfo=UTC), datetime(2011, 12, 1, tzinfo=UTC)
    ) == longest_hole("A", "1d", times)
