"""What a failed call says: the reverse of `shared.rpc.status`.

A call fails because a ktrdr server refused it, with a reason, or because none
was there to answer. Garbage in the trailers is taken for no trailers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from shared.rpc.errors import (
    AlreadyExistsError,
    Code,
    FailedPreconditionError,
    FieldViolation,
    HostDeniedError,
    HostTimeoutError,
    HostUnreachableError,
    InvalidArgumentError,
    KtrdrError,
    MalformedAnswerError,
    NotFoundError,
    OutOfRangeError,
    RequestTooLargeError,
    ResourceExhaustedError,
    UnavailableError,
)
from shared.rpc.handshake import handshake_problem
from shared.rpc.status import DETAILS_KEY, DOMAIN, shorten

_NEVER_CONNECTED = (
    "failed to connect to all addresses",
    "errors resolving ",
    "DNS resolution failed",
)
"""How gRPC core begins when no connection could be made; the last is of older versions."""
_SHOWN = 300
"""Bytes shown of what was said by whoever answered."""
_LONGEST_DELAY = 3600.0
_PLAIN: Mapping[Code, type[KtrdrError]] = {
    Code.NOT_FOUND: NotFoundError,
    Code.ALREADY_EXISTS: AlreadyExistsError,
    Code.FAILED_PRECONDITION: FailedPreconditionError,
    Code.OUT_OF_RANGE: OutOfRangeError,
}
_DENIED = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
_LATER: Mapping[Code, type[ResourceExhaustedError | UnavailableError]] = {
    Code.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    Code.UNAVAILABLE: UnavailableError,
}


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A failed call, read."""

    code: Code
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None
    """Seconds after which to come back, if that was said."""
    answered: bool = False
    """Whether a ktrdr server made it."""
    never_connected: bool = False
    """Whether the request has certainly not been sent: no connection could be made."""


def read_failed_call(error: grpc.RpcError) -> FailedCall:
    """Read the error of a call."""
    call: Any = error  # a call that has ended, as everything is that gRPC raises
    code, message, trailers = _code(call), _told(call, "details"), _told(call, "trailing_metadata")
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    found = _unpack(_status(trailers, code), info, bad_request, retry)
    return FailedCall(
        code=code,
        message=message or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=tuple(
            FieldViolation(v.field, v.description) for v in bad_request.field_violations
        ),
        retry_after=_delay(retry) if retry.DESCRIPTOR.full_name in found else None,
        answered=info.domain == DOMAIN,
        # Core has no trailers to give. A peer that says the same words has been reached.
        never_connected=code is Code.UNAVAILABLE
        and not trailers
        and (message or "").startswith(_NEVER_CONNECTED),
    )


def domain_error(
    error: grpc.RpcError, target: str, *, timeout: float, encrypted: bool = False
) -> KtrdrError:
    """The domain error of a call to `target` that had `timeout` seconds, over TLS or not."""
    failed = read_failed_call(error)
    # A process further on that could not be reached is named by who tried to.
    facts = {"target": target, **failed.metadata}
    # A ktrdr process that lacks the method is of another kind or version.
    if failed.answered and failed.code is not Code.UNIMPLEMENTED:
        return _answered(failed, target, facts)
    if failed.never_connected:
        return _unconnected(failed, target, facts, encrypted=encrypted)
    return _unanswered(failed, target, facts, timeout)


def _answered(failed: FailedCall, target: str, facts: Mapping[str, str]) -> KtrdrError:
    """The error as it was in the process that answered.

    What is unreachable for that process says nothing about `target`, so nothing
    here is a HostUnreachableError, but for one that does not let us in.
    """
    reason = failed.reason or None
    if failed.code in _DENIED:
        return HostDeniedError(
            f"{target} does not let this process in ({reason or failed.code.name}). Set "
            "KTRDR_TOKEN_FILE here to the file of a token with scope write that stands in "
            "KTRDR_TOKENS_FILE there.",
            metadata=facts,
        )
    if failed.code is Code.INVALID_ARGUMENT:
        return _invalid(failed, facts)
    if failed.reason == RequestTooLargeError.reason:
        return RequestTooLargeError(failed.message, metadata=facts)
    if failed.code in _LATER:
        after = 1.0 if failed.retry_after is None else failed.retry_after
        later = _LATER[failed.code]
        return later(failed.message, retry_after=after, reason=reason, metadata=facts)
    if failed.code in _PLAIN:
        return _PLAIN[failed.code](failed.message, reason=reason, metadata=facts)
    incident = failed.metadata.get("incident")
    named = f" (incident {incident})" if incident else ""
    return UnavailableError(
        f"The process at {target} failed with {failed.code.name}{named}: {_said(failed)}",
        reason="HOST_FAILED",
        metadata=facts,
    )


