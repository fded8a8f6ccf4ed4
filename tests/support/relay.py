"""A network between two processes that a test can cut, freeze and redirect."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from tests.support.eventually import eventually

_CLOSE = 7
"""TCP_CLOSE of Linux (include/net/tcp_states.h): nothing more will come from the other end."""


class Relay:
    """Passes bytes between whoever connects to `address` and a target; owns its threads.

    While cut, connections are refused and those there were are closed. While
    frozen, connections are made and nothing passes. Whoever is cut off has
    noticed, and closed its own end, when the method returns.
    """

    def __init__(self, target: str) -> None:
        self._passing = threading.Event()
        self._passing.set()
        self._lock = threading.Lock()  # guards the fields below
        self._target = target
        self._before: tuple[bytes, Callable[[], None]] | None = None
        self._open: set[socket.socket] = set()
        self._near: set[socket.socket] = set()
        """Those of `_open` that lead to whoever has connected."""
        self._times_closed = 0
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        """None while cut."""
        self.address = f"127.0.0.1:{self._listen(0)}"

    def cut(self) -> None:
        """Refuse connections and close those there are."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            self._close(listener)  # first: who is cut off comes back at once
        self._close_connections()

    def restore(self) -> None:
        """Take connections again, at the same address, once nobody else has its port."""
        eventually(self._takes_its_port_again)

    def freeze(self) -> None:
        """Keep connections, and pass nothing on them."""
        self._passing.clear()

    def thaw(self) -> None:
        """Pass on what has come meanwhile, and everything after."""
        self._passing.set()

    def before(self, mark: bytes, call: Callable[[], None]) -> None:
        """Have `call` called once, when bytes with `mark` have come and before they pass."""
        with self._lock:
            self._before = (mark, call)

    def point_at(self, target: str) -> None:
        """Lead later connections to another target."""
        with self._lock:
            self._target = target

    def lead_to(self, target: str) -> None:
        """Close the connections there are, and lead later ones to another target.

        None is refused meanwhile: who was cut off finds the other at once.
        """
        self.point_at(target)
        self._close_connections()

    def close(self) -> None:
        """Cut, and join every thread."""
        self.cut()
        self._passing.set()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the relay hangs"

    def _close_connections(self) -> None:
        with self._lock:
            self._times_closed += 1
            sockets, self._open = self._open, set()
            near, self._near = self._near, set()
        watched = list(_duplicates(near))
        for each in sockets:
            self._close(each)
        for each in watched:
            with each:
                eventually(partial(_closed_by_both, each))

    def _takes_its_port_again(self) -> bool:
        try:
            self._listen(int(self.address.rpartition(":")[2]))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True

    def _listen(self, port: int) -> int:
        """Take connections at this port, or any for 0; return it."""
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        with self._lock:
            self._listener = listener
        found: int = listener.getsockname()[1]
        self._start(self._accept, listener)
        return found

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        with self._lock:
            host, _, port = self._target.rpartition(":")
            times_closed = self._times_closed
        try:
            far = socket.create_connection((host, int(port)))
        except OSError:
            self._close(near)
            return
        with self._lock:
            closed = self._listener is None or self._times_closed != times_closed  # meanwhile
            if not closed:
                self._open |= {near, far}
                self._near.add(near)
        if closed:
            self._close(near)
            self._close(far)
            return
        self._start(self._pass, near, far)
        self._start(self._pass, far, near)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._call_before(data)
                self._passing.wait()
                sink.sendall(data)
        self._close(source)
        self._close(sink)

    def _call_before(self, data: bytes) -> None:
        with self._lock:
            before = self._before
            if before is None or before[0] not in data:
                return
            self._before = None
        before[1]()

    def _start(self, run: object, *args: socket.socket) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]  # its own methods
        with self._lock:
            self._threads.append(thread)
        thread.start()

    @staticmethod
    def _close(each: socket.socket) -> None:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def _duplicates(sockets: Iterable[socket.socket]) -> Iterator[socket.socket]:
    """Other handles on connections, which outlive the closing of the first."""
    for each in sockets:
        with suppress(OSError):  # closed already, because an end of it was
            yield each.dup()


def _closed_by_both(connection: socket.socket) -> bool:
    """Whether the other end of a connection that was shut down here is closed as well."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSE
