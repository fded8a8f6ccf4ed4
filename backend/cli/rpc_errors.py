"""Failed calls, in words: what happened and what to do next."""

from __future__ import annotations

import grpc

from backend.cli.failures import ExitCode, RpcFailedError
from backend.cli.options import ADDRESS_VARIABLE
from shared.rpc.failed_call import FailedCall, read_failed_call
from shared.rpc.handshake import handshake_problem

_EXIT_CODES = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.USAGE,
    "ALREADY_EXISTS": ExitCode.USAGE,
    "OUT_OF_RANGE": ExitCode.USAGE,
    "UNAUTHENTICATED": ExitCode.USAGE,
    "PERMISSION_DENIED": ExitCode.USAGE,
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNREACHABLE,
}


def explain(
    error: grpc.RpcError, address: str, deadline: float, *, encrypted: bool = False
) -> RpcFailedError:
    """The command's error for a failed call to the server at `address`, over TLS or not."""
    failed = read_failed_call(error)
    if failed.reason or failed.violations:
        return _answered(failed)
    if failed.never_connected:
        problem = handshake_problem(failed.message, encrypted=encrypted)
        if problem:
            return _not_connected(problem, address)
    return _unanswered(failed.code.name, failed.message, address, deadline)


def _answered(failed: FailedCall) -> RpcFailedError:
    """The server refused the call and said why."""
    status, message, retry_after = failed.code.name, failed.message, failed.retry_after or 0.0
    hint = f"Try again in {retry_after:.3g} s." if retry_after else ""
    if failed.violations:
        message = "the backend refused the request; nothing was begun. Put right:"
    else:
        message = f"{message} ({failed.reason})"
    return RpcFailedError(
        message,
        status=status,
        reason=failed.reason,
        told=failed.message,
        metadata=failed.metadata,
        retry_after=retry_after,
        exit_code=_EXIT_CODES.get(status, ExitCode.FAILED),
        details=[str(violation) for violation in failed.violations],
        hint=hint,
    )


def _not_connected(problem: str, address: str) -> RpcFailedError:
    """Somebody is there, but no connection came about."""
    return RpcFailedError(
        f"no connection to {address}: {problem}",
        status="UNAVAILABLE",
        exit_code=ExitCode.UNREACHABLE,
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
