"""Calls that have reached gRPC and that nobody here has seen yet.

One thread takes calls in. When it cannot keep up, calls wait before it, and every
answer is late, however few are being served. They are seen only in gRPC's own
counts: what is in gRPC and not in our hands waits.
"""

from __future__ import annotations

import functools
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import grpc

from shared.clock import Clock, SystemClock
from shared.rpc.interceptors import Behaviour, Handler, MethodInterceptor, rebuilt

_LOOK = 0.01
"""Seconds between looks at gRPC's counts, at least; one takes 0.1 ms, and 0.8 under load."""
_LOOK_AGAIN = 0.025
"""Seconds between looks while calls are turned away: how many are follows what is seen."""
_DEARER = 10.0
"""Refused calls that take as long as a served one. There are about three; taken for too few
the share that is let in would swing, taken for more it is found a little later."""
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

    While too many wait so many of them are turned away, drawn by lot, that those served
    and refused are just as many as come. Refusing in turns, all and then none, the
    calls that are served would have waited behind all that came meanwhile.

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
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`under_way` counts the calls that have come and not ended, taken in or not.

        Classes that are `spared` are never late. If theirs are many of the calls,
        none is: turning away the others would not make theirs fewer. `draw` draws
        lots, from 0 up to 1.
        """
        self._spared = frozenset(spared)
        self.limit = limit
        """Calls that may wait before some are turned away."""
        self._under_way = under_way
        self._clock = clock or SystemClock()
        self._draw = draw
        # All of this is the thread's that takes calls in, but for what the lock guards.
        self._in_our_hands = 0
        self._looked = -_LOOK
        self._waiting = 0
        """Calls that waited at that look."""
        self._since_then = self._turned_away = 0
        """Calls since that look, and those of them that were late."""
        self._enough = limit
        """Calls after which there is something new to see."""
        self._recent: Counter[str] = Counter()
        """Calls by class while too many wait; those before each look count half."""
        self._is_long = False
        self._flooding: frozenset[str] = frozenset()
        self._share = 1.0
        """Of the calls of these classes that is let in."""
        self._lot = 0.0
        """Of the next call of theirs: at the share or beyond it is late."""
        self._lock = threading.Lock()  # guards _ended_early
        self._ended_early = 0

    def take_in(self, class_: str) -> bool:
        """Note that a call is in our hands. True if it is late: too many of its class wait.

        Only on the thread that takes calls in, as `is_late` and `let_go`.
        """
        self._in_our_hands += 1
        self._recent[class_] += 1
        self._since_then += 1
        if self._is_long or self._since_then >= self._enough:
            now = self._clock.monotonic()
            if now - self._looked >= (_LOOK_AGAIN if self._flooding else _LOOK):
                self._looked = now
                self._look()
        is_late = self.is_late(class_)
        self._turned_away += is_late
        self._lot = self._draw() if self._flooding else 0.0
        return is_late

    def is_late(self, class_: str) -> bool:
        """Whether the next call is late if it is of a class, as far as is known.

        What was seen too long ago is no knowledge: whoever asks takes the call in, and looks.
        """
        if class_ not in self._flooding or self._lot < self._share:
            return False
        return self._clock.monotonic() - self._looked < _LOOK_AGAIN

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
        taken, refused, before = self._since_then, self._turned_away, self._waiting
        self._since_then = self._turned_away = 0
        self._waiting = self._under_way() - self._in_our_hands
        was_long, self._is_long = self._is_long, self._waiting > self.limit
        # As many will come as came since the last look, and those too many that wait are
        # to be taken in besides.
        ahead = taken + (self._waiting - before) + (self._waiting - self.limit)
        bearable = _bearable(max(0, taken - refused), refused, ahead)
        if self._flooding and bearable < ahead:
            self._is_long = True
        if was_long and self._is_long:
            self._turn_away(bearable, ahead)
        else:  # what came before says nothing of who waits
            self._enough = self.limit if self._flooding else self._until_many()
            self._recent.clear()
            self._flooding = frozenset()

    def _turn_away(self, bearable: float, ahead: int) -> None:
        """From now on let in as many of the calls ahead as are bearable."""
        self._flooding = self._most()
        flooding = sum(n for class_, n in self._recent.items() if class_ in self._flooding)
        theirs = ahead * flooding / max(1, self._recent.total())
        self._share = max(0.0, bearable - (ahead - theirs)) / theirs if theirs > 0 else 1.0
        self._recent = Counter({c: n // 2 for c, n in self._recent.items()})

    def _until_many(self) -> int:
        """Calls after which more than may could wait."""
        return self.limit if 2 * self._waiting >= self.limit else max(self.limit, _CALM)

    def _most(self) -> frozenset[str]:
        """The classes of which most calls are taken in."""
        spared = sum(n for class_, n in self._recent.items() if class_ in self._spared)
        if spared >= _SPARED * self._recent.total():
            return frozenset()
        many = max(_FEW, _SHARE * max(self._recent.values(), default=0))
        return frozenset(c for c, n in self._recent.items() if n >= many) - self._spared


def _bearable(served: int, refused: int, ahead: int) -> float:
    """How many of the calls ahead can be served, and the others refused, in the same time.

    `served` and `refused` say how much time that is.
    """
    return (_DEARER * served + refused - ahead) / (_DEARER - 1)


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
