"""Routing of work to other hosts: who gets it, and what if that fails.

Nothing runs here: a host works, and the backend stands in for its operation.
A host that has certainly not begun may be passed over; one that may have begun
never is, so that nothing runs twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Generic, Protocol, TypeVar

from backend.started import Started
from shared.clock import Clock, SystemClock
from shared.operations.model import Owner
from shared.operations.registry import HOST_OPERATION_ID
from shared.operations.remote import PendingAnswer, RemoteOperationStub
from shared.operations.service import OperationsService
from shared.operations.starts import Launch
from shared.operations.store import ACTIVE
from shared.operations.views import OperationView
from shared.rpc.errors import (
    FailedPreconditionError,
    HostDeniedError,
    HostNotConnectedError,
    HostUnreachableError,
    KtrdrError,
    ProcessStoppingError,
    ResourceExhaustedError,
    UnavailableError,
)

logger = logging.getLogger("ktrdr.hosts")

LOOK = 1.0
"""Seconds that hosts have to say how busy they are."""
START = 10.0
"""Seconds that a host has to answer a start."""
ASK_AGAIN = 5.0
"""Seconds that a host has to answer the same start again, if the first answer was lost."""

OrderT = TypeVar("OrderT")
OrderT_contra = TypeVar("OrderT_contra", contravariant=True)


class WorkHost(Protocol[OrderT_contra]):
    """A host that takes orders of one kind."""

    target: str
    operations: RemoteOperationStub

    def start(self, order: OrderT_contra, request_id: str, *, timeout: float) -> Started:
        """Start the work under this request_id; return what the host made of it."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of work that hosts do."""

    host: str
    """What such a host is called."""
    work: str
    """What it takes, in the plural."""
    setting: str
    """The variable that names the hosts."""
    id_prefix: str
    """What precedes the session_id in the hosts' operation ids."""


@dataclass(frozen=True, slots=True)
class Candidate(Generic[OrderT]):
    """A host that has said how busy it is."""

    host: WorkHost[OrderT]
    owner: Owner
    active_count: int


