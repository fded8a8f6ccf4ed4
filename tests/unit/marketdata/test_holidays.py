from __future__ import annotations

from datetime import date, timedelta

import pytest

from shared.marketdata.holidays import early_closes, holidays
from shared.marketdata.sample import SampleBarSource


def test_a_year_has_the_days_the_exchange_published() -> None:
    """From the calendars of the New York Stock Exchange."""
    assert {
        date(2024, 1, 1),
        date(2024, 1, 15),
        date(2024, 2, 19),
        date(2024, 3, 29),
        date(2024, 5, 27),
        date(2024, 6, 19),
        date(2024, 7, 4),
        date(2024, 9, 2),
        date(2024, 11, 28),
        date(2024, 12, 25),
    } == holidays(2024)
    assert {date(2024, 7, 3), date(2024, 11, 29), date(2024, 12, 24)} == early_closes(2024)


def test_a_holiday_on_a_weekend_is_kept_on_the_weekday_beside_it() -> None:
    assert date(2021, 7, 5) in holidays(2021)  # the fourth was a Sunday
    assert date(2021, 12, 24) in holidays(2021)  # Christmas was a Saturday
    assert date(2023, 1, 2) in holidays(2023)  # New Year's Day was a Sunday


def test_a_new_year_on_a_saturday_is_not_made_up_for() -> None:
    assert not {date(2021, 12, 31), date(2022, 1, 1), date(2022, 1, 3)} & (
        holidays(2021) | holidays(2022)
    )


def test_a_day_without_trading_does_not_close_early() -> None:
    assert {date(2021, 11, 26)} == early_closes(2021)
    assert {date(2022, 11, 25)} == early_closes(2022)


@pytest.mark.parametrize(
    "easter",
    [
        date(2000, 4, 23),
        date(2008, 3, 23),
        date(2011, 4, 24),
        date(2018, 4, 1),
        date(2024, 3, 31),
        date(2025, 4, 20),
        date(2038, 4, 25),
        date(2049, 4, 18),
        date(2076, 4, 19),
    ],
)
def test_good_friday_is_two_days_before_easter(easter: date) -> None:
    fridays = {day for day in holidays(easter.year) if day.month in {3, 4}}

    assert {easter - timedelta(days=2)} == fridays


def test_columbus_and_veterans_day_are_trading_days() -> None:
    assert not {date(2023, 10, 9), date(2023, 11, 10)} & holidays(2023)


def test_juneteenth_and_king_day_are_days_off_since_they_were_made_so() -> None:
    assert date(2020, 6, 19) not in holidays(2020)
    assert date(2023, 6, 19) in holidays(2023)
    assert date(1997, 1, 20) not in holidays(1997)
    assert date(1998, 1, 19) in holidays(1998)


def test_thirteen_years_of_real_prices_have_a_bar_on_each_other_weekday() -> None:
    days = {time.date() for time in SampleBarSource().read("IBM", "1d", None, None).index}
    span = (min(days) + timedelta(days=n) for n in range((max(days) - min(days)).days + 1))

    expected = {day for day in span if day.weekday() < 5 and day not in holidays(day.year)}

    assert expected == days
