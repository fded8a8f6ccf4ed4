"""The indicators a strategy may name: their parameters, ranges and defaults.

Data only. It does not know how an indicator is computed (`indicators` does), so
that checking a strategy needs neither TA-Lib nor pandas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter: its default and the range it must lie in, both ends allowed."""

    name: str
    default: float
    lowest: float
    highest: float
    whole: bool = True
    """Whether it must be a whole number."""


@dataclass(frozen=True, slots=True)
class IndicatorSpec:
    """One indicator: what it measures and what may be set."""

    name: str
    description: str
    parameters: tuple[ParameterSpec, ...]
    has_source: bool = False
    """Whether it is computed on one column, chosen with `source` (default close)."""
    ascending: tuple[str, str] | None = None
    """Two parameters of which the first must be the smaller."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that may stand beside name and feature_id."""
        names = tuple(parameter.name for parameter in self.parameters)
        return (*names, "source") if self.has_source else names


def _period(default: int, lowest: int = 2) -> ParameterSpec:
    return ParameterSpec("period", default, lowest, 500)


_FAST_SLOW = (
    ParameterSpec("fast_period", 12, 2, 500),
    ParameterSpec("slow_period", 26, 2, 500),
)

_SPECS = (
    IndicatorSpec("rsi", "Relative strength index (Wilder), 0 to 100.", (_period(14),), True),
    IndicatorSpec("cmo", "Chande momentum oscillator, -100 to 100.", (_period(14),), True),
    IndicatorSpec("sma", "Simple moving average, in units of its source.", (_period(20),), True),
    IndicatorSpec(
        "ema", "Exponential moving average, in units of its source.", (_period(20),), True
    ),
    IndicatorSpec(
        "sma_distance",
        "Distance of the source from its simple moving average, in percent of it.",
        (_period(20),),
        True,
    ),
    IndicatorSpec(
        "ema_distance",
        "Distance of the source from its exponential moving average, in percent of it.",
        (_period(20),),
        True,
    ),
    IndicatorSpec(
        "macd",
        "MACD histogram, in units of its source.",
        (*_FAST_SLOW, ParameterSpec("signal_period", 9, 2, 500)),
        True,
        ("fast_period", "slow_period"),
    ),
    IndicatorSpec(
        "ppo",
        "Percentage price oscillator: fast less slow EMA, in percent of the slow one.",
        _FAST_SLOW,
        True,
        ("fast_period", "slow_period"),
    ),
    IndicatorSpec(
        "bbands",
        "Percent b: place of the source between its Bollinger bands, 0 lower, 1 upper.",
        (_period(20), ParameterSpec("deviations", 2.0, 0.1, 10.0, whole=False)),
        True,
    ),
    IndicatorSpec("roc", "Rate of change over the period, in percent.", (_period(10, 1),), True),
    IndicatorSpec(
        "mom", "Change over the period, in units of its source.", (_period(10, 1),), True
    ),
    IndicatorSpec("atr", "Average true range, in units of price.", (_period(14, 1),)),
    IndicatorSpec("natr", "Average true range, in percent of the close.", (_period(14, 1),)),
    IndicatorSpec("adx", "Average directional index, 0 to 100.", (_period(14),)),
    IndicatorSpec("cci", "Commodity channel index, mostly -200 to 200.", (_period(20),)),
    IndicatorSpec(
        "stoch",
        "Slow stochastic %K, 0 to 100.",
        (ParameterSpec("k_period", 14, 1, 500), ParameterSpec("smoothing", 3, 1, 500)),
    ),
    IndicatorSpec("williams_r", "Williams %R, -100 to 0.", (_period(14),)),
    IndicatorSpec("mfi", "Money flow index, 0 to 100.", (_period(14),)),
    IndicatorSpec(
        "obv",
        "Change of on-balance volume over the period as a share of the volume, -1 to 1.",
        (_period(20),),
    ),
    IndicatorSpec("aroon", "Aroon oscillator, -100 to 100.", (_period(14),)),
)

INDICATORS: Mapping[str, IndicatorSpec] = {spec.name: spec for spec in _SPECS}
"""Every indicator by name."""
