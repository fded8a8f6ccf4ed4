"""Fresh enough, at the least cost: staleness bounds, shared flights, failures remembered.

A caller names how old an answer may be. If what is known is younger, nothing is
read. Else one caller reads and the others share its flight.
"""

from __future__ import annotations

import logging
from math import inf
from typing import NamedTuple

from shared.clock import Clock
from shared.operations.flight import Flight
from shared.operations.flights import FULL_TIMEOUT, Flights, slow
from shared.operations.live import LiveOperation
from shared.operations.monitor import UNMONITORED, OperationsMonitor
from shared.operations.outages import Outages
from shared.operations.source import OperationSource, PendingRead
from shared.rpc.errors import HostTimeoutError, KtrdrError, RefreshBusyError

logger = logging.getLogger("ktrdr.operations")


class Refreshed(NamedTuple):
    """How a refresh went."""

    cached: bool
    """Nothing was read: what was known was young enough."""
    error: KtrdrError | None = None
    """Why the bound was not met; None if it was."""


def _will_do(live: LiveOperation, staleness: float, asked_at: float, after: int) -> bool:
    """Whether what is known will do; under the lock of `live`. Arguments are as in `Need`.

    By itself, since most callers turn out to need nothing.
    """
    if live.sealed:
        return True
    if staleness == 0:
        return live.landed > after
    return live.observed_at >= asked_at - staleness


_KNOWN, _READ = Refreshed(cached=True), Refreshed(cached=False)
"""How nearly all refreshes go."""


class Need(NamedTuple):
    """One caller's need of one operation."""

    live: LiveOperation
    source: OperationSource
    staleness: float
    asked_at: float
    after: int
    """Flights begun before it asked; a forced read wants a later one."""

    def met(self) -> bool:
        """Whether what is known will do by now; under the lock of `live`."""
        return _will_do(self.live, self.staleness, self.asked_at, self.after)

    @property
    def forgives_until(self) -> float:
        """Failures that began before this instant do not count."""
        return self.asked_at if self.staleness == 0 else -inf