def _invalid(failed: FailedCall, facts: Mapping[str, str]) -> InvalidArgumentError:
    """The bad fields as they were named; the message may name more than fitted."""
    error = InvalidArgumentError(failed.violations)
    error.message, error.args = failed.message, (failed.message,)
    error.reason, error.metadata = failed.reason or error.reason, dict(facts)
    return error


def _unconnected(
    failed: FailedCall, target: str, facts: Mapping[str, str], *, encrypted: bool
) -> KtrdrError:
    """No connection came about, with the handshake's problem if that was the cause."""
    problem = handshake_problem(failed.message, encrypted=encrypted)
    if problem and encrypted:
        return HostUnreachableError(
            f"No connection to {target}: {problem}", reason="TLS_HANDSHAKE_FAILED", metadata=facts
        )
    return HostUnreachableError(
        f"No ktrdr process answers at {target}: {problem or _said(failed)}", metadata=facts
    )


def _unanswered(
    failed: FailedCall, target: str, facts: Mapping[str, str], timeout: float
) -> KtrdrError:
    """No ktrdr server made this error: the network did, gRPC, or another program."""
    if failed.code is Code.RESOURCE_EXHAUSTED:
        # gRPC's own: the call was refused, or its answer was too large. What was
        # asked for may have been done.
        return UnavailableError(
            f"{target} or the way to it could not take the call or its answer "
            f"({_said(failed)}). Come back in a moment.",
            reason="HOST_OVERLOADED",
            metadata=facts,
        )
    if failed.code is Code.DEADLINE_EXCEEDED:
        return HostTimeoutError(
            f"{target} did not answer within {timeout:.3g} s. Come back; if it stays silent, look "
            "at its log.",
            metadata=facts,
        )
    if failed.code in (Code.UNAVAILABLE, Code.CANCELLED):
        return HostUnreachableError(
            f"No ktrdr process answers at {target}: {_said(failed)}", metadata=facts
        )
    return MalformedAnswerError(
        f"What listens at {target} is no ktrdr process or speaks another version "
        f"({failed.code.name}: {_said(failed)}). Put the address right or update it.",
        metadata=facts,
    )


def _said(failed: FailedCall) -> str:
    """The words of whoever failed; gRPC's for the most frequent case are long."""
    if failed.never_connected and "Connection refused" in failed.message:
        return "the connection was refused"
    return shorten(failed.message or "it said nothing", _SHOWN)


def _told(call: Any, what: str) -> Any:
    """What a call says of itself; None from an error that is no call."""
    tell = getattr(call, what, None)
    return None if tell is None else tell()


def _code(call: Any) -> Code:
    code = _told(call, "code")
    number = code.value[0] if isinstance(code, grpc.StatusCode) else Code.UNKNOWN
    return Code(number) if number else Code.UNKNOWN  # an error that says OK


def _status(trailers: Any, code: Code) -> status_pb2.Status:
    """The status in the trailers, unless it is garbage or that of another error."""
    for key, value in trailers or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                continue
            if status.code == code:
                return status
    return status_pb2.Status()


def _unpack(status: status_pb2.Status, *details: Message) -> set[str]:
    """Fill each detail from the status; return the full names of those that were there."""
    found = set()
    for packed in status.details:
        for detail in details:
            if packed.Is(detail.DESCRIPTOR):
                try:
                    packed.Unpack(detail)
                except DecodeError:
                    detail.Clear()
                else:
                    found.add(detail.DESCRIPTOR.full_name)
    return found


def _delay(retry: error_details_pb2.RetryInfo) -> float:
    """Seconds; whoever says years or the past means later or now."""
    seconds = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return float(min(max(0.0, seconds), _LONGEST_DELAY))
