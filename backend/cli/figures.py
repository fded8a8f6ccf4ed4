"""Figures as people read them."""

from __future__ import annotations

import math

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def seconds_of(duration: Duration) -> float:
    """A protobuf Duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def length(seconds: float) -> str:
    """A length of time: "0.42 s", "12 s", "2 min 05 s", "1 h 02 min"."""
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def short(seconds: float) -> str:
    """A length of time for a narrow column, as durations are typed: "1.2s", "12m", "1h30m"."""
    if seconds < 9.95:
        return f"{seconds:.2f}s" if seconds < 0.095 else f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60:02}s" if whole % 60 else f"{whole // 60}m"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def remaining(seconds: float) -> str:
    """A time left, no finer than a guess is: "about 12 s left"."""
    whole = max(1, math.ceil(seconds))
    return f"about {whole} s left" if whole < 60 else f"about {length(whole)} left"


def moment(time: Timestamp) -> str:
    """An instant: "2024-01-31 10:22:05 UTC"."""
    return f"{time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"


def minute(time: Timestamp) -> str:
    """An instant to the minute, UTC: "2024-01-31 10:22"."""
    return f"{time.ToDatetime():%Y-%m-%d %H:%M}"


def day(time: Timestamp) -> str:
    """The day of an instant, UTC."""
    return f"{time.ToDatetime():%Y-%m-%d}"


def percent(fraction: float) -> str:
    """A fraction as "54.3 %"."""
    return f"{fraction * 100:.1f} %"


def per_second(rate: float) -> str:
    """A pace of loading as "12,345 rows/s"."""
    return f"{rate:,.0f} rows/s" if rate >= 10 else f"{rate:.1f} rows/s"


def size(count: int) -> str:
    """A number of bytes as "12.3 kB"."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
