"""What may listen at a host's address and is no ktrdr process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HTTP_1 = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n"
NOISE = bytes(range(256)) * 16


@contextmanager
def says(answer: bytes) -> Iterator[str]:
    """Answer the first bytes of each connection with these and close it; yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, answer), daemon=True)
        thread.start()
        try:
            yield _address(listener)
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@contextmanager
def says_nothing() -> Iterator[str]:
    """Accept connections, in the backlog, and say nothing; yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield _address(listener)


def _serve(listener: socket.socket, answer: bytes) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            with near, suppress(OSError):
                near.settimeout(5)
                near.recv(4096)
                near.sendall(answer)


def _address(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"