class HostAdapter(Generic[OrderT]):
    """Launches work on hosts: the launcher of its kind of work."""

    def __init__(
        self,
        operations: OperationsService,
        hosts: Sequence[WorkHost[OrderT]],
        route: Route,
        clock: Clock | None = None,
    ) -> None:
        self._operations = operations
        self._hosts = tuple(hosts)
        self._route = route
        self._clock = clock or SystemClock()

    def launch(self, order: OrderT, deadline: float = inf) -> Launch:
        """Return the launch of one order on the host that is least busy then."""
        return _HostLaunch(self, order, deadline)

    def candidates(self, deadline: float) -> list[Candidate[OrderT]]:
        """The hosts that answer, least busy first; raises if none does."""
        timeout, kind = min(LOOK, self._left(deadline)), self._route.host.capitalize()
        asked = [
            (host, host.operations.begin_list_operations(ACTIVE, "", 1, timeout=timeout))
            for host in self._hosts
        ]
        found: list[Candidate[OrderT]] = []
        silent: dict[str, KtrdrError] = {}
        for host, answer in asked:
            try:
                page = answer.result()
            except KtrdrError as error:
                logger.warning("%s %s is passed over: %s", kind, host.target, error)
                silent[host.target] = error
            else:
                owner = Owner(page.instance, page.incarnation, host.target)
                found.append(Candidate(host, owner, page.active_count))
        if not found:
            raise self._nobody(silent)
        return sorted(found, key=lambda candidate: candidate.active_count)

    def begin(
        self,
        order: OrderT,
        operation_id: str,
        candidates: Sequence[Candidate[OrderT]],
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
        raise self._nobody(refused)

    def _knowing_first(
        self, operation_id: str, candidates: Sequence[Candidate[OrderT]], deadline: float
    ) -> Sequence[Candidate[OrderT]]:
        """Put the candidates in front that know the operation; one alone is not asked."""
        if len(candidates) < 2:
            return candidates
        timeout, asked = min(LOOK, self._left(deadline)), self._route.id_prefix + operation_id
        answers = [
            candidate.host.operations.begin_get_operation(asked, timeout=timeout)
            for candidate in candidates
        ]
        known = [_answers(answer) for answer in answers]
        return [c for c, k in zip(candidates, known, strict=True) if k] + [
            c for c, k in zip(candidates, known, strict=True) if not k
        ]

    def _begin_at(
        self, candidate: Candidate[OrderT], order: OrderT, operation_id: str, deadline: float
    ) -> None:
        """Record who is to work, tell it, and stand in for its operation."""
        host, host_operation_id = candidate.host, self._route.id_prefix + operation_id
        facts = {
            "session_id": operation_id,
            HOST_OPERATION_ID: host_operation_id,
            "host_service_url": host.target,
        }
        owner = candidate.owner
        self._operations.assign_owner(operation_id, owner, facts)

        def start(timeout: float) -> Started:
            started = host.start(order, operation_id, timeout=timeout)
            if started.operation_id != host_operation_id:
                raise self._not_a_host(host, started)
            return started

        started = self._tell(host, start, deadline)
        if started is not None and started.instance not in {"", owner.instance_id}:
            # Another process has come to the address since it was asked.
            owner = Owner(started.instance, "", host.target)
            self._operations.assign_owner(operation_id, owner, facts)

        def start_again(timeout: float) -> Started:
            give_up_at = self._clock.monotonic() + timeout
            self._operations.assign_owner(operation_id, owner, facts)
            return start(max(0.0, give_up_at - self._clock.monotonic()))

        self._operations.register_remote_stub(
            operation_id,
            host.operations,
            host_operation_id,
            start_again=start_again if started is None else None,
        )

    def _not_a_host(self, host: WorkHost[OrderT], started: Started) -> KtrdrError:
        """Undo what something else than such a host has started; the error that says so."""
        with suppress(KtrdrError):
            host.operations.cancel_operation(
                started.operation_id, "Started by mistake.", timeout=ASK_AGAIN
            )
        return FailedPreconditionError(
            f"{host.target} is no {self._route.host}: it took what it was sent as operation "
            f"{started.operation_id[:200]!r}, which has been told to stop. Set "
            f"{self._route.setting} to the {self._route.host}'s address.",
            reason="NOT_A_HOST",
            metadata={"target": host.target},
        )

    def _tell(
        self, host: WorkHost[OrderT], start: Callable[[float], Started], deadline: float
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

    def _nobody(self, errors: Mapping[str, KtrdrError]) -> KtrdrError:
        """What the client gets if no host takes an order: the reason of each, in one error."""
        loops = [error for error in errors.values() if isinstance(error, FailedPreconditionError)]
        if loops and len(loops) == len(errors):
            return loops[0]
        told = " ".join(error.message for error in errors.values())
        facts = {"targets": ",".join(errors)}
        full = [error for error in errors.values() if isinstance(error, ResourceExhaustedError)]
        if full:
            return ResourceExhaustedError(
                f"No {self._route.host} ({', '.join(errors)}) has room: {told}",
                retry_after=min(error.retry_after for error in full),
                reason=full[0].reason,
                metadata=facts,
            )
        route = self._route
        return HostUnreachableError(
            f"No {route.host} takes {route.work} now: {told}", metadata=facts
        )

    def _left(self, deadline: float) -> float:
        """Seconds until the caller has to be answered."""
        left = deadline - self._clock.monotonic()
        return max(0.0, left - max(0.05, left / 10)) if left < inf else inf


@dataclass(slots=True)
class _HostLaunch(Generic[OrderT]):
    """One order's way to a host."""

    elsewhere: ClassVar[bool] = True
    adapter: HostAdapter[OrderT]
    order: OrderT
    deadline: float
    candidates: Sequence[Candidate[OrderT]] = ()

    def reserve(self) -> None:
        self.candidates = self.adapter.candidates(self.deadline)

    def begin(self, operation_id: str) -> None:
        self.adapter.begin(self.order, operation_id, self.candidates, self.deadline)

    def release(self) -> None:
        """Nothing was reserved: a host takes an order or refuses it when it is told."""


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
        isinstance(error, ResourceExhaustedError | HostNotConnectedError | HostDeniedError)
        or error.reason == ProcessStoppingError.reason
    )
