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
        self._error: StoreUnavailableError | None = None
        self._next_try = 0.0

    def enter(self) -> None:
        """Go on if it is there, or to try; else raise why it was away."""
        if self._error is None:  # unguarded look: what is missed is seen by the next caller
            return
        with self._lock:
            now = self._clock.monotonic()
            if self._error is None or now >= self._next_try:
                self._next_try = now + self._pause
                return
            message = self._error.message
        raise StoreUnavailableError(message)

    def trip(self, error: StoreUnavailableError) -> None:
        """Remember that it is away."""
        with self._lock:
            self._error = error
            self._next_try = self._clock.monotonic() + self._pause

    def reset(self) -> None:
        """Remember that it is there."""
        if self._error is not None:  # unguarded look, as above
            with self._lock:
                self._error = None
