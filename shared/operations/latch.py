"""A latch: an event that costs next to nothing while nobody waits for it.

Every read of a source has one, and hardly any is ever waited for.
"""

from __future__ import annotations

import threading


class Latch:
    """Set once; `wait` returns at once from then on."""

    __slots__ = ("_event", "_lock", "_set", "waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the fields below
        self._event: threading.Event | None = None
        self._set = False
        self.waiting = 0
        """How many wait now."""

    def is_set(self) -> bool:
        """Whether it has been set."""
        return self._set

    def set(self) -> None:
        """Let everybody who waits go on."""
        with self._lock:
            self._set = True
            event = self._event
        if event is not None:
            event.set()

    def wait(self, timeout: float) -> bool:
        """Wait for at most `timeout` seconds; whether it has been set."""
        with self._lock:
            if self._set:
                return True
            if self._event is None:
                self._event = threading.Event()
            event = self._event
            self.waiting += 1
        try:
            return event.wait(timeout)
        finally:
            with self._lock:
                self.waiting -= 1
