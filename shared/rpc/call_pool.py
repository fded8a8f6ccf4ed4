"""The threads of one class of calls, and how many calls it takes.

gRPC hands every call to the pool of its method, on the one thread that takes
calls in. There it is decided whether there is a place, before a thread is
spent on it. Calls for which there is none go to another pool, which only tells
them so: those turned away never stand in the way of those that are served.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from shared.rpc.client_waits import ClientWaits
from shared.rpc.errors import ResourceExhaustedError
from shared.rpc.return_times import ReturnTimes

P = ParamSpec("P")
T = TypeVar("T")

_here = threading.local()
"""`_here.refused_by` is the pool that had no place for the call on this thread."""


class CallPool(ThreadPoolExecutor):
    """Serves the calls of a class; `refusals` tells those beyond `places` to come back.

    Most classes have a thread for each place. Where places are more than
    threads, a call may wait for one that is answered at once.
    """

    def __init__(
        self,
        class_: str,
        threads: int,
        places: int,
        patience: float,
        refusals: ThreadPoolExecutor,
    ) -> None:
        """`patience` is how many seconds a call may wait for its client while others want in."""
        super().__init__(threads, thread_name_prefix=f"rpc_{class_}")
        self.class_ = class_
        self.waits = ClientWaits(patience)
        self._threads_at_most = threads
        self._places = places
        self._refusals = refusals
        self._returns = ReturnTimes()
        self._lock = threading.Lock()  # guards _taken
        self._taken = 0
        self.neighbours: Sequence[CallPool] = ()
        """Those that also make room when a call comes here: none may come there."""

    def submit(self, serve: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Serve a call, or have it refused."""
        for pool in self.neighbours:
            pool.make_room()
        if not self._enter():
            return self._refusals.submit(self._refuse, serve, *args, **kwargs)
        try:
            future = super().submit(self._serve, monotonic(), serve, *args, **kwargs)
        except RuntimeError:  # the pool has been shut down
            self._leave()
            raise
        future.add_done_callback(self._leave)
        return future

    def refusal(self) -> ResourceExhaustedError:
        """The error of one more call that finds no place."""
        return ResourceExhaustedError(
            f"Too many {self.class_} calls at once (limit {self._places}); come back in a moment.",
            retry_after=self._returns.take(),
            reason="TOO_MANY_CALLS",
            metadata={"class": self.class_, "limit": str(self._places)},
        )

    def make_room(self) -> int:
        """Give up calls that have waited for their client for too long, if others want in.

        Their number is returned; their threads are free as soon as they have noticed.
        """
        room = 0
        while self._taken - room >= self._threads_at_most and self.waits.give_up_one():
            room += 1
        return room

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

    def _refuse(self, serve: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        _here.refused_by = self
        try:
            return serve(*args, **kwargs)
        finally:
            _here.refused_by = None


def refused_by() -> CallPool | None:
    """The pool that had no place for the call on this thread; None if it is to be served."""
    pool: CallPool | None = getattr(_here, "refused_by", None)
    return pool
