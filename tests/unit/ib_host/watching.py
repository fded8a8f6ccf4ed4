"""The watch of a fetch, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shared.rpc.errors import OperationCancelledError


class Watch:
    """Remembers what it is told; waits in no time, unless told to really wait."""

    def __init__(self, *, really: bool = False) -> None:
        self.notes: list[str] = []
        self.waited = 0.0
        self.cancelled = threading.Event()
        self.on_wait: Callable[[float], object] = lambda _seconds: None
        self._really = really

    def note(self, message: str) -> None:
        self.notes.append(message)

    def estimate(self, rows: int) -> None:
        raise AssertionError("IB does not say how many bars there will be")

    def raise_if_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise OperationCancelledError("as the test wants it")

    def wait(self, seconds: float) -> None:
        self.raise_if_cancelled()
        self.waited += seconds
        self.on_wait(seconds)
        if self._really:
            self.cancelled.wait(seconds)
        self.raise_if_cancelled()
