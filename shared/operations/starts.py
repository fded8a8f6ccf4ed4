"""Starting an operation once, however often and however concurrently it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from shared.operations.model import OperationType
from shared.rpc.errors import RequestIdReusedError, UnavailableError


@dataclass(frozen=True, slots=True)
class NewOperation:
    """An operation that is to be."""

    operation_id: str
    """Follows from the request_id, so that a repeat finds it."""
    request_id: str
    type: OperationType
    fingerprint: str
    """Digest of the validated request, to tell a repeat from a reuse."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    starter: str = ""
    """The instance that starts it on behalf of its own client; empty for a client itself."""


class Launch(Protocol):
    """How the work of a new operation is got going, here or elsewhere; each is used once."""

    @property
    def elsewhere(self) -> bool:
        """Whether another process is told to do it."""
        ...

    def reserve(self) -> None:
        """Take what the work needs, or raise ResourceExhaustedError."""
        ...

    def begin(self, operation_id: str) -> None:
        """Register the operation's source and get the work going; do not wait for it."""
        ...

    def release(self) -> None:
        """Give back what was reserved: `begin` was not reached or raised."""
        ...


@dataclass(frozen=True, slots=True)
class _Start:
    fingerprint: str
    outcome: Future[None]


class Starts:
    """Lets concurrent starts of one operation share one outcome."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _running
        self._running: dict[str, _Start] = {}

    def once(self, new: NewOperation, start: Callable[[], None], timeout: float = inf) -> None:
        """Run `start`, or wait for the same start that is running and share its outcome.

        Raises what `start` raises, to every sharer; RequestIdReusedError if the
        one that is running is of a different request; UnavailableError
        START_UNDER_WAY if it is still running after `timeout` seconds.
        """
        mine = _Start(new.fingerprint, Future())
        with self._lock:
            running = self._running.setdefault(new.operation_id, mine)
        if running is not mine:
            if running.fingerprint != new.fingerprint:
                raise RequestIdReusedError(new.request_id, new.operation_id)
            _share(running.outcome, new.operation_id, timeout)
            return
        try:
            start()
        except BaseException as error:  # whatever it is, those who share the start get it too
            mine.outcome.set_exception(error)
            raise
        else:
            mine.outcome.set_result(None)
        finally:
            with self._lock:
                del self._running[new.operation_id]

    def settled(self, operation_id: str, timeout: float) -> bool:
        """Wait for a start that is running to end, well or not; False if it has not in time."""
        with self._lock:
            running = self._running.get(operation_id)
        return running is None or not wait([running.outcome], _at_most(timeout)).not_done


def _at_most(timeout: float) -> float | None:
    """Seconds as `wait` takes them: None is for ever."""
    return None if timeout == inf else max(0.0, timeout)


def _share(outcome: Future[None], operation_id: str, timeout: float) -> None:
    """Wait for another call's start and raise what it raised."""
    try:
        error = outcome.exception(_at_most(timeout))
    except TimeoutError:
        raise UnavailableError(
            f"Operation {operation_id} is being started by another call; send the same request "
            "again.",
            reason="START_UNDER_WAY",
        ) from None
    if error is not None:
        raise error
