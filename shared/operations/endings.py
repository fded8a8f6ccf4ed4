"""How an operation ends, decided at the moment it ends.

Each function returns a decision: given the state and whether a cancellation was
asked for, it names the ending. The live operation calls it under its lock, so
that what was asked and what happened cannot cross.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from shared.operations.model import OperationError, OperationStatus, PackedResult
from shared.rpc.errors import Code, KtrdrError


@dataclass(frozen=True, slots=True)
class Ending:
    """How an operation ends."""

    status: OperationStatus
    end_time: datetime
    result: PackedResult | None = None
    error: OperationError | None = None


Decision = Callable[[OperationStatus, bool], Ending]

PROCESS_STOPPED = OperationError(
    Code.UNAVAILABLE,
    "PROCESS_STOPPED",
    "The process that ran the operation was stopped before the work was done. "
    "Start it again with a new request_id.",
    retryable=True,
)
OPERATION_LOST = OperationError(
    Code.DATA_LOSS,
    "OPERATION_LOST",
    "The process that ran the operation does not know it any more, as after a restart without "
    "its records: the outcome is unknown. Start it again with a new request_id.",
    retryable=True,
)
NEVER_STARTED = OperationError(
    Code.ABORTED,
    "NEVER_STARTED",
    "The process that was to have a host do the work was stopped before it had told one: nothing "
    "has run. Start it again with a new request_id.",
    retryable=True,
)


def process_restarted(last_news: datetime) -> OperationError:
    """The error of work that ended with its process, which could not record it."""
    return OperationError(
        Code.ABORTED,
        "PROCESS_RESTARTED",
        "The process that ran the operation ended without recording it, and was started again. "
        f"Progress and metrics are those last stored, as of {last_news:%Y-%m-%d %H:%M:%S} UTC. "
        "Start it again with a new request_id.",
        retryable=True,
    )


def completed(result: PackedResult, at: datetime) -> Decision:
    """The work is done; that wins over a cancellation that came too late."""
    return lambda _status, _cancel: Ending(OperationStatus.COMPLETED, at, result=result)


def failed(error: OperationError, at: datetime) -> Decision:
    """The work raised: FAILED, or CANCELLED with its cause if that was asked for."""

    def decide(_status: OperationStatus, cancel_wanted: bool) -> Ending:
        if not cancel_wanted:
            return Ending(OperationStatus.FAILED, at, error=error)
        cause = {"cause_reason": error.reason, "cause_message": error.message}
        return Ending(OperationStatus.CANCELLED, at, error=replace(_CANCELLED, metadata=cause))

    return decide


def stopped(at: datetime, *, process_stopping: bool) -> Decision:
    """The worker stopped as told: by whoever cancelled, or by the process's own end."""

    def decide(_status: OperationStatus, cancel_wanted: bool) -> Ending:
        if process_stopping and not cancel_wanted:
            return Ending(OperationStatus.FAILED, at, error=PROCESS_STOPPED)
        return Ending(OperationStatus.CANCELLED, at, error=_CANCELLED)

    return decide


def given_up(owner_away: KtrdrError, reason: str, at: datetime) -> Decision:
    """The owner does not answer, and somebody has decided to wait for it no longer."""
    facts = {"cause_reason": owner_away.reason, "reason": reason}
    error = OperationError(
        Code.ABORTED,
        "OWNER_GIVEN_UP",
        f"It was given up on request: {owner_away.message.rstrip('.')}. How the work ended, or "
        "whether it still goes on there, is not known. Start it again with a new request_id.",
        retryable=True,
        metadata={**owner_away.metadata, **{name: fact for name, fact in facts.items() if fact}},
    )
    return lambda _status, _cancel: Ending(OperationStatus.FAILED, at, error=error)


def error_of(raised: BaseException) -> OperationError:
    """Describe what a worker raised; of what we did not foresee, its own words."""
    if isinstance(raised, KtrdrError):
        return OperationError.of(raised)
    name = type(raised).__name__
    return OperationError(
        Code.INTERNAL,
        "WORKER_RAISED",
        f"The work failed with {name}: {words_of(raised)}. The log of the process that ran it has "
        "more.",
        metadata={"exception": name},
    )


def words_of(raised: BaseException) -> str:
    """What an exception says of itself; one that fails to must not keep its operation open."""
    try:
        return str(raised)
    except Exception as error:  # noqa: BLE001  # a stranger's code
        return f"it does not say what it is about ({type(error).__name__})"


_CANCELLED = OperationError(
    Code.CANCELLED, "CANCELLED", "The operation was cancelled on request.", retryable=False
)
