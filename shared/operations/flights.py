"""Flights: one read of a source at a time per operation, shared by whoever needs it.

A flight reads page after page until it has the log of its first answer, and
ends whatever happens. No lock is held while a source is read.
"""

from __future__ import annotations

import logging

from shared.clock import Clock
from shared.operations.flight import Flight
from shared.operations.live import LiveOperation
from shared.operations.outages import Outages
from shared.operations.source import OperationSource, PendingRead
from shared.rpc.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KtrdrError,
    StartUnknownError,
    cut_off,
)

logger = logging.getLogger("ktrdr.operations")

FULL_TIMEOUT = 5.0
"""Seconds a read may take when its caller has that long."""
PATIENT = 2.5
"""Seconds a read must have had for its timeout to say something about the host."""
PAGE = 1000
"""Metrics per read."""


class Flights:
    """Begins and carries out flights."""

    def __init__(self, clock: Clock, outages: Outages) -> None:
        self._clock = clock
        self._outages = outages

    def board(
        self, live: LiveOperation, source: OperationSource, staleness: float
    ) -> tuple[Flight, bool]:
        """The flight that is on its way, or a new one to lead; under the lock of `live`."""
        if live.flight is not None:
            return live.flight, False
        live.flights_begun += 1
        accepted = 0.0 if source.target is None else staleness / 2  # a bridge has no cache
        live.flight = Flight(live.flights_begun, self._clock.monotonic(), accepted)
        return live.flight, True

    def begin(
        self, live: LiveOperation, source: OperationSource, flight: Flight, timeout: float
    ) -> PendingRead:
        """Send the first read of a flight, to be given to `fly` once it is answered."""
        return source.begin_read(live.metrics_count, PAGE, flight.staleness, timeout)

    def fly(
        self,
        live: LiveOperation,
        source: OperationSource,
        flight: Flight,
        *,
        left: float,
        timeout: float,
        first: PendingRead | None = None,
    ) -> KtrdrError | None:
        """Carry out a flight of one's own; whatever happens, it ends.

        `left` are the seconds it may take, `timeout` what its caller had from
        the beginning. Returns why it did not bring what was asked for.
        """
        try:
            stopped = self._read_pages(live, source, flight, left, first)
        except KtrdrError as error:
            cut_off(error)
            if _counts(error, left, timeout):
                self._fail(live, source, flight, error)
            return error
        else:
            self._outages.forget(live, source)
            return stopped
        finally:
            self.end(live, flight)

    def end(self, live: LiveOperation, flight: Flight) -> None:
        """Let whoever shares the flight go on."""
        with live.lock:
            if live.flight is flight:
                live.flight = None
        flight.done.set()

    def _fail(
        self, live: LiveOperation, source: OperationSource, flight: Flight, error: KtrdrError
    ) -> None:
        flight.error = error
        self._outages.remember(live, source, flight.sent_at, error)

    def _read_pages(
        self,
        live: LiveOperation,
        source: OperationSource,
        flight: Flight,
        left: float,
        first: PendingRead | None,
    ) -> KtrdrError | None:
        """Read until the log of the first answer is here; adopt page by page.

        Returns why it stopped before; the owner did answer, so that is no failure
        to remember.
        """
        end = self._clock.monotonic() + left
        first_cursor, goal = live.metrics_count, None
        while True:
            sent_at, cursor = self._clock.monotonic(), live.metrics_count
            if first is not None:
                sent_at, reading, first = flight.sent_at, first.result(), None
            else:
                reading = source.read(cursor, PAGE, flight.staleness, max(0.0, end - sent_at))
            sent_at += reading.asked_after
            live.adopt(reading, sent_at)
            goal = reading.metrics_count if goal is None else goal
            if live.sealed or live.metrics_count >= min(goal, reading.metrics_count):
                live.land(flight, sent_at - reading.age)
                break
            if source.target is not None and live.metrics_count == cursor:
                return _stuck(live, cursor)
            if self._clock.monotonic() >= end:
                return slow(live, left)
        log_refresh(live, source, first_cursor)
        return None


def _counts(error: KtrdrError, left: float, timeout: float) -> bool:
    """Whether an error says that the next reader would fare no better."""
    if isinstance(error, HostTimeoutError):
        # A reader in a hurry, or with little time left, proves nothing about the host.
        return timeout >= FULL_TIMEOUT and left >= PATIENT
    return not isinstance(error, StartUnknownError)  # a read by itself asks for that again


def log_refresh(live: LiveOperation, source: OperationSource, first_cursor: int) -> None:
    """Say at debug level how far a read has brought the cursor."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    logger.debug(
        "Refreshed operation %s from %s (cursor %d → %d)",
        live.operation_id,
        source.kind.value.lower(),
        first_cursor,
        live.metrics_count,
    )


def slow(live: LiveOperation, timeout: float) -> HostTimeoutError:
    """The error of a read that ran out of time."""
    return HostTimeoutError(
        f"Operation {live.operation_id} could not be read within {timeout:.2f} s.",
        metadata={"operation_id": live.operation_id},
    )


def _stuck(live: LiveOperation, cursor: int) -> HostUnreachableError:
    return HostUnreachableError(
        f"The owner of operation {live.operation_id} did not continue its log at {cursor}.",
        reason="LOG_NOT_CONTINUED",
        metadata={"operation_id": live.operation_id, "cursor": str(cursor)},
    )
