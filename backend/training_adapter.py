"""Routing of trainings to training hosts: who gets one, and what if that fails.

Nothing runs here: a host trains, and the backend stands in for its operation.
A host that has certainly not begun may be passed over; one that may have begun
never is, so that no training runs twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf

from typing_extensions import deprecated

from backend.training_stub import Started, TrainingStatus, TrainingStub
from shared.clock import Clock, SystemClock
from shared.operations.model import Owner
from shared.operations.remote import PendingAnswer, RemoteOperationStub
from shared.operations.service import OperationsService
from shared.operations.starts import Launch
from shared.operations.store import ACTIVE
from shared.operations.views import OperationView
from shared.rpc.errors import (
    FailedPreconditionError,
    HostNotConnectedError,
    HostUnreachableError,
    KtrdrError,
    NotFoundError,
    ProcessStoppingError,
    ResourceExhaustedError,
    UnavailableError,
)
from shared.rpc.host_channel import HostChannel
from shared.training.launcher import TrainingOrder

logger = logging.getLogger("ktrdr.training")

HOST_ID_PREFIX = "host_training_"
"""What precedes the session_id in a training host's operation ids."""
LOOK = 1.0
"""Seconds that hosts have to say how busy they are."""
START = 10.0
"""Seconds that a host has to answer a start."""
ASK_AGAIN = 5.0
"""Seconds that a host has to answer the same start again, if the first answer was lost."""


class TrainingHost:
    """One training host and how to speak to it."""

    def __init__(self, channel: HostChannel) -> None:
        self.target = channel.target
        self.operations = RemoteOperationStub(channel)
        self.trainings = TrainingStub(channel)


@dataclass(frozen=True, slots=True)
class _Candidate:
    host: TrainingHost
    owner: Owner
    active_count: int


class TrainingAdapter:
    """Launches trainings on hosts: a `TrainingLauncher`."""

    def __init__(
        self,
        operations: OperationsService,
        hosts: Sequence[TrainingHost],
        clock: Clock | None = None,
    ) -> None:
        self._operations = operations
        self._hosts = tuple(hosts)
        self._clock = clock or SystemClock()

    def launch(self, order: TrainingOrder, deadline: float = inf) -> Launch:
        """Return the launch of one training on the host that is least busy then."""
        return _HostLaunch(self, order, deadline)

    @deprecated("Use RemoteOperationStub.get_operation() instead")
    def get_training_status(self, session_id: str) -> TrainingStatus:
        """Ask the hosts for a training by its session_id, in the old shape.

        Deprecated: `RemoteOperationStub.get_operation("host_training_" + session_id)` tells
        the same and more; clients read the backend's operation with GetOperation.
        Raises NotFoundError if no host knows it.
        """
        missing: KtrdrError | None = None
        for host in self._hosts:
            try:
                return host.trainings.get_training_status(session_id, timeout=ASK_AGAIN)
            except (NotFoundError, UnavailableError) as error:
                # That one does not know it says less than that one could not be asked.
                if missing is None or isinstance(missing, NotFoundError):
                    missing = error
        raise missing or NotFoundError("There are no training hosts.")

    def candidates(self, deadline: float) -> list[_Candidate]:
        """The hosts that answer, least busy first; raises if none does."""
        timeout = min(LOOK, self._left(deadline))
        asked = [
            (host, host.operations.begin_list_operations(ACTIVE, "", 1, timeout=timeout))
            for host in self._hosts
        ]
        found: list[_Candidate] = []
        silent: dict[str, KtrdrError] = {}
        for host, answer in asked:
            try:
                page = answer.result()
            except KtrdrError as error:
                logger.warning("Training host %s is passed over: %s", host.target, error)
                silent[host.target] = error
            else:
                owner = Owner(page.instance, page.incarnation, host.target)
                found.append(_Candidate(host, owner, page.active_count))
        if not found:
            raise _nobody(silent)
        return sorted(found, key=lambda candidate: candidate.active_count)

    def begin(
        self,
        order: TrainingOrder,
        operation_id: str,
        candidates: Sequence[_Candidate],
        deadline: float,
    ) -> None:
        """Start on the first candidate that takes it; raises if certainly none did.

        A candidate that has it already, from before this process forgot, comes first.
        """
        refused: dict[str, KtrdrError] = {}
        for candidate in self._knowing_first(operation_id, candidates, deadline):
            try:
                return self._begin_at(candidate, order, operation_id, deadline)
            except KtrdrError as error:
                if not _passes_over(error):
                    raise
                logger.warning("%s did not take %s: %s", candidate.host.target, operation_id, error)
                refused[candidate.host.target] = error
        raise _nobody(refused)

    def _knowing_first(
        self, operation_id: str, candidates: Sequence[_Candidate], deadline: float
    ) -> Sequence[_Candidate]:
        """Put the candidates in front that know the operation; one alone is not asked."""
        if len(candidates) < 2:
            return candidates
        timeout, asked = min(LOOK, self._left(deadline)), HOST_ID_PREFIX + operation_id
        answers = [
            candidate.host.operations.begin_get_operation(asked, timeout=timeout)
            for candidate in candidates
        ]
        known = [_answers(answer) for answer in answers]
        return [c for c, k in zip(candidates, known, strict=True) if k] + [
            c for c, k in zip(candidates, known, strict=True) if not k
        ]

    def _begin_at(
        self, candidate: _Candidate, order: TrainingOrder, operation_id: str, deadline: float
    ) -> None:
        """Record who is to train, tell it, and stand in for its operation."""
        host, host_operation_id = candidate.host, HOST_ID_PREFIX + operation_id
        facts = {
            "session_id": operation_id,
            "host_operation_id": host_operation_id,
            "host_service_url": host.target,
        }
        owner = candidate.owner
        self._operations.assign_owner(operation_id, owner, facts)

        def start(timeout: float) -> Started:
            started = host.trainings.start(order, operation_id, timeout=timeout)
            if started.operation_id != host_operation_id:
                raise self._not_a_host(host, started)
            return started

        started = self._tell(host, start, deadline)
        if started is not None and started.instance not in {"", owner.instance_id}:
            # Another process has come to the address since it was asked.
            owner = Owner(started.instance, "", host.target)
            self._operations.assign_owner(operation_id, owner, facts)
        self._operations.register_remote_stub(
            operation_id,
            host.operations,
            host_operation_id,
            start_again=start if started is None else None,
        )

    def _not_a_host(self, host: TrainingHost, started: Started) -> KtrdrError:
        """Undo what something else than a training host has started; the error that says so."""
        with suppress(KtrdrError):
            host.operations.cancel_operation(
                started.operation_id, "Started by mistake.", timeout=ASK_AGAIN
            )
        return FailedPreconditionError(
            f"{host.target} is no training host: it took the training as operation "
            f"{started.operation_id[:200]!r}, which has been told to stop. Set "
            "TRAINING_HOST_SERVICE_URL to the training host's address.",
            reason="NOT_A_HOST",
            metadata={"target": host.target},
        )

    def _tell(
        self, host: TrainingHost, start: Callable[[float], Started], deadline: float
    ) -> Started | None:
        """Start, and ask the same host again if its answer is lost; None if it stays unknown."""
        try:
            return start(min(START, self._left(deadline) * 0.6))
        except UnavailableError as error:
            if _passes_over(error):
                raise
            logger.warning("%s is asked again, its answer is lost: %s", host.target, error)
        try:
            return start(min(ASK_AGAIN, self._left(deadline)))
        except (UnavailableError, ResourceExhaustedError) as error:
            logger.warning("Whether %s has started is not known: %s", host.target, error)
            return None

    def _left(self, deadline: float) -> float:
        """Seconds until the caller has to be answered."""
        left = deadline - self._clock.monotonic()
        return max(0.0, left - max(0.05, left / 10)) if left < inf else inf


