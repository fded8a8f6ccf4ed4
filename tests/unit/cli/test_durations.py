import pytest
import typer

from backend.cli.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1_800),
        ("90s", 90),
        ("2h", 7_200),
        ("1h30m", 5_400),
        ("1d2h3m4s", 93_784),
        ("1H 30M", 5_400),
        ("0h1s", 1),
        ("366d", 366 * 86_400),
    ],
)
def test_numbers_with_units_add_up(text: str, seconds: float) -> None:
    assert seconds == parse_duration("--stale-after", text)


@pytest.mark.parametrize(
    "text", ["", " ", "m", "half an hour", "1.5h", "-5m", "30m1h", "5m5m", "30min", "1e3s", "٣m"]
)
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="for example 30m, 90s or 1h30m") as refused:
        parse_duration("--stale-after", text)
    assert "'--stale-after'" == refused.value.param_hint
    assert repr(text) in refused.value.message


@pytest.mark.parametrize(("text", "number"), [("30", "30"), ("007", "7"), ("0", "0")])
def test_a_number_without_a_unit_is_refused_with_both_that_may_be_meant(
    text: str, number: str
) -> None:
    with pytest.raises(typer.BadParameter, match=f"write {number}m for minutes, {number}s for"):
        parse_duration("--stale-after", text)


@pytest.mark.parametrize("text", ["0s", "0h0m", "367d", "999999999d"])
def test_nothing_at_all_and_more_than_a_year_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is out of range; write 1s to 366d"):
        parse_duration("--stale-after", text)
