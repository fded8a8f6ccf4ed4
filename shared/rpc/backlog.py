"""Calls that have reached gRPC and that nobody here has seen yet.

One thread takes calls in. When it cannot keep up, calls wait before it, and every
answer is late, however few are being served. They are seen only in gRPC's own
counts of a server's calls (channelz): what is in gRPC and not in our hands waits.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz import ChannelzServicer

from shared.clock import Clock, SystemClock
from shared.rpc.interceptors import Behaviour, Handler, MethodInterceptor, rebuilt

_LOOK = 0.01
"""Seconds between looks at gRPC's counts; one takes about 0.07 ms."""
_LOOK_AGAIN = 0.005
"""The same while too many wait, so that none is turned away for what is long past."""
_SHARE = 0.8
"""Of the calls of that class of which most are taken in; one with fewer is not behind."""
_BUSY = 0.25
"""Of the limit: with fewer calls in our hands nobody looks whether more wait."""
_FEW = 4
"""Calls between looks that say nothing of a class."""
_creating = threading.Lock()
"""Held while a server is created, so that the one that is new is that one."""


class _NoCall:
    """What gRPC's own servicer tells of an error, when it is asked without a call."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Nobody listens."""

    def set_details(self, details: str) -> None:
        """Nobody listens."""


_NO_CALL: Any = _NoCall()


class ServerCalls:
    """gRPC's counts of one server's calls."""

    def __init__(self) -> None:
        self._request: channelz_pb2.GetServerRequest | None = None

    def count(self, create: Callable[[], grpc.Server]) -> grpc.Server:
        """Return the server that `create` makes; its calls are counted from now on.

        Raises RuntimeError unless it makes one server.
        """
        with _creating:
            newest = max(_servers(0), default=0)
            server = create()
            new = _servers(newest + 1)
        if len(new) != 1:
            raise RuntimeError(f"gRPC counts calls of {len(new)} new servers; one was expected")
        self._request = channelz_pb2.GetServerRequest(server_id=new[0])
        return server

    def under_way(self) -> int:
        """How many calls have reached the server and not ended; 0 without a server."""
        if self._request is None:
            return 0
        found = ChannelzServicer.GetServer(self._request, _NO_CALL)
        if found is None:  # the server is gone
            return 0
        counts = found.server.data
        return counts.calls_started - counts.calls_succeeded - counts.calls_failed


def _servers(first: int) -> list[int]:
    """Ids of this process's servers, from `first` on, in the order they were created."""
    ids: list[int] = []
    while True:
        request = channelz_pb2.GetServersRequest(start_server_id=first)
        page = ChannelzServicer.GetServers(request, _NO_CALL)
        ids += [server.ref.server_id for server in page.server]
        if page.end:
            return ids
        first = ids[-1] + 1


class Backlog:
    """How many calls wait to be taken in, and which classes of calls they are of.

    gRPC has a queue for each method and takes from them in turn. So classes whose
    queues do not empty are taken in alike often; a caller of another, however fast,
    comes back less often than its turn does, and has not waited behind the others.
    """

    def __init__(
        self, limit: int, under_way: Callable[[], int], clock: Clock | None = None
    ) -> None:
        """`under_way` counts the calls that have come and not ended, taken in or not."""
        self.limit = limit
        self._under_way = under_way
        self._clock = clock or SystemClock()
        # All of this is the thread's that takes calls in, but for what the lock guards.
        self._in_our_hands = 0
        self._looked = -_LOOK
        self._since_then = 0
        """Calls since that look."""
        self._recent: Counter[str] = Counter()
        """Calls by class while too many wait; those before each look count half."""
        self._is_long = False
        self._flooding: frozenset[str] = frozenset()
        self._lock = threading.Lock()  # guards _ended_early
        self._ended_early = 0

    def take_in(self, class_: str) -> bool:
        """Note that a call is in our hands; whether it is of a class too many of which wait."""
        self._in_our_hands += 1
        self._recent[class_] += 1
        self._since_then += 1
        if self._is_long or (self._since_then >= self.limit and self._busy()):
            now = self._clock.monotonic()
            if now - self._looked >= (_LOOK_AGAIN if self._is_long else _LOOK):
                self._looked, self._since_then = now, 0
                self._look()
        return class_ in self._flooding

    def _busy(self) -> bool:
        """Whether so much is in our hands that more may wait; a few callers in turn are not."""
        return self._in_our_hands >= _BUSY * self.limit

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
        self._is_long = self._under_way() - self._in_our_hands > self.limit
        if not (was_long and self._is_long):  # what came before says nothing of who waits
            self._recent.clear()
            self._flooding = frozenset()
            return
        many = max(_FEW, _SHARE * max(self._recent.values(), default=0))
        self._flooding = frozenset(c for c, n in self._recent.items() if n >= many)
        self._recent = Counter({c: n // 2 for c, n in self._recent.items()})


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
