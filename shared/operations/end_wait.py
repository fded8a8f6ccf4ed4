"""One caller's wait for the end of an operation.

Work in this process wakes its waiters when it ends. For work elsewhere one of
the waiters waits at the owner on behalf of all; when it goes, another does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from shared.clock import Clock
from shared.operations.live import LiveOperation
from shared.operations.refresh import Refreshed
from shared.operations.source import OperationSource, PendingWait
from shared.operations.waiting import Waiter
from shared.rpc.errors import KtrdrError

logger = logging.getLogger("ktrdr.operations")

_SHORTEST_PAUSE = 0.1
"""Seconds the owner is left alone even if it ends waits at once and for no reason."""


@dataclass(frozen=True, slots=True)
class EndWait:
    """A wait that ends with the operation, the time, the caller or the process."""

    live: LiveOperation
    waiter: Waiter
    until: float
    """When the wait is over, on the monotonic clock."""
    clock: Clock
    refresh: Callable[[LiveOperation], Refreshed]
    """Reads the operation now."""
    stopping: Callable[[], bool]
    """Whether the process is about to end."""

    def run(self) -> bool:
        """Wait for the end or the time; False if it had to be given up before."""
        self.live.add_waiter(self.waiter.event)
        try:
            return self._wait()
        finally:
            self.live.remove_waiter(self.waiter.event)

    def hold(self, seconds: float) -> None:
        """Keep a caller whose wait was given up for so long, if there is still a point in it."""
        back_at = self.clock.monotonic() + seconds
        self.live.add_waiter(self.waiter.event)
        try:
            while not self.stopping() and (left := self._left()) > 0:
                pause = back_at - self.clock.monotonic()
                if pause <= 0:
                    return
                self._sleep(min(pause, left))
        finally:
            self.live.remove_waiter(self.waiter.event)

    def _wait(self) -> bool:
        while (left := self._left()) > 0:
            if self.stopping() or self.live.unstored:
                return False
            source = self.live.lead_upstream_wait()
            if source is None:
                self._sleep(left)
            elif not self._lead(source, left):
                return False
        return True

    def _left(self) -> float:
        """Seconds left to wait: none if it has ended, was forgotten or the caller has gone."""
        over = self.live.status.terminal or self.live.forgotten or self.waiter.gone
        return 0.0 if over else self.until - self.clock.monotonic()

    def _sleep(self, seconds: float) -> None:
        """Wait to be woken. What changed is looked at after clearing, so no wake-up is lost."""
        self.waiter.event.wait(seconds)
        self.waiter.event.clear()

    def _lead(self, source: OperationSource, left: float) -> bool:
        """Wait at the owner on behalf of all waiters; False if it cannot be reached."""
        try:
            pending = source.begin_wait(left)
            if not self._follow(pending):
                return True  # it is not the owner that ended the wait
            come_back_after = pending.result()
            if come_back_after is None:
                if self.refresh(self.live).error is not None:
                    return False
                come_back_after = 0.0  # unless that was the end
            self._pause(max(_SHORTEST_PAUSE, come_back_after))
        except KtrdrError as error:
            logger.debug("Waiting for operation %s elsewhere: %s", self.live.operation_id, error)
            return False
        else:
            return True
        finally:
            self.live.end_upstream_wait()
            self.live.wake_waiters()

    def _pause(self, seconds: float) -> None:
        """Leave the owner alone for as long as it wishes, unless there is nothing to wait for."""
        back_at = self.clock.monotonic() + seconds
        while not self.stopping() and self.live.ending is None and self._left() > 0:
            pause = back_at - self.clock.monotonic()
            if pause <= 0:
                return
            self._sleep(min(pause, self._left()))

    def _follow(self, pending: PendingWait) -> bool:
        """Wait until the owner has answered; False, and called off, if we go first."""
        pending.add_done_callback(lambda _: self.waiter.event.set())
        while not pending.done():
            left = self._left()
            if left <= 0 or self.stopping():
                pending.cancel()
                return False
            self._sleep(left)
        return True
