from datetime import UTC, datetime

import pytest
import typer

from backend.cli.dates import Period, parse_period


def test_the_end_date_includes_that_day() -> None:
    expected = Period(datetime(2024, 1, 31, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))
    assert expected == parse_period("2024-01-31", "2024-02-29")


def test_a_single_day_is_a_period_of_one_day() -> None:
    expected = Period(datetime(2024, 1, 31, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC))
    assert expected == parse_period("2024-01-31", "2024-01-31")


def test_dates_left_out_leave_the_period_open() -> None:
    assert Period(None, None) == parse_period(None, None)


@pytest.mark.parametrize(
    "text", ["2023-02-29", "31.01.2024", "24-1-5", "tomorrow", "", "20240131", "9999-12-31"]
)
@pytest.mark.parametrize("option", ["--start-date", "--end-date"])
def test_what_is_no_day_is_refused_with_option_and_mend(option: str, text: str) -> None:
    start, end = (text, None) if option == "--start-date" else (None, text)
    with pytest.raises(typer.BadParameter, match="write it as YYYY-MM-DD") as refused:
        parse_period(start, end)
    assert f"'{option}'" == refused.value.param_hint


def test_dates_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="2024-01-30 is before --start-date 2024-01-31"):
        parse_period("2024-01-31", "2024-01-30")