@dataclass(slots=True)
class _HostLaunch:
    """One training's way to a host."""

    adapter: TrainingAdapter
    order: TrainingOrder
    deadline: float
    candidates: Sequence[_Candidate] = ()

    def reserve(self) -> None:
        self.candidates = self.adapter.candidates(self.deadline)

    def begin(self, operation_id: str) -> None:
        self.adapter.begin(self.order, operation_id, self.candidates, self.deadline)

    def release(self) -> None:
        """Nothing was reserved: a host takes a training or refuses it when it is told."""


def _answers(answer: PendingAnswer[OperationView]) -> bool:
    """Whether an operation that was asked for is there."""
    try:
        answer.result()
    except KtrdrError:
        return False
    return True


def _passes_over(error: KtrdrError) -> bool:
    """Whether the host that gave this error has certainly not begun, and another may."""
    return (
        isinstance(error, ResourceExhaustedError | HostNotConnectedError)
        or error.reason == ProcessStoppingError.reason
    )


def _nobody(errors: Mapping[str, KtrdrError]) -> KtrdrError:
    """What the client gets if no host takes a training: the reason of each, in one error."""
    loops = [error for error in errors.values() if isinstance(error, FailedPreconditionError)]
    if loops and len(loops) == len(errors):
        return loops[0]
    told = " ".join(error.message for error in errors.values())
    facts = {"targets": ",".join(errors)}
    full = [error for error in errors.values() if isinstance(error, ResourceExhaustedError)]
    if full:
        return ResourceExhaustedError(
            f"No training host ({', '.join(errors)}) has room: {told}",
            retry_after=min(error.retry_after for error in full),
            reason=full[0].reason,
            metadata=facts,
        )
    return HostUnreachableError(f"No training host takes trainings now: {told}", metadata=facts)
