"""Waiting in tests for what another thread or process is about to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic


def eventually(fact: Callable[[], bool], *, within: float = 10.0) -> None:
    """Return once `fact()` is true; fail if it is not within the time."""
    end = monotonic() + within
    pause = threading.Event()
    while not fact():
        assert monotonic() < end, f"not true within {within} s"
        pause.wait(0.005)
