from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from shared.training.features import (
    align,
    feature_names,
    fuzzy_memberships,
    lagged,
    price_context,
)
from shared.training.strategy import Strategy

Small = Callable[..., Strategy]


def test_names_go_by_timeframe_lag_indicator_and_set(small: Small) -> None:
    strategy = small({"model.features": "{lookback_periods: 1, include_price_context: true}"})

    names = feature_names(strategy, ["1w", "1d"])

    one = [
        "rsi_14_oversold",
        "rsi_14_neutral",
        "rsi_14_overbought",
        "price_return",
        "price_range",
        "price_place",
    ]
    day = [f"1d_{name}" for name in one] + [f"1d_{name}_lag1" for name in one]
    assert day + [name.replace("1d_", "1w_") for name in day] == names


def test_memberships_are_named_by_timeframe_indicator_and_set(small: Small) -> None:
    values = pd.Series([np.nan, 20.0, 32.5])

    grades = fuzzy_memberships(small(), "1d", "rsi_14", "oversold", values)

    assert "1d_rsi_14_oversold" == grades.name
    assert [pytest.approx(1.0), pytest.approx(0.5)] == grades.tolist()[1:]
    assert np.isnan(grades.iloc[0])


def test_lags_are_the_bars_before() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})

    table = lagged(frame, 2)

    assert ["a", "a_lag1", "a_lag2"] == list(table.columns)
    assert [3.0, 2.0, 1.0] == table.iloc[2].tolist()
    assert table.iloc[1].isna().tolist() == [False, False, True]


def test_the_price_context_is_relative() -> None:
    bars = pd.DataFrame(
        {"high": [10.0, 12.0, 5.0], "low": [10.0, 8.0, 5.0], "close": [10.0, 11.0, 5.0]}
    )

    context = price_context("1d", bars)

    assert ["1d_price_return", "1d_price_range", "1d_price_place"] == list(context.columns)
    assert [pytest.approx(np.log(1.1)), pytest.approx(4 / 11), 0.75] == context.iloc[1].tolist()
    assert 0.5 == context["1d_price_place"].iloc[2]  # a bar without a range
    assert np.isnan(context["1d_price_return"].iloc[0])


def test_a_week_is_known_only_from_the_first_day_that_ends_no_earlier() -> None:
    monday = pd.Timestamp("2020-01-06", tz="UTC")
    days = pd.date_range(monday, periods=21, freq="D")
    daily = pd.DataFrame({"1d_a": np.arange(21.0)}, index=days)
    weekly = pd.DataFrame(
        {"1w_a": [100.0, 200.0, 300.0]}, index=pd.date_range(monday, periods=3, freq="7D")
    )

    table = align({"1w": weekly, "1d": daily})

    # The Sunday ends with its week; from then on the week holds.
    assert ["1d_a", "1w_a"] == list(table.columns)
    assert table["1w_a"].iloc[:6].isna().all()
    assert [100.0] * 7 == table["1w_a"].iloc[6:13].tolist()
    assert [200.0] * 7 == table["1w_a"].iloc[13:20].tolist()
    assert 300.0 == table["1w_a"].iloc[20]


def test_without_a_sunday_the_week_is_known_on_monday() -> None:
    days = pd.bdate_range("2020-01-06", periods=6, tz="UTC")
    daily = pd.DataFrame({"1d_a": np.arange(6.0)}, index=days)
    weekly = pd.DataFrame({"1w_a": [100.0]}, index=days[:1])

    table = align({"1d": daily, "1w": weekly})

    assert table["1w_a"].iloc[:5].isna().all()  # Friday ends before the week does
    assert 100.0 == table["1w_a"].iloc[5]


def test_one_timeframe_stays_as_it_is() -> None:
    frame = pd.DataFrame({"1d_a": [1.0]}, index=pd.date_range("2020", periods=1, tz="UTC"))

    assert frame.equals(align({"1d": frame}))
