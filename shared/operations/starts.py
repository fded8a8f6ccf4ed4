"""Starting an operation once, however often and however concurrently it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Protocol

from shared.operations.model import OperationType
from shared.rpc.errors import RequestIdReusedError


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


class Launch(Protocol):
    """How the work of a new operation is got going; each is used once."""

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

    def once(self, new: NewOperation, start: Callable[[], None]) -> None:
        """Run `start`, or wait for the same start that is running and share its outcome.

        Raises what `start` raises, to every sharer; RequestIdReusedError if the
        one that is running is of a different request.
        """
        mine = _Start(new.fingerprint, Future())
        with self._lock:
            running = self._running.setdefault(new.operation_id, mine)
        if running is not mine:
            if running.fingerprint != new.fingerprint:
                raise RequestIdReusedError(new.request_id, new.operation_id)
            running.outcome.result()
            return
        try:
            start()
        except BaseException as error:
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
        return running is None or not wait([running.outcome], max(0.0, timeout)).not_done
