"""Bounded waiting: so many callers may wait at once, the others are told when to return."""

from __future__ import annotations

import random
import threading

from shared.clock import Clock

_FIRST_RETURN = 0.5
"""Seconds after which the first caller without a slot may come back, before jitter."""
_SPACING = 0.01
"""Seconds between returns: callers without a slot cost at most 100 calls a second."""
_LONGEST = 30.0
"""Seconds nobody is kept away longer than."""
_JITTER = 0.2
"""Share of a return time that chance takes off."""


class WaitingRoom:
    """Hands out waiting slots, and return times to those who get none.

    Return times are queued one after the other, so they grow with the number
    that waits, and are jittered, so that callers do not come back as one.
    """

    def __init__(self, slots: int, clock: Clock) -> None:
        self._clock = clock
        self.slots = slots
        """How many may wait at once."""
        self._lock = threading.Lock()  # guards the fields below
        self._free = slots
        self._next_return = 0.0
        self._jitter = random.Random()  # noqa: S311  # spreads load, keeps no secret

    def enter(self) -> float | None:
        """Take a slot and return None, or return the seconds after which to come back."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return None
        return self.return_after()

    def return_after(self) -> float:
        """The seconds after which a caller that had to be sent away may come back."""
        with self._lock:
            now = self._clock.monotonic()
            self._next_return = max(
                now + _FIRST_RETURN, min(now + _LONGEST, self._next_return + _SPACING)
            )
            return (self._next_return - now) * self._jitter.uniform(1.0 - _JITTER, 1.0)

    def leave(self) -> None:
        """Give a slot back."""
        with self._lock:
            self._free += 1


class Waiter:
    """One caller's wait; `leave` ends it from any thread."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.gone = False

    def leave(self) -> None:
        """The caller has gone away."""
        self.gone = True
        self.event.set()
