from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ib_host.simulator.history import History
from ib_host.simulator.protocol import BarsRequest, ContractQuery, HeadRequest
from ib_host.simulator.refusals import Refusal
from ib_host.simulator.source import BarSourceHistory, FrameHistory
from shared.marketdata.sample import SampleBarSource
from tests.support.clock import FakeClock
from tests.unit.ib_host.simulator.wire import intraday, made_bars, market_hours

CONTRACT = ContractQuery(0, "IBM", "STK", "SMART", "", "USD", "")
EURO = ContractQuery(0, "EUR", "CASH", "IDEALPRO", "", "USD", "")
ASKED = BarsRequest(
    7, CONTRACT, "20130301-23:00:00", "1 day", "5 D", True, "TRADES", 2, keeps_up=False
)
HEAD = HeadRequest(7, CONTRACT, "TRADES", regular_hours=True, date_format=2)
WEEK = pd.bdate_range("2013-02-25", "2013-03-01")


@pytest.fixture(scope="module")
def sample() -> History:
    return History(BarSourceHistory(SampleBarSource()), FakeClock())


def of(**frames: pd.DataFrame) -> History:
    """A history of IBM, by timeframes such as m5 or h1."""
    series = {("IBM", f"{name[1:]}{name[0]}"): frame for name, frame in frames.items()}
    return History(FrameHistory(series), FakeClock())


def dates(history: History, **asked: Any) -> list[str]:
    return [*history.bars(replace(ASKED, **asked)).dates]


def instants(history: History, **asked: Any) -> list[str]:
    """The bars' instants as month-day hour:minute, UTC."""
    seconds = [int(text) for text in dates(history, **asked)]
    return [f"{datetime.fromtimestamp(second, UTC):%m-%d %H:%M}" for second in seconds]


def refused(code: int, text: str) -> Any:
    return pytest.raises(Refusal, check=lambda error: error.code == code and text in error.text)


# ------------------------------------------------------------------------ daily bars


def test_bars_are_those_of_the_source(sample: History) -> None:
    answer = sample.bars(replace(ASKED, end="20130302-00:00:00", duration="1 Y"))

    year = datetime(2012, 3, 2, tzinfo=UTC), datetime(2013, 3, 2, tzinfo=UTC)
    expected = SampleBarSource().read("IBM", "1d", *year)
    pd.testing.assert_frame_equal(expected, answer.frame)
    assert [f"{day:%Y%m%d}" for day in expected.index] == [*answer.dates]


def test_days_are_counted_as_sessions(sample: History) -> None:
    eight = dates(sample, duration="8 D")

    assert ["20130220", "20130221", "20130222", "20130225"] == eight[:4]
    assert ["20130226", "20130227", "20130228", "20130301"] == eight[4:]


def test_days_may_begin_before_the_stated_start(sample: History) -> None:
    answer = sample.bars(replace(ASKED, duration="8 D"))

    assert datetime(2013, 2, 21, 23, tzinfo=UTC) == answer.start
    assert "20130220" == answer.dates[0]


def test_holidays_are_no_sessions(sample: History) -> None:
    assert ["20130215", "20130219"] == dates(sample, end="20130220-00:00:00", duration="2 D")


def test_past_the_data_every_weekday_is_a_session(sample: History) -> None:
    assert ["20130301"] == dates(sample, end="20130306-00:00:00", duration="3 D")
    with refused(162, "HMDS query returned no data: IBM@SMART Trades"):
        dates(sample, end="20130306-00:00:00", duration="2 D")


def test_a_day_belongs_to_the_past_once_its_session_has_begun(sample: History) -> None:
    assert ["20130301"] == dates(sample, end="20130301-14:31:00", duration="1 D")
    assert ["20130228"] == dates(sample, end="20130301-14:30:00", duration="1 D")
    assert ["20130301"] == dates(
        sample, end="20130301-14:30:00", duration="1 D", regular_hours=False
    )


@pytest.mark.parametrize(
    ("duration", "first", "count"),
    [("1 W", "20130225", 5), ("1 M", "20130204", 19), ("1 Y", "20120302", 250)],
)
def test_weeks_months_and_years_are_those_of_the_calendar(
    sample: History, duration: str, first: str, count: int
) -> None:
    found = dates(sample, duration=duration)

    assert (first, "20130301") == (found[0], found[-1])
    assert count == len(found)


