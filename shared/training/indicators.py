"""Indicators, computed with TA-Lib from bars.

What may be asked for is in `indicator_catalogue`. Warm-up stays NaN: a bar
before the indicator's first value has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import talib
from numpy.typing import NDArray

Values = NDArray[np.float64]
Parameters = Mapping[str, float]
Inputs = Mapping[str, Values]
"""The bar columns by name, and under "source" the chosen one."""

Formula = Callable[[Inputs, Parameters], Values]


def compute_indicator(
    bars: pd.DataFrame, name: str, feature_id: str, source: str, parameters: Parameters
) -> pd.Series[float]:
    """Return the indicator's value at each bar, known when that bar has ended.

    `parameters` are complete and in range, as the catalogue says.
    """
    inputs = {str(column): bars[column].to_numpy(dtype=np.float64) for column in bars.columns}
    inputs["source"] = inputs[source]
    if len(bars) == 0:  # TA-Lib refuses an empty array
        return pd.Series([], index=bars.index, name=feature_id, dtype="float64")
    values = FORMULAS[name](inputs, parameters)
    return pd.Series(values, index=bars.index, name=feature_id, dtype="float64")


def _period(parameters: Parameters, name: str = "period") -> int:
    return int(parameters[name])


def _on_source(function: Callable[..., Values]) -> Formula:
    """A TA-Lib function of one column and a period."""
    return lambda bars, parameters: function(bars["source"], timeperiod=_period(parameters))


def _on_range(function: Callable[..., Values]) -> Formula:
    """A TA-Lib function of high, low, close and a period."""
    return lambda bars, parameters: function(
        bars["high"], bars["low"], bars["close"], timeperiod=_period(parameters)
    )


def _distance(average: Callable[..., Values]) -> Formula:
    """Distance of the source from its average, in percent of the average."""

    def formula(bars: Inputs, parameters: Parameters) -> Values:
        mean = average(bars["source"], timeperiod=_period(parameters))
        return _ratio(bars["source"] - mean, mean) * 100.0

    return formula


def _macd(bars: Inputs, parameters: Parameters) -> Values:
    _, _, histogram = talib.MACD(
        bars["source"],
        fastperiod=_period(parameters, "fast_period"),
        slowperiod=_period(parameters, "slow_period"),
        signalperiod=_period(parameters, "signal_period"),
    )
    return np.asarray(histogram)


def _ppo(bars: Inputs, parameters: Parameters) -> Values:
    fast = talib.EMA(bars["source"], timeperiod=_period(parameters, "fast_period"))
    slow = talib.EMA(bars["source"], timeperiod=_period(parameters, "slow_period"))
    return _ratio(fast - slow, slow) * 100.0


def _percent_b(bars: Inputs, parameters: Parameters) -> Values:
    upper, _, lower = talib.BBANDS(
        bars["source"],
        timeperiod=_period(parameters),
        nbdevup=float(parameters["deviations"]),
        nbdevdn=float(parameters["deviations"]),
    )
    return _ratio(bars["source"] - lower, upper - lower)


def _stoch(bars: Inputs, parameters: Parameters) -> Values:
    slow_k, _ = talib.STOCH(
        bars["high"],
        bars["low"],
        bars["close"],
        fastk_period=_period(parameters, "k_period"),
        slowk_period=_period(parameters, "smoothing"),
        slowd_period=1,  # %D is not used; its warm-up must not cost rows
    )
    return np.asarray(slow_k)


def _mfi(bars: Inputs, parameters: Parameters) -> Values:
    return np.asarray(
        talib.MFI(
            bars["high"],
            bars["low"],
            bars["close"],
            bars["volume"],
            timeperiod=_period(parameters),
        )
    )


def _obv(bars: Inputs, parameters: Parameters) -> Values:
    """OBV itself grows without bound; its change as a share of volume does not."""
    period = _period(parameters)
    balance = talib.OBV(bars["close"], bars["volume"])
    change = np.full_like(balance, np.nan)
    change[period:] = balance[period:] - balance[:-period]
    return _ratio(change, talib.SUM(bars["volume"], timeperiod=period))


def _aroon(bars: Inputs, parameters: Parameters) -> Values:
    return np.asarray(talib.AROONOSC(bars["high"], bars["low"], timeperiod=_period(parameters)))


def _ratio(numerator: Values, denominator: Values) -> Values:
    """Divide; NaN where the denominator is zero, as there is no value to tell."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0.0, np.nan, numerator / denominator)


FORMULAS: Mapping[str, Formula] = {
    "rsi": _on_source(talib.RSI),
    "cmo": _on_source(talib.CMO),
    "sma": _on_source(talib.SMA),
    "ema": _on_source(talib.EMA),
    "sma_distance": _distance(talib.SMA),
    "ema_distance": _distance(talib.EMA),
    "macd": _macd,
    "ppo": _ppo,
    "bbands": _percent_b,
    "roc": _on_source(talib.ROC),
    "mom": _on_source(talib.MOM),
    "atr": _on_range(talib.ATR),
    "natr": _on_range(talib.NATR),
    "adx": _on_range(talib.ADX),
    "cci": _on_range(talib.CCI),
    "stoch": _stoch,
    "williams_r": _on_range(talib.WILLR),
    "mfi": _mfi,
    "obv": _obv,
    "aroon": _aroon,
}
"""How each indicator of the catalogue is computed."""
