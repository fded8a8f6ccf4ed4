"""HTTP/2 as a client that keeps to no rules speaks it: frames by hand, on a plain socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 0x1, 0x4
INITIAL_WINDOW = 0x4
"""The setting that says how many bytes the server may send before it is told to go on."""


class RawConnection:
    """A connection whose calls send what a test says and no more; reads nothing unless told."""

    def __init__(self, address: str, *, window: int = 65_535) -> None:
        """`window` bytes of each answer are taken."""
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._stream = 1
        settings = struct.pack("!HI", INITIAL_WINDOW, window)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))

    def begin(self, method: str, metadata: Iterable[tuple[str, str]] = ()) -> int:
        """Send the headers of a call, whose message may follow; return its stream."""
        stream, self._stream = self._stream, self._stream + 2
        fields = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "raw"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *metadata,
        )
        block = b"".join(_literal(name) for name in fields)
        self._socket.sendall(frame(HEADERS, END_HEADERS, stream, block))
        return stream

    def send(self, stream: int, data: bytes, *, last: bool = False) -> None:
        """Send bytes of a call's body."""
        self._socket.sendall(frame(DATA, END_STREAM if last else 0, stream, data))

    def write(self, data: bytes) -> None:
        """Send any bytes."""
        self._socket.sendall(data)

    def end(self, stream: int) -> None:
        """Say that no more will follow."""
        self.send(stream, b"", last=True)

    def read(self, seconds: float = 0.05) -> bytes:
        """Take what the server sends, until it hangs up or is silent for so long."""
        taken = b""
        self._socket.settimeout(seconds)
        with suppress(TimeoutError):
            while data := self._socket.recv(65_536):
                taken += data
        return taken

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def message(data: bytes) -> bytes:
    """A gRPC message as it is framed within a body."""
    return b"\x00" + struct.pack("!I", len(data)) + data


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, section 4.1): length, type, flags and stream, then payload."""
    return (
        struct.pack("!I", len(payload))[1:]
        + bytes((kind, flags))
        + struct.pack("!I", stream)
        + payload
    )


def _literal(field: tuple[str, str]) -> bytes:
    """A header as HPACK's plainest form: not indexed, not compressed."""
    name, value = (part.encode() for part in field)
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(data: bytes) -> bytes:
    """HPACK's integer with a prefix of seven bits."""
    size = len(data)
    if size < 127:
        return bytes((size,))
    size -= 127
    rest = bytearray((127,))
    while size >= 128:
        rest.append(size % 128 + 128)
        size //= 128
    return bytes((*rest, size))
