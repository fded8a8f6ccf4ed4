"""When callers that were turned away come back: one after the other, not all at once."""

from __future__ import annotations

import random
import threading

from shared.clock import Clock, SystemClock

_FIRST = 0.5
"""Seconds after which the first may come back, before jitter."""
_SPACING = 0.01
"""Seconds between returns: those turned away cost at most 100 calls a second."""
_LONGEST = 30.0
"""Seconds nobody is kept away longer than."""
_JITTER = 0.2
"""Share of a return time that chance takes off."""
_COARSE_FROM = 1.0
"""Seconds from which times are told in hundredths, else in thousandths.

So many are turned away then that the time to encode each that is new would be felt.
"""


class ReturnTimes:
    """Hands out times to come back, which grow with the number that was turned away.

    They are jittered, so that callers at the bound do not come back as one.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()  # guards the fields below
        self._next = 0.0
        self._jitter = random.Random()  # noqa: S311  # spreads load, keeps no secret

    def take(self) -> float:
        """The seconds after which one more caller may come back."""
        with self._lock:
            now = self._clock.monotonic()
            self._next = max(now + _FIRST, min(now + _LONGEST, self._next + _SPACING))
            left = (self._next - now) * self._jitter.uniform(1.0 - _JITTER, 1.0)
            return round(left, 3 if left < _COARSE_FROM else 2)
