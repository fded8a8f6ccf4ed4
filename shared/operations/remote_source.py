"""Where news of an operation on another host comes from: its owner, asked through a stub.

The owner is one instance. What another instance says about an operation of the
same name is not taken, whatever address it answers at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from shared.clock import Clock
from shared.operations.endings import OPERATION_LOST
from shared.operations.model import (
    FreshnessSource,
    Hop,
    OperationError,
    OperationStatus,
    Owner,
)
from shared.operations.remote import PendingAnswer, RemoteOperationStub
from shared.operations.source import OwnerState, SourceReading
from shared.operations.store import ACTIVE
from shared.operations.views import OperationView
from shared.rpc.errors import (
    KtrdrError,
    NotFoundError,
    ResourceExhaustedError,
    StartUnknownError,
    UnavailableError,
    WrongHostError,
)

StartAgain = Callable[[float], object]
"""Repeats a start whose answer was lost, within so many seconds; raises a KtrdrError."""


class RemoteSource:
    """An operation whose worker is in another process."""

    kind = FreshnessSource.REMOTE
    may_wait = True

    def __init__(
        self,
        stub: RemoteOperationStub,
        host_operation_id: str,
        owner: Owner,
        clock: Clock,
        start_again: StartAgain | None,
        *,
        if_unknown: OperationError | None = OPERATION_LOST,
        told_until: float = -inf,
    ) -> None:
        """`if_unknown` is how the operation ends if its owner does not know it.

        None if that says nothing, because what has become of it stands elsewhere. Nor
        does it before `told_until`, on the monotonic clock: another process may be telling it.
        """
        self._stub = stub
        self._if_unknown = if_unknown
        self._told_until = told_until
        self._id = host_operation_id
        self._owner = owner
        self._clock = clock
        # Set until the owner is known to have the operation. Flights are single
        # and a cancellation that repeats the start too does no harm.
        self._start_again = start_again
        self.target: str | None = stub.target

    def read(
        self,
        cursor: int,
        limit: int,  # noqa: ARG002  # pages are the owner's
        max_staleness: float,
        timeout: float,
    ) -> SourceReading:
        """Ask the owner, and tell it once more to start if it was never told."""
        began_at = self._clock.monotonic()
        give_up_at = began_at + timeout
        try:
            return self._get(cursor, max_staleness, timeout)
        except NotFoundError as error:
            missing = self._missing(error, cursor)
            if missing is not None:
                return missing
        refused = self._repeat_start(give_up_at, cursor)
        if refused is not None:
            return refused
        asked_at = self._clock.monotonic()
        reading = self._get(cursor, max_staleness, self._left(give_up_at))
        return reading._replace(asked_after=asked_at - began_at)

    def begin_read(
        self,
        cursor: int,
        limit: int,  # noqa: ARG002  # as above
        max_staleness: float,
        timeout: float,
        /,
    ) -> PendingReading:
        """Ask the owner and do not wait; an unknown start is left to a read that waits."""
        answer = self._stub.begin_read_operation(self._id, cursor, max_staleness, timeout=timeout)
        return PendingReading(self, answer, cursor)

    def cancel(self, reason: str, timeout: float) -> None:
        """Tell the owner; UnavailableError if that cannot be done."""
        give_up_at = self._clock.monotonic() + timeout
        try:
            self._cancel(reason, timeout)
        except NotFoundError as error:
            if self._missing(error, 0) is not None:
                return  # lost: the next read says so
            if self._repeat_start(give_up_at, 0) is None:  # else refused, as the next read says
                self._cancel(reason, self._left(give_up_at))

    def begin_wait(self, timeout: float, /) -> PendingEnd:
        """Wait at the owner for the operation's end, as one call."""
        return PendingEnd(self._stub.begin_wait_operation(self._id, timeout=timeout))

    def heard(self, path: Sequence[Hop]) -> None:
        """Note that an answer came this way; raises WrongHostError if it is not the owner's."""
        self._require_owner(path[0].instance)
        self._start_again = None

    def missing(self, error: NotFoundError, cursor: int) -> SourceReading:
        """What it means that the operation is unknown, for a read that cannot start it again."""
        reading = self._missing(error, cursor)
        if reading is None:
            raise StartUnknownError(
                f"Whether {self.target} has been told to start the operation is not known; "
                "reading the operation by itself asks again.",
                metadata={"target": self.target or ""},
            ) from error
        return reading

    def _get(self, cursor: int, max_staleness: float, timeout: float) -> SourceReading:
        reading = self._stub.read_operation(self._id, cursor, max_staleness, timeout=timeout)
        self.heard(reading.path)
        return reading

    def _cancel(self, reason: str, timeout: float) -> None:
        """Cancel at the owner; another instance may run a training of the same name."""
        give_up_at = self._clock.monotonic() + timeout
        self._require_owner(self._stub.list_operations(ACTIVE, "", 1, timeout=timeout).instance)
        view = self._stub.cancel_operation(self._id, reason, timeout=self._left(give_up_at))
        self.heard(view.freshness.path)

    def _missing(self, error: NotFoundError, cursor: int) -> SourceReading | None:
        """The reading of a lost operation; None if the owner was perhaps never told.

        WrongHostError if it is another instance that does not know it;
        UnavailableError OWNER_FORGOT if that says nothing, StartUnknownError if it
        may be about to be told.
        """
        self._require_owner(error.metadata.get("instance", ""))
        if self._clock.monotonic() < self._told_until:
            raise StartUnknownError(
                f"{self.target} does not know the operation yet; another process may just be "
                "telling it to start.",
                metadata={"target": self.target or ""},
            ) from error
        if self._if_unknown is None:
            raise UnavailableError(
                f"{self.target} does not know operation {self._id} any more.",
                reason="OWNER_FORGOT",
                metadata={"target": self.target or ""},
            ) from error
        if error.metadata.get("incarnation") != self._owner.incarnation:
            return self._ended(OPERATION_LOST, cursor)
        if self._start_again is not None:
            return None
        return self._ended(self._if_unknown, cursor)

    def _repeat_start(self, give_up_at: float, cursor: int) -> SourceReading | None:
        """Repeat the start; the reading of an operation that was refused for good, or None."""
        start_again = self._start_again  # looked at once: another caller may clear it meanwhile
        if start_again is None:
            return None  # another caller has done so
        try:
            start_again(self._left(give_up_at))
        except (UnavailableError, ResourceExhaustedError):
            raise
        except KtrdrError as error:
            return self._ended(OperationError.of(error), cursor)
        self._start_again = None
        return None

    def _ended(self, error: OperationError, cursor: int) -> SourceReading:
        """The reading of an operation that failed with what only we can tell."""
        state = OwnerState(OperationStatus.FAILED, end_time=self._clock.now(), error=error)
        return SourceReading(cursor, (), cursor, None, operation=state)

    def _require_owner(self, instance: str) -> None:
        if instance != self._owner.instance_id:
            raise WrongHostError(
                self.target or "", expected=self._owner.instance_id, found=instance
            )

    def _left(self, give_up_at: float) -> float:
        return max(0.0, give_up_at - self._clock.monotonic())


