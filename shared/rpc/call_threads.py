"""Threads that serve calls, and what it costs to hand one of them a call.

Every call goes from the thread that takes calls in to one that serves it. A
ThreadPoolExecutor spends a future with its condition, a semaphore and three locks
on that; gRPC needs to hear that the call is over, and no more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

logger = logging.getLogger("ktrdr.process")


_Handed = tuple["HandedCall", Callable[..., object], tuple[Any, ...], dict[str, Any]]
"""A call and what serves it."""


class HandedCall:
    """A call that is served on some thread; as much of a Future as gRPC asks for."""

    __slots__ = ("_callbacks", "_over")

    def __init__(self) -> None:
        self._over = False
        self._callbacks: list[Callable[[HandedCall], object]] = []

    def done(self) -> bool:
        """Whether it has been served, or has failed."""
        return self._over

    def add_done_callback(self, callback: Callable[[HandedCall], object]) -> None:
        """Have it called once with this call: when it is over, or now if it is."""
        self._callbacks.append(callback)
        if self._over:
            self._call_back()

    def end(self) -> None:
        """It is over."""
        self._over = True
        self._call_back()

    def _call_back(self) -> None:
        """Two threads may be here: each callback is taken off the list by one of them."""
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            callback(self)


class CallThreads(ThreadPoolExecutor):
    """Serves calls on as many threads as there are calls, up to `threads`.

    gRPC takes nothing but a ThreadPoolExecutor. This is one by name: none of its
    workings are used, and what it returns can be waited for by callback alone.
    """

    def __init__(self, threads: int, name: str) -> None:
        """`name` is what the threads' names begin with."""
        super().__init__(threads)
        self._at_most = threads
        self._name = name
        self._queue: SimpleQueue[_Handed | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards the fields below
        self.in_hand = 0
        """Calls that are served or wait for a thread; anyone may look."""
        self._serving: list[threading.Thread] = []
        self._closed = False

    def submit(  # type: ignore[override]  # gRPC asks no more of a Future
        self, serve: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> HandedCall:
        """Have a thread serve the call. Raises RuntimeError after `shutdown`."""
        call = HandedCall()
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads that serve calls have been shut down")
            self.in_hand += 1
            if len(self._serving) < min(self.in_hand, self._at_most):
                self._one_more_thread()
        self._queue.put((call, serve, args, kwargs))
        return call

    def _one_more_thread(self) -> None:
        # A daemon: whoever ends without a shutdown must not wait for a client for ever.
        thread = threading.Thread(
            target=self._serve_all, name=f"{self._name}_{len(self._serving)}", daemon=True
        )
        self._serving.append(thread)
        thread.start()

    def _serve_all(self) -> None:
        while (handed := self._queue.get()) is not None:
            call, serve, args, kwargs = handed
            serve_one(serve, *args, **kwargs)
            self._end(call)
            del handed, call, serve, args, kwargs  # not kept while the next one is awaited

    def _end(self, call: HandedCall) -> None:
        with self._lock:
            self.in_hand -= 1
        call.end()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end the threads once all in hand are served, and join them.

        With `cancel_futures` calls are dropped that no thread has begun to serve;
        without `wait` nothing is joined.
        """
        with self._lock:
            self._closed = True
        if cancel_futures:
            self._drop()
        for _ in self._serving:
            self._queue.put(None)
        if wait:
            for thread in self._serving:
                thread.join()

    def _drop(self) -> None:
        while True:
            try:
                handed = self._queue.get_nowait()
            except Empty:
                return
            if handed is not None:
                self._end(handed[0])


def serve_one(serve: Callable[..., object], /, *args: Any, **kwargs: Any) -> None:
    """Serve a call; what it raises is its own affair, and this thread goes on to the next."""
    try:
        serve(*args, **kwargs)
    except BaseException:
        logger.exception("Serving a call failed outside its servicer")
