"""Calls that have reached gRPC and that nobody here has seen yet.

One thread takes calls in. When it cannot keep up, calls wait before it, and every
answer is late, however few are being served. They are seen only in gRPC's own
counts: what is in gRPC and not in our hands waits.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import grpc

from shared.clock import Clock, SystemClock
from shared.rpc.interceptors import Behaviour, Handler, MethodInterceptor, rebuilt

_LOOK = 0.01
"""Seconds between looks at gRPC's counts, at least; one takes 0.2 ms, and 0.7 under load."""
_LOOK_AGAIN = 0.05
"""Seconds to the next, at most, while too many wait: others may have come to flood."""
_SHARE = 0.8
"""Of the calls of that class of which most are taken in; one with fewer is not behind."""
_CALM = 100
"""Calls to the next look, at least, while not half as many wait as may: one then costs nothing."""
_SPARED = 0.2
"""Of all calls: more of spared classes are what waits."""
_FEW = 4
"""Calls between looks that say nothing of a class."""


class Backlog:
    """How many calls wait to be taken in, and which classes of calls they are of.

    gRPC has a queue for each method and takes from them in turn. So classes whose
    queues do not empty are taken in alike often; a caller of another, however fast,
    comes back less often than its turn does, and has not waited behind the others.
    """

    def __init__(
        self,
        limit: int,
        under_way: Callable[[], int],
        spared: Collection[str] = (),
        clock: Clock | None = None,
    ) -> None:
        """`under_way` counts the calls that have come and not ended, taken in or not.

        Classes that are `spared` are never late. If theirs are many of the calls,
        none is: turning away the others would not make theirs fewer.
        """
        self._spared = frozenset(spared)
        self.limit = limit
        """Calls that may wait before some are turned away."""
        self._under_way = under_way
        self._clock = clock or SystemClock()
        # All of this is the thread's that takes calls in, but for what the lock guards.
        self._in_our_hands = 0
        self._looked = -_LOOK
        self._since_then = 0
        """Calls since that look."""
        self._enough = limit
        """Calls after which there is something new to see."""
        self._recent: Counter[str] = Counter()
        """Calls by class while too many wait; those before each look count half."""
        self._is_long = False
        self._flooding: frozenset[str] = frozenset()
        self._lock = threading.Lock()  # guards _ended_early
        self._ended_early = 0

    def take_in(self, class_: str) -> bool:
        """Note that a call is in our hands. True if too many of its class wait.

        Only on the thread that takes calls in, as `is_late` and `let_go`.
        """
        self._in_our_hands += 1
        self._recent[class_] += 1
        self._since_then += 1
        if self._is_long or self._since_then >= self._enough:
            now = self._clock.monotonic()
            wait = _LOOK if self._since_then >= self._enough else _LOOK_AGAIN
            if now - self._looked >= wait:
                self._looked, self._since_then = now, 0
                self._look()
        return class_ in self._flooding

    def is_late(self, class_: str) -> bool:
        """Whether too many calls of a class wait, as far as is known."""
        return class_ in self._flooding

    def let_go(self) -> None:
        """Note that a call has ended, with all of its answer sent; on the same thread."""
        self._in_our_hands -= 1

    def let_go_early(self) -> None:
        """Note on any thread that a call had ended before it was begun."""
        with self._lock:
            self._ended_early += 1

    def _look(self) -> None:
        with self._lock:
            self._in_our_hands -= self._ended_early
            self._ended_early = 0
        was_long = self._is_long
        waiting = self._under_way() - self._in_our_hands
        self._is_long = waiting > self.limit
        if not (was_long and self._is_long):  # what came before says nothing of who waits
            self._recent.clear()
            self._flooding = frozenset()
            self._enough = 1 if self._is_long else self._until_many(waiting)
            return
        # Until so many more have been taken in too many wait, unless some leave by themselves.
        self._enough = waiting - self.limit
        self._flooding = self._most()
        self._recent = Counter({c: n // 2 for c, n in self._recent.items()})

    def _until_many(self, waiting: int) -> int:
        """Calls after which more than may could wait."""
        return self.limit if 2 * waiting >= self.limit else max(self.limit, _CALM)

    def _most(self) -> frozenset[str]:
        """The classes of which most calls are taken in."""
        spared = sum(n for class_, n in self._recent.items() if class_ in self._spared)
        if spared >= _SPARED * self._recent.total():
            return frozenset()
        many = max(_FEW, _SHARE * max(self._recent.values(), default=0))
        return frozenset(c for c, n in self._recent.items() if n >= many) - self._spared


class BacklogInterceptor(MethodInterceptor):
    """Notes the end of every call; the outermost of a chain, so that none is missed."""

    def __init__(self, backlog: Backlog) -> None:
        super().__init__()
        self._backlog = backlog

    def wrap(self, method: str, handler: Handler) -> Handler:  # noqa: ARG002  # all alike
        """Return a handler that has gRPC tell when a call is over."""
        return rebuilt(handler, self._until_its_end)

    def _until_its_end(self, behaviour: Behaviour) -> Behaviour:
        let_go = self._backlog.let_go

        @functools.wraps(behaviour)
        def until_its_end(request: Any, context: grpc.ServicerContext, *rest: Any) -> Any:
            if not context.add_callback(let_go):  # it is over already
                self._backlog.let_go_early()
            return behaviour(request, context, *rest)

        return until_its_end
