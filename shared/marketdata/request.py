"""The request: what one load is asked to fetch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)
"""Earlier than any bar: where a load without a start begins to look."""


class LoadMode(Enum):
    """What a load fetches."""

    MISSING = "MISSING"
    """Only ranges that have not been loaded."""
    FULL = "FULL"
    """The whole range again; bars that have changed are replaced."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Which bars to load."""

    symbols: tuple[str, ...]
    timeframe: str
    start: datetime | None = None
    """Load bars that start at or after this time (aware); None: the first there is."""
    end: datetime | None = None
    """Load bars that start before this time (aware); None: up to now."""
    mode: LoadMode = LoadMode.MISSING
