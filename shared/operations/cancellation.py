"""The signal by which a worker learns that it should stop."""

from __future__ import annotations

import threading

from shared.rpc.errors import OperationCancelledError


class CancelSignal:
    """A flag that is set once, from any thread, and read by one worker.

    `requested` is a plain attribute so that the worker's check costs one
    attribute read; the reason is there before it is set.
    """

    __slots__ = ("_lock", "reason", "requested")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # so that of two requests one is the first
        self.requested = False
        self.reason = ""

    def request(self, reason: str = "") -> None:
        """Ask the worker to stop; the first reason is kept."""
        with self._lock:
            if not self.requested:
                self.reason = reason
                self.requested = True

    def raise_if_requested(self) -> None:
        """Raise OperationCancelledError if the worker was asked to stop."""
        if self.requested:
            raise OperationCancelledError(self.reason or "The operation was cancelled.")