def test_requests_end_to_end_have_every_bar_once(sample: History) -> None:
    first = dates(sample, end="20120101-00:00:00", duration="1 Y")
    second = dates(sample, end="20130101-00:00:00", duration="1 Y")

    expected = SampleBarSource().read(
        "IBM", "1d", datetime(2011, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)
    )
    assert [f"{day:%Y%m%d}" for day in expected.index] == first + second


# ----------------------------------------------------------------------- longer bars


def test_a_week_has_the_date_of_its_last_session(sample: History) -> None:
    found = dates(sample, bar_size="1W", end="20120407-00:00:00", duration="2 W")

    assert ["20120330", "20120405"] == found  # Good Friday was the sixth


def test_without_days_a_week_ends_on_friday() -> None:
    weeks = made_bars(pd.date_range("2013-02-04", periods=4, freq="7D", tz="UTC"))

    assert ["20130222", "20130301"] == dates(of(w1=weeks), bar_size="1 week", duration="2 W")


def test_months_are_served_if_the_source_has_them() -> None:
    months = made_bars(pd.date_range("2012-11-01", periods=4, freq="MS", tz="UTC"))
    history = History(FrameHistory({("IBM", "1mo"): months}), FakeClock())

    assert ["20121231", "20130131", "20130228"] == dates(
        history, bar_size="1M", duration="3 M", end="20130228-23:00:00"
    )


# --------------------------------------------------------------------- intraday bars


def test_intraday_bars_have_their_instant() -> None:
    bars = market_hours(WEEK, "1h")

    found = instants(of(h1=bars), bar_size="1 hour", duration="1 D")

    assert ["03-01 14:30", "03-01 15:30"] == found[:2]
    assert 7 == len(found)


def test_days_of_intraday_bars_are_whole_sessions() -> None:
    history = of(m5=market_hours(WEEK, "5min"))

    found = instants(history, bar_size="5 mins", duration="2 D", end="20130301-16:00:00")

    assert ("02-28 14:30", "03-01 15:55") == (found[0], found[-1])
    assert 78 + 18 == len(found)


def test_other_durations_are_spans_of_time() -> None:
    history = of(m5=market_hours(WEEK, "5min"))

    found = instants(history, bar_size="5 mins", duration="1800 S", end="20130301-16:00:00")

    assert ["03-01 15:30", "03-01 15:55"] == [found[0], found[-1]]
    assert 6 == len(found)


def test_regular_hours_leave_out_what_begins_outside() -> None:
    history = of(h1=intraday(datetime(2013, 2, 28, tzinfo=UTC), 48, "30min"))
    asked: dict[str, Any] = {"bar_size": "1 hour", "end": "20130301-00:00:00", "duration": "1 D"}

    regular = instants(history, **asked)
    everything = instants(history, **asked, regular_hours=False)

    assert ("02-28 14:30", "02-28 20:30") == (regular[0], regular[-1])
    assert ("02-28 09:00", "02-28 23:30") == (everything[0], everything[-1])


def test_regular_hours_follow_summer_time() -> None:
    around = intraday(
        datetime(2013, 3, 8, tzinfo=UTC), 4 * 48, "30min"
    )  # clocks change on the tenth

    found = instants(of(m30=around), bar_size="30 mins", end="20130312-00:00:00", duration="2 D")

    assert ["03-08 14:30", "03-11 13:30"] == [found[0], found[13]]


def test_dates_can_be_texts_in_the_markets_time() -> None:
    history = of(m5=market_hours(WEEK, "5min"))

    found = dates(history, bar_size="5 mins", duration="1 D", date_format=1)

    assert "20130301 09:30:00 US/Eastern" == found[0]


def test_currencies_trade_from_the_evening_before() -> None:
    series = {("EURUSD", "1h"): intraday(datetime(2013, 2, 27, 0, 15, tzinfo=UTC), 72, "1h")}
    history = History(FrameHistory(series), FakeClock())

    found = instants(
        history, contract=EURO, what="MIDPOINT", bar_size="1 hour", duration="1 D"
    )  # 23:00 UTC is 18:00 in New York: the session of the next day

    assert ["03-01 22:15"] == found


