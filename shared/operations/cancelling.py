"""Asking operations to stop: one caller tells the owner, the others share what comes of it.

An operation whose owner does not answer goes on as far as anybody knows. Only a
caller who says so ends it here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from shared.clock import Clock
from shared.operations import endings
from shared.operations.flights import FULL_TIMEOUT, PATIENT
from shared.operations.latch import Latch
from shared.operations.live import LiveOperation
from shared.operations.model import FreshnessSource, OperationStatus
from shared.operations.outages import Outages
from shared.operations.reader import Reader
from shared.operations.registry import Registry
from shared.operations.settling import Settler
from shared.operations.source import OperationSource
from shared.operations.starts import Starts
from shared.rpc.errors import (
    HostTimeoutError,
    HostUnreachableError,
    UnavailableError,
    WrongHostError,
)

_AWAY = frozenset({HostUnreachableError.reason, WrongHostError.reason})
"""Why an owner cannot be told that is not where it was; for all else it is there, or may be."""


@dataclass(frozen=True, slots=True)
class Cancelling:
    """The cancellations of a service's callers; deadlines are instants of the monotonic clock."""

    starts: Starts
    registry: Registry
    reader: Reader
    settler: Settler
    outages: Outages
    clock: Clock

    def cancel(self, operation_id: str, reason: str, deadline: float, *, give_up: bool) -> None:
        """As OperationsService.cancel_operation, but for the answer."""
        # What is being started has no source to tell yet.
        timeout = min(FULL_TIMEOUT, deadline - self.clock.monotonic())
        if not self.starts.settled(operation_id, timeout):
            raise UnavailableError(
                f"Operation {operation_id} is still being started; cancel again."
            )
        live = self.registry.find(operation_id)
        if not isinstance(live, LiveOperation):
            return
        is_to_tell = self._is_to_tell(live, reason, deadline)
        had = deadline - self.clock.monotonic()
        try:
            if is_to_tell:
                self._cancel(live, reason, deadline)
            elif give_up:  # it was told before; it may have gone since
                self._hear(live, deadline)
        except UnavailableError as error:
            if not give_up or self.registry.stopping or not _is_away(error, had):
                raise
            live.claim_ending(endings.given_up(error, reason, self.clock.now()))
        if live.ending is not None:  # perhaps another caller is storing it
            self.settler.settle(live, wait=True)

    def _is_to_tell(self, live: LiveOperation, reason: str, deadline: float) -> bool:
        """Whether this caller is the one to tell the worker; False if it knows or has ended.

        While another is telling it nobody knows whether it will: who waits takes
        over from one who fails.
        """
        until = min(self.clock.monotonic() + FULL_TIMEOUT, deadline)
        while isinstance(wanted := live.want_cancel(reason, self.clock.now()), Latch):
            with self._place_at(live.source):
                if not wanted.wait(max(0.0, until - self.clock.monotonic())):
                    raise UnavailableError(
                        f"Another caller is still telling the owner of operation "
                        f"{live.operation_id} to stop it; cancel again."
                    )
        return wanted

    def _cancel(self, live: LiveOperation, reason: str, deadline: float) -> None:
        source = live.source
        if source is not None:
            timeout = min(FULL_TIMEOUT, deadline - self.clock.monotonic())
            try:
                self._tell(source, reason, max(0.0, timeout))
            except BaseException:  # whatever it was, the next caller has to try again
                live.unwant_cancel()
                raise
        live.note_cancel_told()
        here = source is None or source.kind is FreshnessSource.BRIDGE
        if not here:
            self.reader.refresh(live, 0.0, deadline)  # a queued one has ended at once
        if here and live.claim_ending(
            endings.stopped(self.clock.now(), process_stopping=False),
            only_from=OperationStatus.PENDING,  # no worker is at it yet
        ):
            self.settler.settle(live, wait=True)
        elif live.mark_cancelling(self.clock.now()):
            self.settler.save(live)

    def _hear(self, live: LiveOperation, deadline: float) -> None:
        """Raise what keeps the owner from answering, if anything does."""
        error = self.reader.refresh(live, 0.0, deadline).error
        if error is not None:
            raise error

    def _tell(self, source: OperationSource, reason: str, timeout: float) -> None:
        """Tell the worker to stop."""
        with self._place_at(source):
            source.cancel(reason, timeout)

    def _place_at(self, source: OperationSource | None) -> AbstractContextManager[object]:
        """A place among those who wait to cancel: only so many do for one target that is slow."""
        if source is None or source.target is None:
            return nullcontext()
        return self.outages.waiting_for(source.target, to_cancel=True)


def _is_away(error: UnavailableError, had: float) -> bool:
    """Whether the owner is not there, as far as a caller who had so many seconds can tell."""
    if isinstance(error, HostTimeoutError) and had < PATIENT:
        return False  # it may have been about to answer
    return error.reason in _AWAY
