"""What the log has said lately, so that whoever can make it speak cannot fill it."""

from __future__ import annotations

import threading

from shared.clock import Clock, SystemClock

_AGAIN = 60.0
"""Seconds until the same is said once more."""
_MOST = 200
"""Different things that are said within that time."""


class SaidLately:
    """Tells whether something is to be said; safe to use from several threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()  # guards _said
        self._said: dict[str, float] = {}

    def is_due(self, what: str) -> bool:
        """Whether `what` was not said within the last minute, and not too much else; then it is."""
        now = self._clock.monotonic()
        with self._lock:
            if self._is_known(what, now):
                return False
            if len(self._said) >= _MOST:
                self._said = {k: at for k, at in self._said.items() if now - at < _AGAIN}
            if len(self._said) >= _MOST:
                return False
            self._said[what] = now
            return True

    def _is_known(self, what: str, now: float) -> bool:
        said = self._said.get(what)
        return said is not None and now - said < _AGAIN
