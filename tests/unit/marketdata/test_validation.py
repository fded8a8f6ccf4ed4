from __future__ import annotations

from math import inf, nan

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.marketdata.bars import COLUMNS, no_bars
from shared.marketdata.validation import ProblemKind, validate
from tests.unit.marketdata.frames import bars_at, daily, day, row


def frame_of(rows: list[tuple[int | None, list[float]]]) -> pd.DataFrame:
    """Bars by the number of their day, None for no time."""
    times = [pd.NaT if number is None else pd.Timestamp(day(number)) for number, _ in rows]
    return pd.DataFrame(
        [values for _, values in rows],
        columns=list(COLUMNS),
        index=pd.DatetimeIndex(times, tz="UTC", name="time"),
    )


def kinds_of(rows: list[tuple[int | None, list[float]]]) -> dict[str, int]:
    return {problem.kind.value: problem.count for problem in validate(frame_of(rows)).problems}


def test_good_bars_pass_as_they_are() -> None:
    bars = daily(0, 50)

    checked = validate(bars)

    assert ((), 0) == (checked.problems, checked.rejected)
    pd.testing.assert_frame_equal(bars, checked.frame)


def test_no_bars_have_no_problems() -> None:
    assert ((), 0) == (validate(no_bars()).problems, len(validate(no_bars()).frame))


def test_bars_out_of_order_are_sorted_and_reported() -> None:
    bars = daily(0, 4)

    checked = validate(bars.iloc[[0, 2, 1, 3]])

    pd.testing.assert_frame_equal(bars, checked.frame)
    assert [(ProblemKind.ORDER, 1)] == [(each.kind, each.count) for each in checked.problems]
    assert checked.problems[0].examples[0].startswith("2020-01-02 00:00 open ")
    assert 0 == checked.rejected


def test_of_bars_of_the_same_time_the_first_is_kept() -> None:
    checked = validate(frame_of([(0, row(close=1.5)), (0, row()), (0, row()), (1, row())]))

    assert [1.5, 3.0] == checked.frame["close"].tolist()
    assert ["duplicate"] == [problem.kind.value for problem in checked.problems]
    assert 2 == checked.rejected
    assert "2 rows left out, as an earlier row has the same time (" in str(checked.problems[0])


def test_a_bad_bar_does_not_keep_a_good_one_of_its_time_out() -> None:
    checked = validate(frame_of([(0, row(open=nan)), (0, row())]))

    assert [row()] == checked.frame.to_numpy().tolist()
    assert ["missing"] == [problem.kind.value for problem in checked.problems]


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_bar_with_a_missing_value_is_left_out(name: str, value: float) -> None:
    assert {"missing": 1} == kinds_of([(0, row()), (1, row(**{name: value}))])


def test_a_bar_without_a_time_is_left_out() -> None:
    checked = validate(frame_of([(None, row()), (0, row()), (None, row())]))

    assert ["missing"] == [problem.kind.value for problem in checked.problems]
    assert (2, 1) == (checked.rejected, len(checked.frame))
    assert "no time open 2 high 4 low 1 close 3 volume 10" == checked.problems[0].examples[0]


@pytest.mark.parametrize(
    "values",
    [
        {"high": 2.5},  # below close
        {"open": 4.5},
        {"low": 2.5},  # above open
        {"close": 0.5},
        {"high": 1.0, "low": 4.0},
    ],
)
def test_a_bar_whose_prices_contradict_each_other_is_left_out(values: dict[str, float]) -> None:
    assert {"ohlc": 1} == kinds_of([(0, row(**values)), (1, row())])


def test_a_bar_without_movement_or_volume_is_a_good_one() -> None:
    assert {} == kinds_of([(0, [2.0, 2.0, 2.0, 2.0, 0.0]), (1, [-1.0, 0.0, -2.0, -1.5, 5.0])])


def test_a_bar_with_negative_volume_is_left_out() -> None:
    assert {"volume": 1} == kinds_of([(0, row(volume=-1.0)), (1, row())])


def test_a_bar_with_several_defects_counts_once() -> None:
    checked = validate(frame_of([(0, row(volume=-1.0, high=0.0)), (1, row())]))

    assert {"ohlc", "volume"} == {problem.kind.value for problem in checked.problems}
    assert 1 == checked.rejected


def test_a_problem_names_its_first_rows() -> None:
    checked = validate(frame_of([(number, row(volume=-1.0)) for number in range(9)]))

    assert (9, 3) == (checked.problems[0].count, len(checked.problems[0].examples))


def test_a_frame_that_is_none_of_bars_is_refused() -> None:
    with pytest.raises(ValueError, match="need the columns"):
        validate(daily(0, 2).drop(columns="volume"))
    with pytest.raises(ValueError, match="times with a zone"):
        validate(daily(0, 2).tz_localize(None))
    with pytest.raises(ValueError, match="times with a zone"):
        validate(daily(0, 2).reset_index(drop=True))


VALUES = st.one_of(st.floats(-5, 5), st.sampled_from([nan, inf]))
ROWS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 8), st.none()),
        st.one_of(st.just(row()), st.lists(VALUES, min_size=5, max_size=5)),
    ),
    max_size=20,
)


@given(ROWS)
def test_what_is_kept_was_given_and_can_be_right(
    rows: list[tuple[int | None, list[float]]],
) -> None:
    given_rows = frame_of(rows)
    checked = validate(given_rows)
    kept = checked.frame

    assert len(rows) == len(kept) + checked.rejected
    assert kept.index.is_unique
    assert kept.index.is_monotonic_increasing
    assert np.isfinite(kept.to_numpy()).all()
    assert (kept["high"] >= kept[["open", "low", "close"]].max(axis=1)).all()
    assert (kept["low"] <= kept[["open", "high", "close"]].min(axis=1)).all()
    assert (kept["volume"] >= 0).all()
    there = {(time, *values) for time, *values in given_rows.itertuples()}
    assert all((time, *values) in there for time, *values in kept.itertuples())
    assert (0 == checked.rejected) or checked.problems


@given(ROWS)
def test_what_has_been_validated_is_valid(rows: list[tuple[int | None, list[float]]]) -> None:
    again = validate(validate(frame_of(rows)).frame)

    assert ((), 0) == (again.problems, again.rejected)


@given(st.permutations(range(8)))
def test_the_order_of_good_bars_does_not_matter(order: list[int]) -> None:
    bars = bars_at([day(number) for number in range(8)])

    pd.testing.assert_frame_equal(bars, validate(bars.iloc[order]).frame)
