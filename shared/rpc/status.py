"""A domain error as a gRPC status with google.rpc details.

Details travel in a trailer. They are kept below 4 KiB, since larger trailers
make the whole call fail, and say how much they leave out.
"""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from shared.rpc.errors import Code, InvalidArgumentError, KtrdrError

DOMAIN = "ktrdr"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
MAX_DETAILS = 4 * 1024
_MAX_MESSAGE = 1024
_MAX_VALUE = 256
_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


def grpc_code(code: Code) -> grpc.StatusCode:
    """Return gRPC's name of a google.rpc.Code."""
    return _GRPC_CODES[int(code)]


def status_of(error: KtrdrError) -> status_pb2.Status:
    """Build the google.rpc.Status of an error, with all details that fit."""
    status = status_pb2.Status(code=error.code, message=shorten(error.message, _MAX_MESSAGE))
    metadata = {key: shorten(value, _MAX_VALUE) for key, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status.details.append(_packed(info))
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(int(retry_after * 1000))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    if isinstance(error, InvalidArgumentError):
        status.details.append(_packed(_bad_request(error, MAX_DETAILS - status.ByteSize() - 64)))
    return status


def trailers_of(error: KtrdrError) -> tuple[tuple[str, str | bytes], ...]:
    """Build the trailing metadata of an error.

    UNAVAILABLE carries a pushback, so that a client with a retry policy does
    not come back at once.
    """
    details: tuple[str, str | bytes] = (DETAILS_KEY, status_of(error).SerializeToString())
    retry_after = getattr(error, "retry_after", None)
    if error.code is not Code.UNAVAILABLE or retry_after is None:
        return (details,)
    return (details, (PUSHBACK_KEY, str(int(retry_after * 1000))))


def shorten(text: str, length: int) -> str:
    """Cut a text that is too long, visibly."""
    return text if len(text) <= length else text[: length - 1] + "…"


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


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
