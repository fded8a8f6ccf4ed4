"""Absences: when a process could not be reached, and for whom."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from shared.clock import Clock, SystemClock

_BACK_WITHIN = 10.0
"""Seconds that clients may need to find a process that is back."""


@dataclass(slots=True)
class _Absence:
    keeps_connections: bool
    until: float = inf


class Absences:
    """The absences of one process; safe to use from several threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()  # guards the absences
        self._absences: list[_Absence] = []

    @contextmanager
    def absent(self, *, keeps_connections: bool) -> Iterator[None]:
        """Meanwhile it cannot be reached; one that is frozen keeps its connections."""
        absence = _Absence(keeps_connections)
        with self._lock:
            self._absences.append(absence)
        try:
            yield
        finally:
            with self._lock:
                absence.until = self._clock.monotonic()

    def any_since(self, instant: float, *, connected: bool) -> bool:
        """Whether there was one since then; for who is connected, one that ends connections."""
        with self._lock:
            return any(
                absence.until + _BACK_WITHIN >= instant
                for absence in self._absences
                if not (connected and absence.keeps_connections)
            )
