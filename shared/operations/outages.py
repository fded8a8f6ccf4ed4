"""What could not be reached lately, and how many callers wait for it.

Both are per target: a hundred operations on a dead host cost one timeout, and a
stalled host keeps only so many callers waiting.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass

from shared.clock import Clock
from shared.operations.live import LiveOperation
from shared.operations.source import OperationSource
from shared.rpc.errors import HostUnreachableError, KtrdrError, RefreshBusyError


@dataclass(frozen=True, slots=True)
class _Failure:
    began_at: float
    until: float
    error: KtrdrError


class Outages:
    """Remembers failed reads for a moment and bounds who waits for a target."""

    def __init__(self, clock: Clock, *, memory: float, max_waiters_per_target: int) -> None:
        """`memory` is how long a failure is remembered, in seconds."""
        self._clock = clock
        self._memory = memory
        self.max_waiters = max_waiters_per_target
        self._lock = threading.Lock()  # guards the two fields below
        self._failures: dict[str, _Failure] = {}
        self._waiting: Counter[str] = Counter()

    def remember(
        self, live: LiveOperation, source: OperationSource, began_at: float, error: KtrdrError
    ) -> None:
        """Keep a failure: of the whole target if it is unreachable, else of the operation."""
        key = live.operation_id
        if source.target is not None and isinstance(error, HostUnreachableError):
            key = source.target
        until = self._clock.monotonic() + self._memory
        with self._lock:
            self._failures = {k: f for k, f in self._failures.items() if f.until >= began_at}
            self._failures[key] = _Failure(began_at, until, error)

    def forget(self, live: LiveOperation, source: OperationSource) -> None:
        """Forgive what has just answered."""
        if self._failures:  # unguarded look: what is missed is seen by the next flight
            with self._lock:
                self._failures.pop(live.operation_id, None)
                self._failures.pop(source.target or "", None)

    def recall(
        self, live: LiveOperation, source: OperationSource, since: float
    ) -> KtrdrError | None:
        """The failure that still stands; one that did not begin after `since` does not."""
        if not self._failures:  # unguarded look: what is missed is met by the read itself
            return None
        now = self._clock.monotonic()
        with self._lock:
            for key in (source.target, live.operation_id):
                failure = self._failures.get(key or "")
                if failure is not None and failure.until > now and failure.began_at > since:
                    return failure.error
        return None

    def waiting_for(self, target: str, *, to_cancel: bool = False) -> AbstractContextManager[None]:
        """Be one of those who wait for a target; raises RefreshBusyError if they are enough.

        Those who cancel are counted by themselves: readers must not keep them away.
        """
        return _Place(self, target, f"{target} to cancel" if to_cancel else target)

    def enter(self, target: str, key: str) -> None:
        """Take a place; for `waiting_for`."""
        with self._lock:
            if self._waiting[key] >= self.max_waiters:
                raise RefreshBusyError(
                    f"Too many callers already wait for {target}; ask again in a moment.",
                    metadata={"target": target},
                )
            self._waiting[key] += 1

    def leave(self, key: str) -> None:
        """Give a place back; for `waiting_for`."""
        with self._lock:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]


class _Place:
    """One caller's place among those who wait; a generator would cost three times as much."""

    __slots__ = ("_key", "_outages", "_target")

    def __init__(self, outages: Outages, target: str, key: str) -> None:
        self._outages = outages
        self._target = target
        self._key = key

    def __enter__(self) -> None:
        self._outages.enter(self._target, self._key)

    def __exit__(self, *_: object) -> None:
        self._outages.leave(self._key)
