"""What a failed call says: the reverse of `shared.rpc.status`.

A call fails because a ktrdr server refused it, with a reason, or because none
was there to answer. Garbage in the trailers is taken for no trailers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from shared.rpc.errors import (
    AlreadyExistsError,
    Code,
    FailedPreconditionError,
    FieldViolation,
    HostTimeoutError,
    HostUnreachableError,
    InvalidArgumentError,
    KtrdrError,
    MalformedAnswerError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
    UnavailableError,
)
from shared.rpc.status import DETAILS_KEY, DOMAIN, shorten

_NEVER_CONNECTED = ("failed to connect to all addresses", "DNS resolution failed")
"""gRPC core's words for a connection that was never made."""
_SHOWN = 300
_PLAIN: dict[Code, type[KtrdrError]] = {
    Code.NOT_FOUND: NotFoundError,
    Code.ALREADY_EXISTS: AlreadyExistsError,
    Code.FAILED_PRECONDITION: FailedPreconditionError,
    Code.OUT_OF_RANGE: OutOfRangeError,
    Code.UNAVAILABLE: UnavailableError,
}


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A failed call, read."""

    code: Code
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None
    """Seconds after which to come back, if that was said."""
    answered: bool = False
    """Whether a ktrdr server made it."""
    never_connected: bool = False
    """Whether the request has certainly not been sent: no connection could be made."""


def read_failed_call(error: grpc.RpcError) -> FailedCall:
    """Read the error of a call."""
    call: Any = error
    code, message = _code(call), call.details() or ""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    told = False
    for detail in _status(call).details:
        for part in (info, bad_request, retry):
            if detail.Is(part.DESCRIPTOR):
                told = (_unpack(detail, part) and part is retry) or told
    answered = info.domain == DOMAIN
    return FailedCall(
        code=code,
        message=message,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=tuple(
            FieldViolation(v.field, v.description) for v in bad_request.field_violations
        ),
        retry_after=retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9 if told else None,
        answered=answered,
        never_connected=not answered
        and code is Code.UNAVAILABLE
        and message.startswith(_NEVER_CONNECTED),
    )


def domain_error(error: grpc.RpcError, target: str, *, timeout: float) -> KtrdrError:
    """The domain error of a call to `target` that had `timeout` seconds."""
    failed = read_failed_call(error)
    metadata = {**failed.metadata, "target": target}
    if failed.answered:
        return _answered(failed, target, metadata)
    if failed.code is Code.RESOURCE_EXHAUSTED:
        return ResourceExhaustedError(f"{target}: {_said(failed)}", metadata=metadata)
    if failed.code is Code.DEADLINE_EXCEEDED:
        return HostTimeoutError(
            f"{target} did not answer within {timeout:.2f} s.", metadata=metadata
        )
    if failed.code in {Code.UNAVAILABLE, Code.CANCELLED}:
        return HostUnreachableError(
            f"No ktrdr process answers at {target}: {_said(failed)}", metadata=metadata
        )
    return MalformedAnswerError(
        f"What answers at {target} is no ktrdr process, or of another version "
        f"({failed.code.name}: {_said(failed)})",
        metadata=metadata,
    )


def _answered(failed: FailedCall, target: str, metadata: dict[str, str]) -> KtrdrError:
    """The error as it was in the process that answered."""
    reason = failed.reason or None
    if failed.code is Code.INVALID_ARGUMENT:
        return InvalidArgumentError(failed.violations or [FieldViolation("", failed.message)])
    if failed.code in {Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE}:
        kind = (
            ResourceExhaustedError if failed.code is Code.RESOURCE_EXHAUSTED else UnavailableError
        )
        after = 1.0 if failed.retry_after is None else failed.retry_after
        return kind(failed.message, retry_after=after, reason=reason, metadata=metadata)
    if failed.code in _PLAIN:
        return _PLAIN[failed.code](failed.message, reason=reason, metadata=metadata)
    return UnavailableError(
        f"{target} failed with {failed.code.name}: {_said(failed)}",
        reason="HOST_FAILED",
        metadata=metadata,
    )


def _said(failed: FailedCall) -> str:
    return shorten(failed.message or "it said nothing", _SHOWN)


def _code(call: Any) -> Code:
    number = call.code().value[0]
    return Code(number) if number in set(Code) else Code.UNKNOWN


def _status(call: Any) -> status_pb2.Status:
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _unpack(detail: Any, part: Any) -> bool:
    try:
        detail.Unpack(part)
    except DecodeError:
        return False
    return True