def test_what_the_source_does_not_have_is_no_data(sample: History) -> None:
    for field, value in (
        ("bar_size", "5 mins"),
        ("what", "MIDPOINT"),
        ("what", "ADJUSTED_LAST"),
        ("end", "19990101-00:00:00"),
    ):
        with refused(162, "HMDS query returned no data: IBM@SMART"):
            dates(sample, **{field: value})


def test_small_bars_are_kept_for_half_a_year() -> None:
    today = FakeClock().now()
    bars = intraday(today - timedelta(days=300), 300, "1D")
    history = of(s30=bars)
    asked: dict[str, Any] = {"bar_size": "30 secs", "duration": "10 D", "regular_hours": False}

    assert dates(history, **asked, end=f"{today - timedelta(days=150):%Y%m%d-%H:%M:%S}")
    with refused(162, "no data"):
        dates(history, **asked, end=f"{today - timedelta(days=200):%Y%m%d-%H:%M:%S}")


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        ({"what": "PRICES"}, 321, "What to show field is missing or incorrect."),
        ({"date_format": 0}, 321, "Date formatting selection of 0 rejected"),
        ({"keeps_up": True}, 321, "keepUpToDate"),
        ({"end": "tomorrow"}, 10314, "End Date/Time"),
        ({"contract": replace(CONTRACT, symbol="XYZ")}, 200, "No security definition"),
        ({"contract": replace(CONTRACT, exchange="")}, 321, "enter exchange"),
    ],
)
def test_a_request_that_is_wrong_is_refused(
    sample: History, asked: dict[str, Any], code: int, text: str
) -> None:
    with refused(code, text):
        dates(sample, **asked)


def test_trades_of_currencies_are_refused_with_what_there_is() -> None:
    series = {("EURUSD", "1h"): intraday(datetime(2013, 2, 27, tzinfo=UTC), 72, "1h")}

    with refused(10299, "Expected what to show is MIDPOINT"):
        dates(History(FrameHistory(series), FakeClock()), contract=EURO, bar_size="1 hour")


def test_without_a_time_zone_the_markets_is_meant_and_a_warning_deserved(sample: History) -> None:
    answer = sample.bars(replace(ASKED, end="20130301 18:00:00"))

    assert (datetime(2013, 3, 1, 23, tzinfo=UTC), True) == (answer.end, answer.implied_zone)


# ------------------------------------------------------------------- head timestamps


def test_the_head_is_the_begin_of_the_first_session(sample: History) -> None:
    assert datetime(2000, 3, 1, 14, 30, tzinfo=UTC) == sample.head(HEAD)
    assert datetime(2000, 3, 1, 9, tzinfo=UTC) == sample.head(replace(HEAD, regular_hours=False))


def test_the_head_is_that_of_the_longest_series() -> None:
    days = made_bars(pd.date_range("2013-02-25", periods=5, tz="UTC"))
    history = of(m5=market_hours(WEEK[2:], "5min"), d1=days)

    assert datetime(2013, 2, 25, 14, 30, tzinfo=UTC) == history.head(HEAD)


def test_without_data_there_is_no_head(sample: History) -> None:
    with refused(162, "No head time stamp"):
        sample.head(replace(HEAD, what="BID"))
    with refused(200, "No security definition"):
        sample.head(replace(HEAD, contract=replace(CONTRACT, symbol="XYZ")))


def test_a_night_series_has_no_head_in_regular_hours() -> None:
    night = of(h1=intraday(datetime(2013, 3, 1, tzinfo=UTC), 5, "1h"))

    with refused(162, "No head time stamp"):
        night.head(HEAD)
    assert datetime(2013, 3, 1, tzinfo=UTC) == night.head(replace(HEAD, regular_hours=False))


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    bars = market_hours(WEEK, "5min")
    history = of(m5=bars)
    first = history.bars(replace(ASKED, bar_size="5 mins", duration="5 D"))
    history.bars(replace(ASKED, bar_size="5 mins", duration="1 D", regular_hours=False))

    again = history.bars(replace(ASKED, bar_size="5 mins", duration="5 D"))

    pd.testing.assert_frame_equal(bars, first.frame)
    pd.testing.assert_frame_equal(bars, again.frame)
    assert np.array_equal(first.dates, again.dates)
    assert date(2013, 3, 1) == again.end.date()
