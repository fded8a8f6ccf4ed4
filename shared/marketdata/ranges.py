"""Ranges of time: what has been loaded, and what is missing of what is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True, order=True)
class TimeRange:
    """The time from `start` up to, and without, `end`; never empty, in UTC.

    Raises ValueError unless both are aware and `start` is before `end`.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError(f"a range needs aware times, got {self.start} and {self.end}")
        object.__setattr__(self, "start", self.start.astimezone(UTC))
        object.__setattr__(self, "end", self.end.astimezone(UTC))
        if self.start >= self.end:
            raise ValueError(f"a range ends after its start, got {self.start} and {self.end}")

    def contains(self, other: TimeRange) -> bool:
        """Whether all of the other range lies in this one."""
        return self.start <= other.start and other.end <= self.end

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M}"


def union(ranges: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
    """Return the same time in as few ranges as possible, oldest first."""
    joined: list[TimeRange] = []
    for part in sorted(ranges):
        if joined and part.start <= joined[-1].end:
            joined[-1] = TimeRange(joined[-1].start, max(joined[-1].end, part.end))
        else:
            joined.append(part)
    return tuple(joined)


def subtract(wanted: TimeRange, covered: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
    """Return what is missing of the wanted range, oldest first."""
    missing = []
    start = wanted.start
    for part in union(covered):
        if part.start >= wanted.end:
            break
        if part.start > start:
            missing.append(TimeRange(start, part.start))
        start = max(start, part.end)
    if start < wanted.end:
        missing.append(TimeRange(start, wanted.end))
    return tuple(missing)


def before(ranges: Iterable[TimeRange], end: datetime) -> tuple[TimeRange, ...]:
    """Return what of the ranges lies before a time, in their order."""
    return tuple(TimeRange(part.start, min(part.end, end)) for part in ranges if part.start < end)
