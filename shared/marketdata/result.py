"""The result of a load, as told to clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadedSymbol:
    """What one symbol brought."""

    symbol: str
    rows_loaded: int
    """Bars that were fetched and kept; 0 if nothing was missing."""
    rows_rejected: int
    """Bars that were fetched and refused by validation."""
    gap_count: int
    """Gaps of the series that no calendar explains."""
    row_count: int
    """Bars the series holds now."""


@dataclass(frozen=True, slots=True)
class FailedSymbol:
    """A symbol that was not loaded whole; what was fetched of it before is kept."""

    symbol: str
    error: str
    """One or two sentences: what happened, what to do."""
    reason: str
    """A constant UPPER_SNAKE_CASE reason."""


@dataclass(frozen=True, slots=True)
class DataLoadResult:
    """What a finished load has to say."""

    total_rows_loaded: int
    symbols_loaded: int
    """How many symbols were loaded whole."""
    symbols_failed: tuple[FailedSymbol, ...]
    duration: float
    """Seconds from the start of the work to its end."""
    timeframe: str
    symbols: tuple[LoadedSymbol, ...]
    """What each symbol brought, also a failed one, in the order asked for."""
