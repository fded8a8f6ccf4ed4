"""A breaker: what could not be reached a moment ago is not waited for again."""

from __future__ import annotations

import threading

from shared.clock import Clock
from shared.rpc.errors import StoreUnavailableError


class Breaker:
    """Lets one caller try per `pause` while a thing is away, and sends the others back at once."""

    def __init__(self, clock: Clock, *, pause: float = 1.0) -> None:
        """`pause` in seconds."""
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()  # guards the two fields below
        self._away: str | None = None
        self._next_try = 0.0

    def check(self) -> None:
        """Raise why it is away, unless it is time to try."""
        away = self._away  # an unguarded look: what is missed is seen in a moment
        if away is not None and self._clock.monotonic() < self._next_try:
            raise StoreUnavailableError(away)

    def enter(self) -> None:
        """Go on if it is there, or as the one who tries; else raise why it is away."""
        if self._away is None:
            return
        with self._lock:
            self.check()
            self._next_try = self._clock.monotonic() + self._pause

    def trip(self, error: StoreUnavailableError) -> None:
        """Remember that it is away."""
        with self._lock:
            self._away = error.message
            self._next_try = self._clock.monotonic() + self._pause

    def reset(self) -> None:
        """Remember that it is there."""
        if self._away is not None:
            with self._lock:
                self._away = None
