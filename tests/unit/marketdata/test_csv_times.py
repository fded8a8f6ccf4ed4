from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.marketdata.csv_times import TimesUnclearError, times_of

MOMENT = "2012-01-31 14:30:00"


def read(*texts: str, days: bool = False) -> list[str]:
    """What texts are read as; "" for no time."""
    times = times_of(pd.Series(texts, dtype="str"), days=days)
    assert "UTC" == str(times.tz)
    shown: list[str] = times.strftime("%Y-%m-%d %H:%M:%S").fillna("").tolist()
    return shown


@pytest.mark.parametrize(
    "text",
    [
        "2012-01-31T14:30:00Z",
        "2012-01-31 14:30:00",
        "2012-01-31 14:30",
        "2012-01-31 14:30:00 UTC",
        "2012-01-31T09:30:00-05:00",
        "2012-01-31T15:30:00.000+01:00",
        " 2012-01-31 14:30 ",
        "20120131 14:30:00",
        "20120131 143000",
        "201201311430",
        "20120131143000",
        "2012/01/31 14:30",
        "2012.01.31 14:30",
        "31.01.2012 14:30:00.000",
        "31 Jan 2012 14:30",
        "01/31/2012 14:30",
        "31/01/2012 14:30",
        "31-01-2012 14:30",
        "31-Jan-2012 14:30",
        "Jan 31, 2012 14:30",
        "1328020200",
        "1328020200000",
        "1328020200000000",
    ],
)
def test_a_time_is_read_in_any_common_way_of_writing(text: str) -> None:
    assert [MOMENT] == read(text)


@pytest.mark.parametrize(
    "text",
    [
        "2012-01-31",
        "20120131",
        "31.01.2012",
        "2012-01-31T00:00:00-05:00",
        "2012-01-31T00:00:00+09:00",  # in UTC it is the day before
        "2012-01-31 16:00:00",
        "1328020200",
    ],
)
def test_a_day_is_the_date_as_written(text: str) -> None:
    assert ["2012-01-31 00:00:00"] == read(text, days=True)


def test_days_and_months_are_told_apart_by_all_texts() -> None:
    assert ["2012-02-03 00:00:00", "2012-02-14 00:00:00"] == read("02/03/2012", "02/14/2012")
    assert ["2012-03-02 00:00:00", "2012-02-14 00:00:00"] == read("02/03/2012", "14/02/2012")


def test_days_that_may_be_months_are_refused() -> None:
    with pytest.raises(TimesUnclearError, match="which the month; write dates as") as raised:
        read("", "02/03/2012", "05/06/2012")
    assert 1 == raised.value.place


def test_a_date_that_reads_the_same_either_way_is_clear() -> None:
    assert ["2012-02-02 00:00:00"] == read("02/02/2012")


def test_an_empty_text_is_no_time() -> None:
    assert ["", "2012-01-31 00:00:00", ""] == read("", "2012-01-31", " ")
    assert [""] == read("")
    assert [] == read()


@pytest.mark.parametrize(
    ("texts", "place"),
    [
        (("yesterday",), 0),
        (("2012-01-31", "2012-02-30"), 1),
        (("2012-01-31", "01.02.2012"), 1),
        (("01.02.2012", "02.02.2012", "2012-02-03"), 2),
        (("20120131", "20120140"), 1),
        (("1328020200", "x"), 1),
        (("123",), 0),
    ],
)
def test_a_text_that_is_no_time_is_named_with_its_place(texts: tuple[str, ...], place: int) -> None:
    with pytest.raises(TimesUnclearError, match="is no time, or is written") as raised:
        read(*texts)
    assert place == raised.value.place


@pytest.mark.parametrize("odd", ["-1", "9999-12-31"])
def test_a_time_in_a_year_that_no_bar_can_have_is_named_with_its_place(odd: str) -> None:
    with pytest.raises(TimesUnclearError, match="before the year 1 or after 9998") as raised:
        read("2012-01-31", odd)
    assert 1 == raised.value.place


def test_parts_of_a_microsecond_are_left_out() -> None:
    (time,) = times_of(pd.Series(["2012-01-31T00:00:00.123456789Z"]), days=False)
    assert (123_456, 0) == (time.microsecond, time.nanosecond)


@given(
    st.lists(
        st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)),  # noqa: DTZ001  # as written
        min_size=1,
        max_size=10,
    )
)
def test_what_is_written_in_iso_is_read_back(moments: list[datetime]) -> None:
    texts = pd.Series([moment.isoformat() for moment in moments], dtype="str")

    assert [moment.replace(tzinfo=UTC) for moment in moments] == list(times_of(texts, days=False))
