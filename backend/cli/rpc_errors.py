"""Failed calls, in words: what happened and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, cast

import grpc
from google.rpc import error_details_pb2, status_pb2

from backend.cli.failures import ExitCode, RpcFailedError
from backend.cli.options import ADDRESS_VARIABLE

_DETAILS_KEY = "grpc-status-details-bin"
_EXIT_CODES = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.USAGE,
    "ALREADY_EXISTS": ExitCode.USAGE,
    "OUT_OF_RANGE": ExitCode.USAGE,
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNREACHABLE,
}


class _FailedCall(Protocol):
    """What the error of a blocking call is beside an RpcError."""

    def code(self) -> Enum: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


@dataclass(frozen=True, slots=True)
class _Details:
    """What a ktrdr server says beside its message."""

    reason: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    retry_after: float = 0.0


def explain(error: grpc.RpcError, address: str, deadline: float) -> RpcFailedError:
    """The command's error for a failed call to the server at `address`."""
    call = cast("_FailedCall", error)
    status, message = call.code().name, call.details() or ""
    details = _read_details(call)
    if details.reason or details.violations:
        return _answered(status, message, details)
    return _unanswered(status, message, address, deadline)


def _answered(status: str, message: str, details: _Details) -> RpcFailedError:
    """A ktrdr server refused the call and said why."""
    hint = ""
    if details.retry_after:
        hint = f"Try again in {details.retry_after:.3g} s."
    if details.violations:
        message = "the backend refused the request; nothing was begun. Put right:"
    return RpcFailedError(
        f"{message} ({details.reason})" if details.reason and not details.violations else message,
        status=status,
        reason=details.reason,
        retry_after=details.retry_after,
        exit_code=_EXIT_CODES.get(status, ExitCode.FAILED),
        details=[f"{field}: {text}" for field, text in details.violations],
        hint=hint,
    )


def _unanswered(status: str, message: str, address: str, deadline: float) -> RpcFailedError:
    """No ktrdr server made this error: the network did, or another program."""
    name_another = f"name another with --backend HOST:PORT or {ADDRESS_VARIABLE}."
    if status == "UNAVAILABLE":
        text = f"no backend answers at {address}."
        hint = f"Start one with `python -m backend`, or {name_another}"
    elif status == "DEADLINE_EXCEEDED":
        text = f"the backend at {address} did not answer within {deadline:g} s."
        hint = f"Try again; if it stays silent, look at its log, or {name_another}"
    elif status == "UNIMPLEMENTED":
        text = f"the server at {address} does not offer this."
        hint = f"It may be no ktrdr backend or an older one; update it, or {name_another}"
    else:
        text = f"the backend at {address} answered {status}: {message or 'no message'}"
        hint = "Look at its log for the cause."
    exit_code = _EXIT_CODES.get(status, ExitCode.FAILED)
    return RpcFailedError(text, status=status, exit_code=exit_code, hint=hint)


def _read_details(call: _FailedCall) -> _Details:
    status = status_pb2.Status()
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            status.MergeFromString(value)
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, bad_request, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    return _Details(
        info.reason,
        tuple((v.field, v.description) for v in bad_request.field_violations),
        retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9,
    )