@dataclass(frozen=True, slots=True)
class PendingReading:
    """A read of a remote source that is on its way."""

    source: RemoteSource
    answer: PendingAnswer[SourceReading]
    cursor: int

    def add_done_callback(self, call: Callable[[object], object], /) -> None:
        """Have `call` called, on any thread, when the answer is here, or now if it is."""
        self.answer.add_done_callback(call)

    def result(self) -> SourceReading:
        """Return what it brought, or raise a KtrdrError."""
        try:
            reading = self.answer.result()
        except NotFoundError as error:
            return self.source.missing(error, self.cursor)
        self.source.heard(reading.path)
        return reading


@dataclass(frozen=True, slots=True)
class PendingEnd:
    """A wait at the owner that is on its way."""

    answer: PendingAnswer[tuple[OperationView, float | None]]

    def add_done_callback(self, call: Callable[[object], object], /) -> None:
        """Have `call` called, on any thread, when the wait is over, or now if it is."""
        self.answer.add_done_callback(call)

    def done(self) -> bool:
        """Whether the wait is over."""
        return self.answer.done()

    def result(self) -> float | None:
        """None if the wait was served, else the seconds after which to ask again."""
        return self.answer.result()[1]

    def cancel(self) -> object:
        """Give the wait up."""
        return self.answer.cancel()