class Refresher:
    """Brings live operations up to date for callers, one at a time; `sweep` does many."""

    def __init__(
        self,
        clock: Clock,
        *,
        ttl: float,
        max_waiters_per_target: int,
        monitor: OperationsMonitor = UNMONITORED,
    ) -> None:
        self.clock = clock
        self._monitor = monitor
        self.outages = Outages(
            clock, memory=max(ttl, 1.0), max_waiters_per_target=max_waiters_per_target
        )
        self.flights = Flights(clock, self.outages)

    def refresh(self, live: LiveOperation, staleness: float, deadline: float) -> Refreshed:
        """Make sure that `live` is at most `staleness` seconds old, if that can be had.

        `deadline` is the caller's, on the monotonic clock. Never raises a
        KtrdrError: it is in the answer, for the caller to weigh.
        """
        need = self.need(live, staleness)
        if need is None:
            return _KNOWN
        if need.source.target is None:
            return self.obtain(need, deadline)
        try:
            with self.outages.waiting_for(need.source.target):
                return self.obtain(need, deadline)
        except RefreshBusyError as error:
            return Refreshed(cached=True, error=error)

    def refresh_at_once(self, live: LiveOperation, staleness: float) -> Refreshed | None:
        """As `refresh` if that needs no wait, else None; not counted, see `count`.

        What is known will do, or a bridge is read that has at most a page of news.
        """
        asked_at = self.clock.monotonic()
        with live.lock:
            source = live.source
            if source is None:
                return None
            if _will_do(live, staleness, asked_at, live.flights_begun):
                return _KNOWN
            if source.may_wait or live.flight is not None:
                return None
            flight, _ = self.flights.board(live, source, staleness)
        if self.flights.fly(live, source, flight, left=0.0, timeout=0.0) is not None:
            return None
        took = self.clock.monotonic() - asked_at
        self._monitor.refreshed(source.kind, took, failed=False)
        return _READ

    def count(self, live: LiveOperation, *, cached: bool) -> None:
        """Note of a caller's answer whether it was known."""
        type_ = live.record.operation.type
        if not cached:
            self._monitor.missed(type_)
            return
        self._monitor.hit(type_)
        if logger.isEnabledFor(logging.DEBUG):
            age = self.clock.monotonic() - live.observed_at
            logger.debug("Cache hit for operation %s (age=%.3fs)", live.operation_id, age)

    def need(self, live: LiveOperation, staleness: float) -> Need | None:
        """What a caller needs; None if what is known will do."""
        asked_at = self.clock.monotonic()
        with live.lock:
            source, after = live.source, live.flights_begun
            if source is None:
                return None
            met = _will_do(live, staleness, asked_at, after)
        self.count(live, cached=met)
        return None if met else Need(live, source, staleness, asked_at, after)

    def obtain(self, need: Need, deadline: float) -> Refreshed:
        """Read, or share a read, until the need is met, failed or out of time."""
        live, source = need.live, need.source
        timeout = read_timeout(deadline - need.asked_at)
        give_up_at = need.asked_at + timeout
        while True:
            failure = self.outages.recall(live, source, need.forgives_until)
            with live.lock:
                if need.met():
                    return Refreshed(cached=False, error=self._late(need))
                left = give_up_at - self.clock.monotonic()
                if failure is None and left <= 0 and source.target is not None:
                    failure = slow(live, timeout)
                if failure is not None:
                    return Refreshed(cached=True, error=failure)
                flight, lead = self.flights.board(live, source, need.staleness)
            if lead:
                return self.lead(need, flight, left, timeout)
            if not flight.done.wait(max(0.0, left)):
                return Refreshed(cached=True, error=slow(live, timeout))
            shared = flight.sent_at - flight.staleness >= need.asked_at - need.staleness
            if flight.error is not None and shared:
                return Refreshed(cached=True, error=flight.error)

    def lead(
        self,
        need: Need,
        flight: Flight,
        left: float,
        timeout: float,
        first: PendingRead | None = None,
    ) -> Refreshed:
        """Carry out a flight of one's own; `first` is its first read, if that has been sent."""
        error = self.flights.fly(
            need.live, need.source, flight, left=left, timeout=timeout, first=first
        )
        took = self.clock.monotonic() - flight.sent_at
        self._monitor.refreshed(need.source.kind, took, failed=error is not None)
        if error is not None:
            return Refreshed(cached=True, error=error)
        too_late = self._late(need)
        return _READ if too_late is None else Refreshed(cached=False, error=too_late)

    def _late(self, need: Need) -> KtrdrError | None:
        """The error of an answer that got too old on its way.

        A forced read has no bound to exceed: it is as young as can be had.
        """
        live, target = need.live, need.source.target
        age = self.clock.monotonic() - live.observed_at
        if need.staleness == 0 or target is None or live.sealed or age <= need.staleness:
            return None
        return HostTimeoutError(
            f"{target} took so long that its answer is {age:.3f} s old; up to "
            f"{need.staleness:.3f} s were accepted.",
            metadata={"operation_id": live.operation_id, "target": target},
        )


def late(live: LiveOperation, age: float, staleness: float) -> HostTimeoutError:
    """The error of a state that was young enough when it was chosen, not when it was copied."""
    return HostTimeoutError(
        f"Answering took so long that what is known of operation {live.operation_id} is "
        f"{age:.3f} s old; up to {staleness:.3f} s were accepted.",
        metadata={"operation_id": live.operation_id},
    )


def read_timeout(remaining: float) -> float:
    """Leave the caller time to be answered: min(5 s, remaining - max(50 ms, 10 %))."""
    if remaining == inf:
        return FULL_TIMEOUT
    return max(0.0, min(FULL_TIMEOUT, remaining - max(0.05, remaining / 10)))
