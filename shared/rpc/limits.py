"""How much one request may ask for and one answer holds."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
MOST_STRATEGY_BYTES = 4 * MIB
"""However a process is set."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The bounds of single requests and of the pages they are answered with."""

    operation_id: int = 256
    """Characters."""
    cancel_reason: int = 1000
    """Characters."""
    wait: float = 60.0
    """Seconds a caller may wait in WaitOperation; longer waits are cut to it."""
    symbols: int = 100
    timeframes: int = 100
    strategy_bytes: int = 256 * KIB
    """Of a strategy's YAML, in UTF-8, and of each override."""
    overrides: int = 100
    page_rows: int = 500
    """Of a listing; larger pages are cut to it."""
    page_metrics: int = 1000
    """Larger pages are cut to it."""
    page_bytes: int = MIB
    """A page ends before it has more, unless its first row has; a chunk of bars as well."""
