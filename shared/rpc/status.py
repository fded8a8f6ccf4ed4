"""A domain error as a gRPC status with google.rpc details.

Details travel in a trailer, the message beside them with three bytes for each
byte that is not ASCII. All trailers of a call together must stay below gRPC's
8 KiB, or the whole call fails: so details stay below 4 KiB and the message
below 1 KiB, and both show what they leave out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from shared.rpc.errors import Code, InvalidArgumentError, KtrdrError

DOMAIN = "ktrdr"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
MAX_DETAILS = 4 * 1024
MAX_MESSAGE = 1024
_MAX_INFO = 1536
_MAX_VALUE = 256
_MAX_KEY = 64
_ENVELOPE = 80
"""Bytes around the violations: the Any they are packed in, and `and N more`."""
_LONGEST_DELAY = 3600.0
_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


def grpc_code(code: Code) -> grpc.StatusCode:
    """Return gRPC's name of a google.rpc.Code."""
    return _GRPC_CODES[int(code)]


def status_of(error: KtrdrError) -> status_pb2.Status:
    """Build the google.rpc.Status of an error, with all details that fit."""
    return status_pb2.Status.FromString(_encoded(error))


def trailers_of(error: KtrdrError) -> tuple[tuple[str, str | bytes], ...]:
    """Build the trailing metadata of an error.

    UNAVAILABLE carries a pushback, so that a client with a retry policy does
    not come back at once.
    """
    details: tuple[str, str | bytes] = (DETAILS_KEY, _encoded(error))
    milliseconds = _retry_after(error)
    if error.code is not Code.UNAVAILABLE or milliseconds is None:
        return (details,)
    return (details, (PUSHBACK_KEY, str(milliseconds)))


def shorten(text: str, size: int) -> str:
    """Cut a text to `size` bytes of UTF-8, visibly; what UTF-8 cannot hold becomes `?`."""
    data = text.encode("utf-8", "replace")
    if len(data) <= size:
        return data.decode()
    return data[: size - len("…".encode())].decode("utf-8", "ignore") + "…"


def _encoded(error: KtrdrError) -> bytes:
    """The status in bytes: its parts joined, as protobuf lets messages be.

    Whoever is flooded refuses thousands of calls with the same words; most parts
    have been encoded before. Words that are cut are not remembered: they may hold
    a whole request.
    """
    facts = tuple(error.metadata.items())
    words = (error.message, *error.metadata.values())
    is_long = max(map(len, words)) > MAX_MESSAGE
    encode = _encoded_facts.__wrapped__ if is_long else _encoded_facts
    encoded = encode(error.code, error.message, error.reason, facts)
    milliseconds = _retry_after(error)
    if milliseconds is not None:
        encoded += _encoded_delay(milliseconds)
    if isinstance(error, InvalidArgumentError):
        room = MAX_DETAILS - len(encoded) - _ENVELOPE
        encoded += _encoded_detail(_bad_request(error, room))
    return encoded


@lru_cache(maxsize=256)
def _encoded_facts(
    code: Code, message: str, reason: str, facts: tuple[tuple[str, str], ...]
) -> bytes:
    """Code, message, and what ErrorInfo has."""
    status = status_pb2.Status(code=code, message=shorten(message, MAX_MESSAGE))
    encoded: bytes = status.SerializeToString()
    return encoded + _encoded_detail(_error_info(reason, facts))


@lru_cache(maxsize=4096)
def _encoded_delay(milliseconds: int) -> bytes:
    delay = Duration()
    delay.FromMilliseconds(milliseconds)
    return _encoded_detail(error_details_pb2.RetryInfo(retry_delay=delay))


def _encoded_detail(detail: Message) -> bytes:
    """A status that has nothing but this detail."""
    status = status_pb2.Status()
    status.details.add().Pack(detail)
    encoded: bytes = status.SerializeToString()
    return encoded


def _retry_after(error: KtrdrError) -> int | None:
    """The milliseconds after which to come back; clients take negative ones for never."""
    seconds: float | None = getattr(error, "retry_after", None)
    if seconds is None:
        return None
    return int(1000 * min(max(0.0, seconds), _LONGEST_DELAY))


def _error_info(reason: str, facts: Iterable[tuple[str, str]]) -> error_details_pb2.ErrorInfo:
    """Reason, domain and as many of the error's facts as fit."""
    info = error_details_pb2.ErrorInfo(reason=shorten(reason, _MAX_KEY), domain=DOMAIN)
    for key, value in facts:
        fact = {shorten(key, _MAX_KEY): shorten(value, _MAX_VALUE)}
        size = error_details_pb2.ErrorInfo(metadata=fact).ByteSize()
        if info.ByteSize() + size <= _MAX_INFO:
            info.metadata.update(fact)
    return info


def _bad_request(error: InvalidArgumentError, room: int) -> error_details_pb2.BadRequest:
    """Name as many violations as fit into `room` bytes, and count the rest."""
    message = error_details_pb2.BadRequest()
    for index, violation in enumerate(error.violations):
        message.field_violations.add(
            field=shorten(violation.field, _MAX_VALUE),
            description=shorten(violation.description, _MAX_VALUE * 2),
        )
        if message.ByteSize() > room:
            del message.field_violations[-1]
            left = len(error.violations) - index
            message.field_violations.add(field="", description=f"and {left} more")
            break
    return message
