"""Timeframes: how long a bar is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

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
_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_STEP = timedelta(minutes=30)


def finest(timeframes: Iterable[str]) -> str:
    """Return the timeframe with the shortest bars. Raises ValueError if there is none."""
    return min(timeframes, key=TIMEFRAMES.__getitem__)


def last_end(now: datetime, timeframe: str) -> datetime:
    """Return a time before which every bar that starts has ended.

    It moves in steps, so that a load repeated soon asks for nothing: days and weeks
    start at midnight UTC; shorter bars may start anywhere in their session.
    """
    length = TIMEFRAMES[timeframe]
    if length >= timedelta(days=1):
        return now - (now - _MONDAY) % length
    latest = now - length
    return latest - (latest - _MONDAY) % min(length, _STEP)
