"""Fresh enough, at the least cost: single flight, staleness bounds, failures remembered.

A caller names how old an answer may be. If what is known is younger, nothing is
read. Else one caller reads and the others share its flight. What could not be
reached is remembered for a moment, so that a hundred operations on a dead host
cost one timeout, not a hundred.

No lock is held while a source is read.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass
from math import inf

from shared.clock import Clock
from shared.operations.live import Flight, LiveOperation
from shared.operations.source import OperationSource
from shared.rpc.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KtrdrError,
    RefreshBusyError,
)

logger = logging.getLogger("ktrdr.operations")

FULL_TIMEOUT = 5.0
"""Seconds a read may take when its caller has that long."""
_PATIENT = 2.5
"""Seconds a read must have had for its timeout to say something about the host."""
PAGE = 1000
"""Metrics per read; a flight reads pages until it has the log of its first answer."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """How a refresh went."""

    cached: bool
    """Nothing was read: what was known was young enough."""
    error: KtrdrError | None = None
    """Why the bound was not met; None if it was."""


@dataclass(frozen=True, slots=True)
class _Failure:
    began_at: float
    until: float
    error: KtrdrError


class Refresher:
    """Brings live operations up to date for callers."""

    def __init__(self, clock: Clock, *, ttl: float, max_waiters_per_target: int) -> None:
        self._clock = clock
        self._ttl = ttl
        self._max_waiters = max_waiters_per_target
        self._lock = threading.Lock()  # guards the two fields below
        self._failures: dict[str, _Failure] = {}
        self._waiting: Counter[str] = Counter()

    def refresh(self, live: LiveOperation, staleness: float, deadline: float) -> Refreshed:
        """Make sure that `live` is at most `staleness` seconds old, if that can be had.

        `deadline` is the caller's, on the monotonic clock. Never raises a
        KtrdrError: it is in the answer, for the caller to weigh.
        """
        asked_at = self._clock.monotonic()
        with live.lock:
            source, after = live.source, live.flights_begun
            hit = source is None or live.sealed or _fresh(live, staleness, asked_at, after)
        if source is None:
            return Refreshed(cached=True)
        if hit:
            self._log_hit(live, asked_at)
            return Refreshed(cached=True)
        if source.target is None:
            return self._obtain(live, source, staleness, asked_at, after, deadline)
        if not self._enter(source.target):
            return Refreshed(cached=True, error=_busy(source.target))
        try:
            return self._obtain(live, source, staleness, asked_at, after, deadline)
        finally:
            self._leave(source.target)

    def _obtain(
        self,
        live: LiveOperation,
        source: OperationSource,
        staleness: float,
        asked_at: float,
        after: int,
        deadline: float,
    ) -> Refreshed:
        """Read, or share a read, until the bound is met, failed or out of time."""
        timeout = _read_timeout(deadline - asked_at)
        give_up_at = asked_at + timeout
        while True:
            failure = self._recall(live, source, asked_at if staleness == 0 else -inf)
            with live.lock:
                if live.sealed or _fresh(live, staleness, asked_at, after):
                    return Refreshed(cached=False, error=self._late(live, source, staleness))
                left = give_up_at - self._clock.monotonic()
                if failure is None and left <= 0 and source.target is not None:
                    failure = _slow(live, timeout)
                if failure is not None:
                    return Refreshed(cached=True, error=failure)
                flight, lead = self._board(live, source, staleness)
            if lead:
                error = self._fly(live, source, flight, left, timeout)
                if error is not None:
                    return Refreshed(cached=True, error=error)
                return Refreshed(cached=False, error=self._late(live, source, staleness))
            if not flight.done.wait(max(0.0, left)):
                return Refreshed(cached=True, error=_slow(live, timeout))
            shared = flight.sent_at - flight.staleness >= asked_at - staleness
            if flight.error is not None and shared:
                return Refreshed(cached=True, error=flight.error)

    def _late(
        self, live: LiveOperation, source: OperationSource, staleness: float
    ) -> KtrdrError | None:
        """The error of an answer that got too old on its way.

        A forced read has no bound to exceed: it is as young as can be had.
        """
        age = self._clock.monotonic() - live.observed_at
        if staleness == 0 or source.target is None or live.sealed or age <= staleness:
            return None
        return HostTimeoutError(
            f"{source.target} took so long that its answer is {age:.3f} s old; up to "
            f"{staleness:.3f} s were accepted.",
            metadata={"operation_id": live.operation_id, "target": source.target},
        )

    # ---------------------------------------------------------------- flights

    def _board(
        self, live: LiveOperation, source: OperationSource, staleness: float
    ) -> tuple[Flight, bool]:
        """The flight that is on its way, or a new one to lead; under the lock of `live`."""
        if live.flight is not None:
            return live.flight, False
        live.flights_begun += 1
        accepted = 0.0 if source.target is None else staleness / 2  # a bridge has no cache
        live.flight = Flight(live.flights_begun, self._clock.monotonic(), accepted)
        return live.flight, True

    def _fly(
        self,
        live: LiveOperation,
        source: OperationSource,
        flight: Flight,
        left: float,
        timeout: float,
    ) -> KtrdrError | None:
        """Carry out the flight this caller leads; whatever happens, it ends."""
        try:
            stopped = self._read_pages(live, source, flight, left)
        except HostTimeoutError as error:
            # A reader in a hurry, or with little time left, proves nothing about the host.
            if timeout >= FULL_TIMEOUT and left >= _PATIENT:
                self._remember(live, source, flight, error)
            return error
        except KtrdrError as error:
            self._remember(live, source, flight, error)
            return error
        else:
            self._forget(live, source)
            return stopped
        finally:
            with live.lock:
                live.flight = None
            flight.done.set()

    def _read_pages(
        self, live: LiveOperation, source: OperationSource, flight: Flight, left: float
    ) -> KtrdrError | None:
        """Read until the log of the first answer is here; adopt page by page.

        Returns why it stopped before; the owner did answer, so that is no failure
        to remember.
        """
        end = self._clock.monotonic() + left
        first_cursor, goal = live.metrics_count, None
        while True:
            sent_at, cursor = self._clock.monotonic(), live.metrics_count
            pending = source.begin_read(cursor, PAGE, flight.staleness, max(0.0, end - sent_at))
            reading = pending.result()
            live.adopt(reading, sent_at)
            goal = reading.metrics_count if goal is None else goal
            if live.sealed or live.metrics_count >= min(goal, reading.metrics_count):
                live.land(flight, sent_at - reading.age)
                break
            if source.target is not None and live.metrics_count == cursor:
                return _stuck(live, cursor)
            if self._clock.monotonic() >= end:
                return _slow(live, left)
        log_refresh(live, source, first_cursor)
        return None

    def _log_hit(self, live: LiveOperation, now: float) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            age = now - live.observed_at
            logger.debug("Cache hit for operation %s (age=%.3fs)", live.operation_id, age)

    # --------------------------------------------------------------- failures

    def _remember(
        self, live: LiveOperation, source: OperationSource, flight: Flight, error: KtrdrError
    ) -> None:
        """Keep a failure: of the whole target if it is unreachable, else of the operation."""
        flight.error = error
        key = live.operation_id
        if source.target is not None and isinstance(error, HostUnreachableError):
            key = source.target
        until = self._clock.monotonic() + max(self._ttl, 1.0)
        with self._lock:
            self._failures = {k: f for k, f in self._failures.items() if f.until >= flight.sent_at}
            self._failures[key] = _Failure(flight.sent_at, until, error)

    def _forget(self, live: LiveOperation, source: OperationSource) -> None:
        """Forgive what has just answered."""
        if self._failures:  # unguarded look: what is missed is seen by the next flight
            with self._lock:
                self._failures.pop(live.operation_id, None)
                self._failures.pop(source.target or "", None)

    def _recall(
        self, live: LiveOperation, source: OperationSource, since: float
    ) -> KtrdrError | None:
        """The failure that still stands; one that did not begin after `since` does not."""
        now = self._clock.monotonic()
        with self._lock:
            for key in (source.target, live.operation_id):
                failure = self._failures.get(key) if key is not None else None
                if failure is not None and failure.began_at > since and now < failure.until:
                    return failure.error
        return None

    # ---------------------------------------------------------------- waiters

    def _enter(self, target: str) -> bool:
        with self._lock:
            if self._waiting[target] >= self._max_waiters:
                return False
            self._waiting[target] += 1
            return True

    def _leave(self, target: str) -> None:
        with self._lock:
            self._waiting[target] -= 1
            if not self._waiting[target]:
                del self._waiting[target]


def log_refresh(live: LiveOperation, source: OperationSource, first_cursor: int) -> None:
    """Say at debug level how far a read has brought the cursor."""
    logger.debug(
        "Refreshed operation %s from %s (cursor %d → %d)",
        live.operation_id,
        source.kind.value.lower(),
        first_cursor,
        live.metrics_count,
    )


def _fresh(live: LiveOperation, staleness: float, asked_at: float, after: int) -> bool:
    """Whether what is known meets the bound; a forced read wants a flight of its own time."""
    if staleness == 0:
        return live.landed > after
    return live.observed_at >= asked_at - staleness


def _read_timeout(remaining: float) -> float:
    """Leave the caller time to be answered: min(5 s, remaining - max(50 ms, 10 %))."""
    if remaining == inf:
        return FULL_TIMEOUT
    return max(0.0, min(FULL_TIMEOUT, remaining - max(0.05, remaining / 10)))


def _busy(target: str) -> RefreshBusyError:
    return RefreshBusyError(
        f"Too many callers already wait for {target}; ask again in a moment.",
        metadata={"target": target},
    )


def _stuck(live: LiveOperation, cursor: int) -> HostUnreachableError:
    return HostUnreachableError(
        f"The owner of operation {live.operation_id} did not continue its log at {cursor}.",
        reason="LOG_NOT_CONTINUED",
        metadata={"operation_id": live.operation_id, "cursor": str(cursor)},
    )


def _slow(live: LiveOperation, timeout: float) -> HostTimeoutError:
    return HostTimeoutError(
        f"Operation {live.operation_id} could not be read within {timeout:.2f} s.",
        metadata={"operation_id": live.operation_id},
    )
