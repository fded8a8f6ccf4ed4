"""The threads of one class of calls, and how many calls it takes.

gRPC hands every call to the pool of its method, on the one thread that takes
calls in. Whether there is a place, and whether too many wait behind it, is
decided there: at the server's door, or else here. A call that is turned away is
told so at once: no other thread is spent on it. Nor is one on a call with a
place until its message has come, if it may be received before; nor at all if
its answer is at hand then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from shared.rpc import handed_call
from shared.rpc.backlog import Backlog
from shared.rpc.client_waits import ClientWaits
from shared.rpc.door import Door
from shared.rpc.errors import ResourceExhaustedError
from shared.rpc.return_times import ReturnTimes
from shared.rpc.said_lately import SaidLately

logger = logging.getLogger("ktrdr.process")

P = ParamSpec("P")
T = TypeVar("T")

_MESSAGES = 64
"""Calls of a class whose messages are received before a thread is free: a thousand may queue."""
_here = threading.local()
"""`_here.refusal` makes the error for the call on this thread, if it is to be refused."""


_OVER: Future[Any] = Future()
"""Of every call that was answered at once."""
_OVER.set_result(None)


class _Awaited:
    """What gRPC takes for the future of a call whose message has not come; one thread's alone.

    All that gRPC does with a future is to ask to be told when it is done.
    """

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: list[Callable[[Future[Any]], object]] = []

    def add_done_callback(self, told: Callable[[Future[Any]], object]) -> None:
        """Have `told` called once the call has been served."""
        self._told.append(told)

    def become(self, serving: Future[Any]) -> None:
        """Say that the call is served now."""
        for told in self._told:
            serving.add_done_callback(told)


class CallPool(ThreadPoolExecutor):
    """Serves the calls of a class; tells those beyond `places` or too late to come back.

    Most classes have a thread for each place. Where places are more than
    threads, a call may wait for one that is answered at once.
    """

    def __init__(
        self,
        class_: str,
        threads: int,
        places: int,
        patience: float,
        backlog: Backlog,
    ) -> None:
        """`patience` is how many seconds a call may wait for its client while others want in."""
        super().__init__(threads, thread_name_prefix=f"rpc_{class_}")
        self.class_ = class_
        self.waits = ClientWaits(patience)
        self._threads_at_most = threads
        self._messages_at_most = max(threads, _MESSAGES)
        self._places = places
        self._backlog = backlog
        self._returns = ReturnTimes()
        self._said = SaidLately()
        self._lock = threading.Lock()  # guards _taken
        self._taken = 0
        self.door: Door | None = None
        """Of the server that has this pool as its first."""
        self.neighbours: Sequence[CallPool] = ()
        """Those that also make room when a call comes here: none may come there."""

    def is_shut(self) -> bool:
        """Whether the next call is to be turned away; as the rest of a gate, for the door."""
        # An unguarded look: a place that is free this moment is free for the next call.
        is_full = self._taken >= self._places and not self.waits.can_give_up_one()
        return is_full or self._backlog.is_late(self.class_)

    def turn_away(self) -> ResourceExhaustedError:
        """Count a call that has come while this was shut, and return its error."""
        is_late = self._backlog.is_late(self.class_)
        self._backlog.take_in(self.class_)
        if is_late:
            return self._late()
        self._clear_neighbours()
        return self._full()

    def let_go(self) -> None:
        """Count it no longer."""
        self._backlog.let_go()

    def submit(self, serve: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Serve a call, or refuse it."""
        if self._backlog.take_in(self.class_):
            return self._refuse(self._late, serve, *args, **kwargs)
        self._clear_neighbours()
        if not self._enter():
            return self._refuse(self._full, serve, *args, **kwargs)
        if self._taken <= self._messages_at_most and handed_call.is_receivable(args):
            future: Future[T] = self._receive(serve, args)
            return future
        return self._hand_over(serve, *args, **kwargs)

    def _hand_over(self, serve: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a thread serve a call that has its place."""
        try:
            future = super().submit(self._serve, monotonic(), serve, *args, **kwargs)
        except RuntimeError:  # the pool has been shut down
            self._leave()
            raise
        future.add_done_callback(self._leave)
        return future

    def _receive(self, serve: Callable[..., Any], handed: Sequence[Any]) -> Any:
        """Have a thread serve a call that has its place, once its message has come."""
        awaited = _Awaited()
        call = handed_call.call_in(handed)

        def hand_over(received: Sequence[Any], is_prepared: bool) -> None:
            self.waits.end(call)
            if is_prepared:
                self._answer(serve, received)
                awaited.become(_OVER)
                return
            try:
                serving = self._hand_over(serve, *received)
            except RuntimeError:  # the pool has been shut down, and with it goes the call
                serving = _OVER
            awaited.become(serving)

        self.waits.begin(call)
        handed_call.receive(handed, hand_over)
        return awaited

    def _answer(self, serve: Callable[..., Any], handed: Sequence[Any]) -> None:
        """Answer a call that has its place on this thread, since that takes no time."""
        try:
            serve(*handed)
        finally:
            self._leave()

    def _full(self) -> ResourceExhaustedError:
        """The error of one more call that finds no place."""
        return self._too_many(
            f"Too many {self.class_} calls at once (limit {self._places})", self._places
        )

    def _late(self) -> ResourceExhaustedError:
        """The error of a call behind which too many wait to be taken in."""
        limit = self._backlog.limit
        return self._too_many(f"Calls come faster than they are taken in ({limit} may wait)", limit)

    def _too_many(self, what: str, limit: int) -> ResourceExhaustedError:
        if self._said.is_due(what):
            logger.warning("Turning %s calls away: %s", self.class_, what)
        return ResourceExhaustedError(
            f"{what}; come back in a moment.",
            retry_after=self._returns.take(),
            reason="TOO_MANY_CALLS",
            metadata={"class": self.class_, "limit": str(limit)},
        )

    def make_room(self) -> int:
        """Give up calls that have waited for their client for too long, if others want in.

        Their number is returned; their threads are free as soon as they have noticed.
        """
        room = 0  # an unguarded look: a call too many or too few given up does no harm
        while self._taken - room >= self._threads_at_most and self.waits.give_up_one():
            room += 1
        return room

    def _clear_neighbours(self) -> None:
        for pool in self.neighbours:
            pool.make_room()

    def _enter(self) -> bool:
        room = self.make_room()
        with self._lock:
            if self._taken - room >= self._places:
                return False
            self._taken += 1
            return True

    def _leave(self, _: Any = None) -> None:
        with self._lock:
            self._taken -= 1

    def _serve(
        self, arrived: float, serve: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self.waits.note_arrival(arrived)
        return serve(*args, **kwargs)

    def _refuse(
        self,
        refusal: Callable[[], ResourceExhaustedError],
        serve: Callable[P, T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[T]:
        """Have the call refused on this thread; what is refused waits for nothing."""
        _here.refusal = refusal
        refused: Future[T] = Future()
        try:
            refused.set_result(serve(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  # this thread takes in all other calls too
            refused.set_exception(error)
        finally:
            _here.refusal = None
        return refused


def refusal() -> ResourceExhaustedError | None:
    """The error for the call on this thread; None if it is to be served."""
    make: Callable[[], ResourceExhaustedError] | None = getattr(_here, "refusal", None)
    return make() if make is not None else None
