"""Features: what the network sees of each bar.

Memberships of each timeframe, their lags and, if asked for, the price context,
aligned to the bars of the finest timeframe. A value stands at a bar only if it
was known when that bar ended. Warm-up stays NaN here; the samples leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from shared.marketdata.timeframes import TIMEFRAMES, finest
from shared.training.fuzzy import membership
from shared.training.strategy import Strategy
from shared.training.strategy_rules import PRICE_COLUMNS


def feature_names(strategy: Strategy, timeframes: Sequence[str]) -> list[str]:
    """Return the names of the features, in the order of their columns.

    By timeframe (finest first), lag, indicator, set: "1d_rsi_14_low",
    "1d_rsi_14_low_lag1".
    """
    options = strategy.model.features
    columns = [
        f"{indicator.feature_id}_{name}"
        for indicator in strategy.indicators
        for name in strategy.fuzzy_sets[indicator.feature_id]
    ]
    columns += PRICE_COLUMNS if options.include_price_context else ()
    return [
        f"{timeframe}_{column}{_lag(lag)}"
        for timeframe in sorted(timeframes, key=TIMEFRAMES.__getitem__)
        for lag in range(options.lookback_periods + 1)
        for column in columns
    ]


def fuzzy_memberships(
    strategy: Strategy, timeframe: str, feature_id: str, name: str, values: pd.Series[float]
) -> pd.Series[float]:
    """Return the membership of an indicator's values in one of its sets."""
    fuzzy_set = strategy.fuzzy_sets[feature_id][name]
    grades = membership(fuzzy_set.type, fuzzy_set.parameters, np.asarray(values, dtype=np.float64))
    return pd.Series(grades, index=values.index, name=f"{timeframe}_{feature_id}_{name}")


def price_context(timeframe: str, bars: pd.DataFrame) -> pd.DataFrame:
    """Return the bar's log return, its range and the close's place in the range.

    The range is a fraction of the close; the place is 0 at the low, 1 at the
    high and one half where the bar has no range.
    """
    span = bars["high"] - bars["low"]
    place = ((bars["close"] - bars["low"]) / span.where(span > 0)).where(span > 0, 0.5)
    previous = bars["close"].shift(1)
    columns = (np.log(bars["close"] / previous), span / bars["close"], place)
    names = [f"{timeframe}_{column}" for column in PRICE_COLUMNS]
    return pd.DataFrame(dict(zip(names, columns, strict=True)), index=bars.index)


def lagged(columns: pd.DataFrame, lookback: int) -> pd.DataFrame:
    """Return the columns and those of the 1 to `lookback` bars before."""
    parts = [columns.shift(lag).add_suffix(_lag(lag)) for lag in range(lookback + 1)]
    return pd.concat(parts, axis=1)


def align(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Join the timeframes' columns on the bars of the finest.

    A coarser bar's values hold from the first fine bar that ends no earlier than
    the coarse one does, until the next coarse bar has ended.
    """
    base = finest(frames)
    aligned = frames[base]
    ends = _ends(aligned, base)
    for timeframe in sorted(frames, key=TIMEFRAMES.__getitem__):
        if timeframe == base:
            continue
        coarse = frames[timeframe]
        known = coarse.set_axis(_ends(coarse, timeframe))
        held = known.reindex(ends, method="ffill").set_axis(aligned.index)
        aligned = pd.concat([aligned, held], axis=1)
    return aligned


def _ends(frame: pd.DataFrame, timeframe: str) -> pd.DatetimeIndex:
    """When each bar has ended and is known."""
    return pd.DatetimeIndex(frame.index) + pd.Timedelta(TIMEFRAMES[timeframe])


def _lag(lag: int) -> str:
    return f"_lag{lag}" if lag else ""
