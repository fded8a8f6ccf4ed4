"""Waiting for an operation's end, and asking it to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass

from backend.cli.client import Backend
from backend.cli.console import note, stdout_console
from backend.cli.displays import staleness
from backend.cli.documents import print_document
from backend.cli.failures import ExitCode, RpcFailedError
from backend.cli.figures import length, seconds_of
from backend.cli.options import Format, backend_argument
from backend.cli.pace import Pace
from backend.cli.patience import Patience
from backend.cli.results import print_outcome
from backend.cli.states import is_terminal, outcome, status_name
from ktrdr.operations.v1 import operation_pb2

_OWNER_AWAY = frozenset({"HOST_UNREACHABLE", "WRONG_HOST"})
"""Why an owner cannot be told to stop that may be away for good."""


def wait_for_operation(
    address: str, operation_id: str, pace: Pace, timeout: float | None, output: Format
) -> ExitCode:
    """Wait for the end of an operation; how it ended is the exit code."""
    with Backend(address) as backend:
        operation = _wait(backend, operation_id, pace, timeout, known=False)
    _print(operation, output)
    if not is_terminal(operation):
        if why := staleness(operation):
            note(why)
        note(f"{operation_id} has not ended within {length(timeout or 0)}; it goes on.")
    return outcome(operation)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What is to stop, and how."""

    operation_id: str
    reason: str
    give_up: bool
    """Whether to end it here if its owner does not answer."""
    wait: bool
    """Whether to wait until it has stopped."""


def cancel_operation(address: str, asked: Cancellation, pace: Pace, output: Format) -> ExitCode:
    """Ask an operation to stop; DONE if it has stopped or will, or was given up as asked."""
    operation_id = asked.operation_id
    with Backend(address) as backend:
        try:
            operation = backend.cancel_operation(operation_id, asked.reason, give_up=asked.give_up)
        except RpcFailedError as error:
            if error.reason in _OWNER_AWAY:
                note(
                    "If it will never come back: ktrdr operations cancel "
                    f"{operation_id} --give-up{backend_argument(address)}"
                )
            raise
        if asked.wait and not is_terminal(operation):
            operation = _wait(backend, operation_id, pace, None, known=True)
    _print(operation, output)
    if asked.give_up and operation.error.reason == "OWNER_GIVEN_UP":
        return ExitCode.DONE
    if operation.status == operation_pb2.OPERATION_STATUS_CANCELLING:
        waits = f"ktrdr operations wait {operation_id}{backend_argument(address)}"
        note(f"It stops as soon as its worker can: {waits}")
    elif operation.status == operation_pb2.OPERATION_STATUS_COMPLETED:
        note("It had finished before it could be stopped; its result stands.")
    return (
        ExitCode.FAILED
        if operation.status == operation_pb2.OPERATION_STATUS_FAILED
        else ExitCode.DONE
    )


def _wait(
    backend: Backend, operation_id: str, pace: Pace, timeout: float | None, *, known: bool
) -> operation_pb2.Operation:
    """The operation at its end, or as it is when the time is up."""
    end = math.inf if timeout is None else pace.monotonic() + timeout
    patience = Patience(operation_id, backend.address, pace, known=known)
    out = False  # told once per outage
    while True:
        # The first wait is only a look: it tells at once whether there is anything to
        # wait for, and from then on an outage is borne.
        left = max(0.0, end - pace.monotonic()) if patience.known else 0.0
        try:
            reply = backend.wait_operation(operation_id, left)
        except RpcFailedError as error:
            told = patience.bear(error)
            if not out:
                note(told)
            out = True
            patience.pause(error)
            continue
        out = False
        patience.answered()
        left = end - pace.monotonic()
        if is_terminal(reply.operation) or left <= 0:
            return reply.operation
        if reply.HasField("retry_after"):
            pace.pause(min(seconds_of(reply.retry_after), left))


def _print(operation: operation_pb2.Operation, output: Format) -> None:
    if output is Format.JSON:
        print_document(operation)
        return
    console = stdout_console()
    console.print(f"{operation.operation_id} {status_name(operation)}", soft_wrap=True)
    print_outcome(console, operation)
