"""The nouns of the system: an operation, its progress, its metrics, its freshness.

All values are frozen. Nothing here knows threads, stores or gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from shared.rpc.errors import Code, KtrdrError


class OperationType(Enum):
    """The kind of work."""

    TRAINING = "TRAINING"
    DATA_LOADING = "DATA_LOADING"

    __hash__ = object.__hash__  # there is one of each; an Enum hashes its name, in Python


class OperationStatus(Enum):
    """Where an operation is in its life; `TRANSITIONS` says what may follow."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    __hash__ = object.__hash__  # as above

    terminal: bool
    """Whether nothing can follow; no property, for every read asks several times."""


_S = OperationStatus
TRANSITIONS: Mapping[OperationStatus, frozenset[OperationStatus]] = {
    # A PENDING operation has no worker yet, so it can be cancelled at once.
    _S.PENDING: frozenset({_S.RUNNING, _S.CANCELLED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.CANCELLING, _S.COMPLETED, _S.FAILED, _S.CANCELLED}),
    # A result that arrives while CANCELLING wins: the work is done. FAILED is
    # for a process that stops: nobody's cancellation, nobody's result.
    _S.CANCELLING: frozenset({_S.COMPLETED, _S.CANCELLED, _S.FAILED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
for _status, _may_follow in TRANSITIONS.items():
    _status.terminal = not _may_follow
ACTIVE_STATUSES = frozenset(status for status in _S if not status.terminal)


# Every read makes one of each of the tuples here: they take half as long to make as frozen
# dataclasses.
class Progress(NamedTuple):
    """How far the work has come, at one instant."""

    percentage: float | None = None
    """0 to 100; never falls. None while unknown."""
    message: str = ""
    """One line for people."""
    phase: str = ""
    """The part of the work."""
    current_step: int = 0
    """1-based step (epoch) at hand; 0 before the first."""
    total_steps: int | None = None
    items_processed: int = 0
    items_total: int | None = None
    update_time: datetime | None = None
    """When the worker reported this (UTC)."""
    estimated_remaining: float | None = None
    """Seconds left at the pace so far."""
    context: Mapping[str, str] = MappingProxyType({})
    """What else the worker says about where it is."""

    # Copies that every read makes spell the fields out: `_replace` takes more than twice as long.

    def placed(self, percentage: float | None, update_time: datetime) -> Progress:
        """The same at another percentage and time."""
        return Progress(
            percentage,
            self.message,
            self.phase,
            self.current_step,
            self.total_steps,
            self.items_processed,
            self.items_total,
            update_time,
            self.estimated_remaining,
            self.context,
        )


class Metric(NamedTuple):
    """One entry of an operation's append-only log."""

    time: datetime
    kind: str
    step: int
    """1-based."""
    values: Mapping[str, float]
    labels: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class OperationError:
    """Why an operation has no result, or why a refresh did not succeed."""

    code: Code
    reason: str
    message: str
    retryable: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: KtrdrError) -> OperationError:
        """Describe a raised domain error."""
        return cls(error.code, error.reason, error.message, error.retryable, error.metadata)


@dataclass(frozen=True, slots=True)
class PackedResult:
    """A typed result message, packed: what google.protobuf.Any holds.

    The engine never looks inside; the domain that made it converts it.
    """

    type_url: str
    value: bytes


class FreshnessSource(Enum):
    """Where a snapshot was read."""

    BRIDGE = "BRIDGE"
    REMOTE = "REMOTE"
    RECORD = "RECORD"

    __hash__ = object.__hash__  # as above


class Hop(NamedTuple):
    """One process on the way of a snapshot."""

    instance: str
    source: FreshnessSource
    cached: bool
    age: float
    """Seconds."""


class Freshness(NamedTuple):
    """How old a snapshot is and why."""

    age: float
    """Seconds, summed over all hops."""
    source: FreshnessSource
    cached: bool
    refresh_error: OperationError | None = None
    path: tuple[Hop, ...] = ()


class Liveness(NamedTuple):
    """What the owner of the work sees of its worker."""

    worker_alive: bool
    last_report_age: float | None = None
    """Seconds; None before the first report."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that runs the work: mine, another's, or mine before a restart."""

    instance_id: str
    incarnation: str
    address: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One long-running piece of work, as recorded."""

    operation_id: str
    type: OperationType
    status: OperationStatus
    create_time: datetime
    update_time: datetime
    progress: Progress | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    metrics_count: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    cancel_time: datetime | None = None
    cancel_reason: str = ""
    result: PackedResult | None = None
    error: OperationError | None = None

    def reported(
        self, progress: Progress | None, update_time: datetime, metrics_count: int
    ) -> Operation:
        """The same with what its worker has reported."""
        return Operation(
            self.operation_id,
            self.type,
            self.status,
            self.create_time,
            update_time,
            progress,
            self.metadata,
            metrics_count,
            self.start_time,
            self.end_time,
            self.cancel_time,
            self.cancel_reason,
            self.result,
            self.error,
        )


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """An operation with what only its keeper needs to know."""

    operation: Operation
    owner: Owner
    request_id: str
    fingerprint: str
    """Digest of the validated request, to tell a repeat from a reuse."""
    starter: str = ""
    """The instance that started it on behalf of its own client; empty for a client itself."""
    outcome_read: bool = False
    """Whether the starter knows how it ended."""
    known_time: datetime | None = None
    """The instant the state is known for, if it is another process's; None if it is ours."""
    told_by: str = ""
    """The instance that tells a host to start it; the owner itself until it has chosen one.

    Empty if the owner does the work.
    """

    def of(self, operation: Operation) -> OperationRecord:
        """The same of a newer copy of the operation."""
        return OperationRecord(
            operation,
            self.owner,
            self.request_id,
            self.fingerprint,
            self.starter,
            self.outcome_read,
            self.known_time,
            self.told_by,
        )
