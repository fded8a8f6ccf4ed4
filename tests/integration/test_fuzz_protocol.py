"""Odd metadata, and clients that do not keep to gRPC's protocol or HTTP's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from threading import active_count

import grpc
import pytest
from grpc import StatusCode

from tests.integration.refusals import refusal_of
from tests.integration.running import RunningBackend
from tests.support.documented_codes import documented_codes
from tests.support.eventually import eventually
from tests.support.raw_http2 import HEADERS as KIND_HEADERS
from tests.support.raw_http2 import RawConnection, frame, message

GET = "/ktrdr.operations.v1.OperationsService/GetOperation"
CHECK = "/grpc.health.v1.Health/Check"
REQUESTS = {GET: b"\x0a\x01x", CHECK: b"", "/ktrdr.operations.v1.OperationsService/Nothing": b""}
Metadata = Sequence[tuple[str, str | bytes]]

ODD: Sequence[Metadata] = [
    *([("ktrdr-via", way)] for way in ("", ",", "a,,b", "x" * 65, "a b", "../..", "~", "a," * 50)),
    [("ktrdr-via", "a"), ("ktrdr-via", "b"), ("ktrdr-via", "a" * 64)],
    [("ktrdr-via", f"hop{number}") for number in range(40)],
    *([("authorization", told)] for told in ("", "Bearer", "Bearer ", "Basic !!", "x" * 4000)),
    [("authorization", "Bearer a"), ("authorization", "Bearer b")],
    [("grpc-status-details-bin", b"\xff" * 1000)],
    [("odd-bin", bytes(range(256)))],
    [("user-agent", "x" * 3000)],
    [(f"key{number}", "value") for number in range(100)],
]
TOO_MUCH: Sequence[Metadata] = [
    [("large", "x" * 20_000)],
    [("large", "x" * 200_000)],
    [(f"key{number}", "x" * 100) for number in range(2_000)],
]
"""What gRPC refuses by itself, before a call is one of ours."""
HEADERS: Sequence[tuple[str, str]] = [
    *(("grpc-timeout", told) for told in ("", "1", "-1S", "9" * 20 + "H", "1x", "0n", "1.5S")),
    *(("grpc-encoding", told) for told in ("gzip", "foo", "\x00")),
    ("content-type", "text/html"),
    ("Upper", "Case"),
    (":path", "/twice"),
    ("", ""),
    ("te", "\u00ff"),
    ("key", "va\r\nlue"),
]
BODIES = [
    b"",
    b"\x00",
    b"\x01\x00\x00\x00\x01x",  # compressed, it says, and not how
    b"\x07\x00\x00\x00\x01x",
    b"\x00\xff\xff\xff\xff",
    b"\x00\x00\x00\x00\x05x",
    message(b"") * 100,
    message(b"\xff" * 100),
]
FRAMES = [
    frame(KIND_HEADERS, 0x4, 1, b"\x80"),
    frame(KIND_HEADERS, 0x4, 0, b""),
    frame(9, 0, 1, b"x" * 1000),  # a continuation of nothing
    frame(7, 0, 0, b"\x00" * 8),
    frame(4, 0, 0, b"x"),
    frame(8, 0, 0, b"\x7f\xff\xff\xff"),
    frame(200, 255, 2**31 - 1, b"unknown"),
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xff" * 100,
]


def outcome(running: RunningBackend, method: str, metadata: Metadata) -> tuple[StatusCode, str]:
    """The code a call ends with, and the domain of its error."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = running.channel.unary_unary(method)
    try:
        call(REQUESTS[method], timeout=10.0, metadata=tuple(metadata))
    except grpc.RpcError as error:
        refused = refusal_of(error)
        return refused.code, refused.domain
    return StatusCode.OK, "ktrdr"


@pytest.mark.parametrize("method", REQUESTS)
def test_odd_metadata_is_ignored_or_refused_as_documented(
    running: RunningBackend, method: str
) -> None:
    expected = documented_codes().get(method, {StatusCode.UNIMPLEMENTED})
    for metadata in ODD:
        code, domain = outcome(running, method, metadata)
        assert code in expected | {StatusCode.INVALID_ARGUMENT}, metadata
        assert "ktrdr" == domain, metadata


@pytest.mark.parametrize("metadata", TOO_MUCH, ids=["long", "longer", "many"])
def test_too_much_metadata_is_refused_and_forgotten(
    running: RunningBackend, metadata: Metadata
) -> None:
    code, _ = outcome(running, CHECK, metadata)
    assert code in {StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE}
    eventually(lambda: outcome(running, CHECK, ()) == (StatusCode.OK, "ktrdr"))


def test_clients_that_break_the_protocol_are_left_to_themselves(running: RunningBackend) -> None:
    before = active_count()
    address = running.address
    for header in HEADERS:
        with RawConnection(address) as raw, suppress(OSError):
            raw.begin(GET, [header])
            raw.read()
    for body in BODIES:
        with RawConnection(address) as raw, suppress(OSError):
            raw.send(raw.begin(GET), body, last=True)
            raw.read()
    for broken in FRAMES:
        with RawConnection(address) as raw, suppress(OSError):
            raw.write(broken)
            raw.read()
    for method in (CHECK, GET):
        code, domain = outcome(running, method, ())
        assert (code, domain) in {(StatusCode.OK, "ktrdr"), (StatusCode.NOT_FOUND, "ktrdr")}
    eventually(lambda: not any(pool._taken for pool in running.backend.server._pools))
    assert active_count() <= before + 10
