"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Both clocks of shared.clock.Clock, moved by hand."""

    def __init__(self) -> None:
        self._elapsed = 1000.0

    def monotonic(self) -> float:
        """Seconds, as moved."""
        return self._elapsed

    def now(self) -> datetime:
        """A fixed day plus what has been moved."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._elapsed)

    def advance(self, seconds: float) -> None:
        """Move both clocks on."""
        self._elapsed += seconds
