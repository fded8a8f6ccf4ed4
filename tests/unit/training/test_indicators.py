from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from shared.training.indicator_catalogue import INDICATORS
from shared.training.indicators import FORMULAS, compute_indicator

Walk = Callable[..., pd.DataFrame]

RANGES = {
    "rsi": (0, 100),
    "cmo": (-100, 100),
    "adx": (0, 100),
    "stoch": (0, 100),
    "williams_r": (-100, 0),
    "mfi": (0, 100),
    "obv": (-1, 1),
    "aroon": (-100, 100),
}


def compute(bars: pd.DataFrame, name: str, source: str = "close", **given: float) -> pd.Series:
    defaults = {parameter.name: parameter.default for parameter in INDICATORS[name].parameters}
    return compute_indicator(bars, name, f"{name}_1", source, {**defaults, **given})


def test_every_indicator_of_the_catalogue_can_be_computed() -> None:
    assert set(INDICATORS) == set(FORMULAS)


@pytest.mark.parametrize("name", sorted(INDICATORS))
def test_values_are_named_aligned_and_nan_only_while_warming_up(name: str, walk: Walk) -> None:
    bars = walk(300, 1)

    values = compute(bars, name)

    assert f"{name}_1" == values.name
    assert bars.index.equals(values.index)
    known = values.notna().to_numpy()
    first = int(known.argmax())
    assert 0 < first < 60
    assert known[first:].all()
    low, high = RANGES.get(name, (-np.inf, np.inf))
    assert values.dropna().between(low - 1e-9, high + 1e-9).all()
    assert values.std() > 0


@pytest.mark.parametrize("name", sorted(INDICATORS))
def test_a_later_bar_changes_no_earlier_value(name: str, walk: Walk) -> None:
    bars = walk(200, 2)

    whole, part = compute(bars, name), compute(bars.iloc[:150], name)

    pd.testing.assert_series_equal(part, whole.iloc[:150], check_freq=False)


@pytest.mark.parametrize("name", sorted(INDICATORS))
def test_too_few_bars_give_no_value(name: str, walk: Walk) -> None:
    assert compute(walk(3, 1), name, "close", **_longest(name)).isna().all()
    assert 0 == len(compute(walk(300, 1).iloc[:0], name))


def _longest(name: str) -> dict[str, float]:
    return {parameter.name: parameter.highest for parameter in INDICATORS[name].parameters}


def test_rsi_is_wilders() -> None:
    # The first average is the plain mean of the first 14 changes.
    close = np.array([44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.10, 45.42, 45.84, 46.08])
    close = np.append(close, [45.89, 46.03, 45.61, 46.28, 46.28, 46.00])
    changes = np.diff(close)
    gain, loss = np.clip(changes, 0, None), np.clip(-changes, 0, None)
    first_gain, first_loss = gain[:14].mean(), loss[:14].mean()
    second_gain = (first_gain * 13 + gain[14]) / 14
    second_loss = (first_loss * 13 + loss[14]) / 14
    frame = pd.DataFrame({"close": close})

    values = compute(frame, "rsi")

    assert pytest.approx(100 - 100 / (1 + first_gain / first_loss)) == values.iloc[14]
    assert pytest.approx(100 - 100 / (1 + second_gain / second_loss)) == values.iloc[15]


def test_the_source_column_is_used(walk: Walk) -> None:
    bars = walk(50, 1)

    values = compute(bars, "sma", source="volume", period=5)

    assert pytest.approx(bars["volume"].iloc[-5:].mean()) == values.iloc[-1]


def test_distances_and_percent_b_are_relative(walk: Walk) -> None:
    bars = walk(50, 1)
    close = bars["close"]
    mean, deviation = close.iloc[-20:].mean(), close.iloc[-20:].std(ddof=0)

    assert (
        pytest.approx((close.iloc[-1] / mean - 1) * 100)
        == compute(bars, "sma_distance", period=20).iloc[-1]
    )
    lower = mean - 2 * deviation
    assert (
        pytest.approx((close.iloc[-1] - lower) / (4 * deviation))
        == compute(bars, "bbands").iloc[-1]
    )


def test_what_cannot_be_divided_has_no_value(walk: Walk) -> None:
    bars = walk(50, 1)
    bars["volume"] = 0.0

    assert compute(bars, "obv").isna().all()
