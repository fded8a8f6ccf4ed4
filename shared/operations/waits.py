"""Waiting for the end of operations: who gets a slot, and what becomes of the others."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from shared.clock import Clock
from shared.operations.end_wait import EndWait
from shared.operations.flights import FULL_TIMEOUT
from shared.operations.live import LiveOperation
from shared.operations.reader import Reader
from shared.operations.registry import Registry
from shared.operations.starts import Starts
from shared.operations.views import OperationView
from shared.operations.waiting import Waiter, WaitingRoom
from shared.rpc.errors import ProcessStoppingError, WaitLimitError


@dataclass(frozen=True, slots=True)
class Waits:
    """The waits of a service's callers; deadlines are instants of the monotonic clock."""

    room: WaitingRoom
    registry: Registry
    reader: Reader
    starts: Starts
    clock: Clock

    def wait(
        self, operation_id: str, timeout: float, waiter: Waiter, *, deadline: float = inf
    ) -> tuple[OperationView, float | None]:
        """As OperationsService.wait_operation."""
        until = min(self.clock.monotonic() + timeout, deadline)
        view, live = self._begin(operation_id, until, deadline)
        if live is None:
            return view, None
        retry_after = self.room.enter()
        if retry_after is not None:
            return view, retry_after
        view, done = self._wait(live, waiter, until, deadline)
        return view, None if done else self.room.return_after()

    def wait_in_place(
        self, operation_id: str, timeout: float, waiter: Waiter, *, deadline: float = inf
    ) -> OperationView:
        """As OperationsService.wait_in_place."""
        until = min(self.clock.monotonic() + timeout, deadline)
        view, live = self._begin(operation_id, until, deadline)
        if live is None:
            return view
        if self.registry.stopping:
            raise ProcessStoppingError(
                "This process is shutting down and nobody can wait here any more; come back "
                "once it is up again."
            )
        retry_after = self.room.enter()
        if retry_after is not None:
            raise WaitLimitError(self.room.slots, retry_after)
        return self._wait(live, waiter, until, deadline, hold=True)[0]

    def _begin(
        self, operation_id: str, until: float, deadline: float
    ) -> tuple[OperationView, LiveOperation | None]:
        """What is known before the wait, and for what to wait; None if it has ended."""
        # A start that is refused ends no operation, so nothing would wake us.
        self.starts.settled(operation_id, min(FULL_TIMEOUT, until - self.clock.monotonic()))
        view = self._look(operation_id, deadline)
        live = self.registry.get(operation_id)
        if live is None or view.operation.status.terminal:
            return self._look(operation_id, deadline), None
        return view, live

    def _wait(
        self,
        live: LiveOperation,
        waiter: Waiter,
        until: float,
        deadline: float,
        *,
        hold: bool = False,
    ) -> tuple[OperationView, bool]:
        """Wait in a slot that has been taken; False if that had to be given up.

        `hold` then keeps the caller for as long as it should stay away.
        """
        wait = EndWait(
            live,
            waiter,
            until,
            self.clock,
            refresh=lambda live: self.reader.refresh(live, 0.0, deadline),
            stopping=lambda: self.registry.stopping,
        )
        try:
            served = wait.run()
            if hold and not served:
                wait.hold(self.room.return_after())
        finally:
            self.room.leave()
        view = self._look(live.operation_id, deadline)
        return view, served or view.operation.status.terminal

    def _look(self, operation_id: str, deadline: float) -> OperationView:
        return self.reader.get_operation(
            operation_id, max_staleness=None, metrics_cursor=0, metrics_limit=0, deadline=deadline
        )
