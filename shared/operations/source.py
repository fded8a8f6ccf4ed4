"""Where an operation's news comes from: the port, and the bridge behind it.

A source is asked, never tells. The one of this process reads a ProgressBridge;
one for work elsewhere asks the owner. The service treats both alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, Protocol

from shared.operations.bridge import ProgressBridge, may_wait
from shared.operations.endings import words_of
from shared.operations.model import (
    FreshnessSource,
    Hop,
    Liveness,
    Metric,
    OperationError,
    OperationStatus,
    PackedResult,
    Progress,
)
from shared.rpc.errors import BridgeUnreadableError

logger = logging.getLogger("ktrdr.operations")


class OwnerState(NamedTuple):
    """What the owner of an operation decides about it."""

    status: OperationStatus
    start_time: datetime | None = None
    end_time: datetime | None = None
    """None while it has not ended."""
    cancel_time: datetime | None = None
    cancel_reason: str = ""
    result: PackedResult | None = None
    error: OperationError | None = None


class SourceReading(NamedTuple):
    """What one read of a source brought: state and metrics of one instant."""

    cursor: int
    """Index of the first of `metrics` in the log."""
    metrics: tuple[Metric, ...]
    metrics_count: int
    """Length of the source's whole log."""
    progress: Progress | None
    last_report_age: float | None = None
    """Seconds since the worker reported; None before its first report."""
    age: float = 0.0
    """Seconds the snapshot was old when the source answered."""
    asked_after: float = 0.0
    """Seconds from the beginning of the read to the question that was answered."""
    operation: OwnerState | None = None
    """The owner's operation, if the owner decides how it ends; None if this
    process does."""
    liveness: Liveness | None = None
    """As the owner sees it; None if this process is the owner."""
    path: tuple[Hop, ...] = ()
    """The processes the snapshot passed before this one."""

    @property
    def has_more(self) -> bool:
        """Whether the source's log goes on after these metrics."""
        return self.cursor + len(self.metrics) < self.metrics_count


class PendingRead(Protocol):
    """A read that has been sent."""

    def add_done_callback(self, call: Callable[[object], object], /) -> None:
        """Have `call` called, on any thread, when the answer is here, or now if it is."""
        ...

    def result(self) -> SourceReading:
        """Return what it brought, or raise as `OperationSource.read` does."""
        ...


class PendingWait(Protocol):
    """A wait for the end of the owner's operation that has been sent.

    A future of the generated stub fits once its errors are mapped.
    """

    def add_done_callback(self, call: Callable[[object], object], /) -> None:
        """Have `call` called, on any thread, when the wait is over, or now if it is."""
        ...

    def done(self) -> bool:
        """Whether the wait is over."""
        ...

    def result(self) -> float | None:
        """Return, once done, or raise a KtrdrError.

        None if the wait was served; the seconds after which to ask again if the
        owner had no place for one who waits.
        """
        ...

    def cancel(self) -> object:
        """Give the wait up: nobody here waits any more."""
        ...


class OperationSource(Protocol):
    """What the service needs of whoever knows an operation's state."""

    kind: FreshnessSource
    target: str | None
    """What becomes unreachable as a whole, an address; None for this process."""

    @property
    def may_wait(self) -> bool:
        """Whether a read may take longer than microseconds."""
        ...

    def read(self, cursor: int, limit: int, max_staleness: float, timeout: float) -> SourceReading:
        """Return the state and at most `limit` metrics from `cursor` on.

        `max_staleness` is what the owner may answer from its cache, and
        `timeout` how long the answer may take; both in seconds. Raises
        HostTimeoutError when the time given ran out, another
        HostUnreachableError when the owner could not be reached, or another
        KtrdrError that concerns this operation alone.
        """
        ...

    def begin_read(
        self, cursor: int, limit: int, max_staleness: float, timeout: float, /
    ) -> PendingRead:
        """Send the same read and do not wait. Only asked of sources with a target."""
        ...

    def cancel(self, reason: str, timeout: float) -> None:
        """Tell the worker to stop, or raise a KtrdrError with nothing changed."""
        ...

    def begin_wait(self, timeout: float, /) -> PendingWait:
        """Send a wait for the end of the owner's operation. Does not block.

        It is over when the operation has ended, the time is up or the owner
        answers early. Only asked of sources with a target.
        """
        ...


class BridgeSource:
    """An operation whose worker writes to a bridge in this process."""

    kind = FreshnessSource.BRIDGE
    target: str | None = None

    def __init__(self, bridge: ProgressBridge) -> None:
        self._bridge = bridge
        self._told = False
        """Whether the log says that it cannot be read."""

    @property
    def may_wait(self) -> bool:
        """As its bridge says."""
        return may_wait(self._bridge)

    def read(
        self,
        cursor: int,
        limit: int,
        max_staleness: float,  # noqa: ARG002  # a bridge is never stale
        timeout: float,  # noqa: ARG002  # nor slow
    ) -> SourceReading:
        """Read the bridge; it takes microseconds.

        BridgeUnreadableError if it cannot be read: the worker may have reported
        anything, and the bridge may be its own.
        """
        try:
            snapshot = self._bridge.snapshot(cursor, limit)
        except Exception as error:
            if not self._told:
                self._told = True
                logger.exception("A bridge cannot be read")
            raise BridgeUnreadableError(f"{type(error).__name__}: {words_of(error)}") from error
        return SourceReading(
            cursor=cursor,
            metrics=snapshot.metrics,
            metrics_count=snapshot.metrics_count,
            progress=snapshot.progress,
            last_report_age=snapshot.last_report_age,
        )

    def begin_read(self, *_: float) -> PendingRead:
        """Never asked: a bridge answers at once."""
        raise AssertionError("a bridge is read at once")

    def cancel(self, reason: str, timeout: float) -> None:  # noqa: ARG002  # takes no time
        """Set the bridge's cancel signal."""
        self._bridge.cancel.request(reason)

    def begin_wait(self, _timeout: float, /) -> PendingWait:
        """Never asked: work in this process ends by the service's own hand."""
        raise AssertionError("a bridge has no owner to wait for")
