"""Bounded waiting: so many callers may wait at once, the others are told when to return."""

from __future__ import annotations

import threading

from shared.clock import Clock
from shared.rpc.return_times import ReturnTimes


class WaitingRoom:
    """Hands out waiting slots, and return times to those who get none."""

    def __init__(self, slots: int, clock: Clock) -> None:
        self.slots = slots
        """How many may wait at once."""
        self._lock = threading.Lock()  # guards _free
        self._free = slots
        self._returns = ReturnTimes(clock)

    def enter(self) -> float | None:
        """Take a slot and return None, or return the seconds after which to come back."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return None
        return self.return_after()

    def return_after(self) -> float:
        """The seconds after which a caller that had to be sent away may come back."""
        return self._returns.take()

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
