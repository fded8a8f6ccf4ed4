"""Timeframes: how long a bar is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

TIMEFRAMES: Mapping[str, timedelta] = {
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "30m": timedelta(minutes=30),
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
    "1d": timedelta(days=1),
    "1w": timedelta(weeks=1),
}
"""Every timeframe with the length of its bars, finest first."""


def finest(timeframes: Iterable[str]) -> str:
    """Return the timeframe with the shortest bars. Raises ValueError if there is none."""
    return min(timeframes, key=TIMEFRAMES.__getitem__)
