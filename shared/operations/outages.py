"""What could not be reached lately, and how many callers wait for it.

Both are per target: a hundred operations on a dead host cost one timeout, and a
stalled host keeps only so many callers waiting.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from weakref import WeakSet

from shared.clock import Clock
from shared.operations.live import LiveOperation
from shared.operations.source import OperationSource
from shared.rpc.errors import HostUnreachableError, KtrdrError, RefreshBusyError

logger = logging.getLogger("ktrdr.operations")


@dataclass(frozen=True, slots=True)
class _Failure:
    began_at: float
    until: float
    error: KtrdrError


class Outages:
    """Remembers failed reads for a moment and bounds who waits for a target.

    Says in the log, once, when an outage begins and when it is over.
    """

    def __init__(self, clock: Clock, *, memory: float, max_waiters_per_target: int) -> None:
        """`memory` is how long a failure is remembered, in seconds."""
        self._clock = clock
        self._memory = memory
        self.max_waiters = max_waiters_per_target
        self._lock = threading.Lock()  # guards the fields below
        self._failures: dict[str, _Failure] = {}
        self._waiting: Counter[str] = Counter()
        self._unreachable: dict[str, float] = {}
        """Targets that did not answer when last asked, and since when."""
        self._unread: WeakSet[LiveOperation] = WeakSet()
        """Operations that could not be read at a target that does answer."""

    def remember(
        self, live: LiveOperation, source: OperationSource, began_at: float, error: KtrdrError
    ) -> None:
        """Keep a failure: of the whole target if it is unreachable, else of the operation."""
        target = source.target
        key, whole = live.operation_id, False
        if target is not None and isinstance(error, HostUnreachableError):
            key, whole = target, True
        until = self._clock.monotonic() + self._memory
        with self._lock:
            self._failures = {k: f for k, f in self._failures.items() if f.until >= began_at}
            self._failures[key] = _Failure(began_at, until, error)
        if target is not None and whole:
            self._note_unreachable(target, began_at, error)
        elif target is not None:
            self._note_unread(live, target, error)

    def _note_unreachable(self, target: str, began_at: float, error: KtrdrError) -> None:
        with self._lock:
            known = target in self._unreachable
            self._unreachable.setdefault(target, began_at)
        if not known:
            logger.error("%s does not answer: %s", target, error.message)

    def _note_unread(self, live: LiveOperation, target: str, error: KtrdrError) -> None:
        with self._lock:
            known = live in self._unread
            self._unread.add(live)
        self._note_answer(target)
        if not known:
            logger.error("%s cannot tell of %s: %s", target, live.operation_id, error.message)

    def _note_answer(self, target: str) -> None:
        with self._lock:
            began_at = self._unreachable.pop(target, None)
        if began_at is not None:
            away = self._clock.monotonic() - began_at
            logger.info("%s answers again, after %.1f s", target, away)

    def forget(self, live: LiveOperation, source: OperationSource) -> None:
        """Forgive what has just answered."""
        target = source.target or ""
        # Unguarded looks: what is missed is seen by the next flight.
        if not (self._failures or self._unreachable or self._unread):
            return
        with self._lock:
            self._failures.pop(live.operation_id, None)
            self._failures.pop(target, None)
            unread = live in self._unread
            self._unread.discard(live)
        self._note_answer(target)
        if unread:
            logger.info("%s tells of %s again", target, live.operation_id)

    def unreachable(self) -> Collection[str]:
        """The targets that did not answer when last asked."""
        with self._lock:
            return tuple(self._unreachable)

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
        key = f"{target} to cancel" if to_cancel else target
        return _Place(self._lock, self._waiting, self.max_waiters, target, key)


class _Place:
    """One caller's place among those who wait; a generator would cost three times as much."""

    __slots__ = ("_key", "_lock", "_most", "_target", "_waiting")

    def __init__(
        self, lock: threading.Lock, waiting: Counter[str], most: int, target: str, key: str
    ) -> None:
        """`waiting` says how many there are by key; `lock` guards it, `most` is a key's limit."""
        self._lock = lock
        self._waiting = waiting
        self._most = most
        self._target = target
        self._key = key

    def __enter__(self) -> None:
        with self._lock:
            waiting = self._waiting.get(self._key, 0)
            if waiting >= self._most:
                raise RefreshBusyError(
                    f"Too many callers already wait for {self._target}; ask again in a moment.",
                    metadata={"target": self._target},
                )
            self._waiting[self._key] = waiting + 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            waiting = self._waiting.pop(self._key) - 1
            if waiting:
                self._waiting[self._key] = waiting
