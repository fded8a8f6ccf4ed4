"""Starting work, once, and following it, whatever kind it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.cli.client import Backend
from backend.cli.console import note, stdout_console
from backend.cli.documents import print_document
from backend.cli.failures import CommandError, ExitCode, RpcFailedError
from backend.cli.figures import length, seconds_of
from backend.cli.follow import follow, how_to_return
from backend.cli.options import Format, backend_argument
from backend.cli.pace import Pace
from ktrdr.operations.v1 import operation_pb2, operations_service_pb2

_SOON = 3.0
"""Seconds to find out whether something has been started before."""
_MOST_ACTIVE = 500
"""Operations among which to look for the one that ends first."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """A request that starts an operation, and that can be repeated without harm."""

    call: Callable[[], operation_pb2.Operation]
    """Starts the operation, or finds the one the same request has started."""
    noun: str
    """What is started: "training"."""
    type: operation_pb2.OperationType.ValueType
    request_id: str
    options: Mapping[str, str]
    """The option behind each field of the request."""
    known_as: tuple[str, ...] = ()
    """Ids that an operation has if the request has been sent before; none if that cannot be."""


def known_as(work: str, request_id: str) -> tuple[str, ...]:
    """Ids of the operation of a request whose id was typed, on a backend and on a host."""
    return (f"op_{work}_{request_id}", f"host_{work}_{request_id}") if request_id else ()


def start_and_follow(
    backend: Backend,
    beginning: Beginning,
    pace: Pace,
    *,
    detach: bool,
    plot: Path | None,
    output: Format,
) -> ExitCode:
    """Start the work and follow it, or leave it to itself."""
    is_new = not _is_known(backend, beginning)
    operation = _start(backend, beginning, pace)
    if output is Format.TABLE:
        stdout_console().print(_began(operation, is_new=is_new), soft_wrap=True)
    if detach:
        _detach(operation, backend.address, output)
        return ExitCode.DONE
    if output is Format.TABLE:
        stdout_console().print()
    return follow(backend, operation, pace, plot=plot, output=output, known=True)


def in_options(
    error: RpcFailedError, options: Mapping[str, str], hint: str | None = None
) -> CommandError:
    """The error with the command's options beside the request's fields."""
    return CommandError(
        error.message,
        exit_code=error.exit_code,
        details=[_with_option(detail, options) for detail in error.details],
        hint=error.hint if hint is None else hint,
    )


def _is_known(backend: Backend, beginning: Beginning) -> bool:
    """Whether the request has been sent before; not, if that cannot be told soon."""
    for operation_id in beginning.known_as:
        try:
            backend.get_operation(operation_id, deadline=_SOON)
        except RpcFailedError as error:
            if error.status != "NOT_FOUND":
                return False
        else:
            return True
    return False


def _start(backend: Backend, beginning: Beginning, pace: Pace) -> operation_pb2.Operation:
    """Start the work; asked again once if the backend was unavailable.

    Raises CommandError with the fields of the request as options.
    """
    try:
        try:
            return beginning.call()
        except RpcFailedError as error:
            if error.status != "UNAVAILABLE":
                raise
            pace.pause(max(pace.interval, error.retry_after))
            return beginning.call()
    except RpcFailedError as error:
        hint = None
        if error.status == "DEADLINE_EXCEEDED":
            hint = _repeat_hint(beginning)
        elif error.reason == "WORKERS_BUSY":
            hint = _when_free(backend, beginning) or None
        raise in_options(error, beginning.options, hint) from error
    except KeyboardInterrupt as error:
        raise CommandError(
            f"interrupted while the {beginning.noun} was being started; it may have been.",
            exit_code=ExitCode.INTERRUPTED,
            hint=_repeat_hint(beginning),
        ) from error


def _with_option(detail: str, options: Mapping[str, str]) -> str:
    path, colon, text = detail.partition(":")
    option = options.get(path.split(".")[0].split("[")[0])
    return f"{path} ({option}){colon}{text}" if option else detail


def _repeat_hint(beginning: Beginning) -> str:
    return (
        f"Repeat the command with --request-id {beginning.request_id}: it finds the "
        f"{beginning.noun} or starts it, and never starts it twice."
    )


def _when_free(backend: Backend, beginning: Beginning) -> str:
    """When a place is likely to be free: once the first that runs ends; empty if unknown."""
    request = operations_service_pb2.ListOperationsRequest(active_only=True, types=[beginning.type])
    try:
        active = backend.list_operations(request, _MOST_ACTIVE).operations
    except RpcFailedError:
        return ""
    told = [one for one in active if one.progress.HasField("estimated_remaining")]
    if not told:
        return ""
    first = min(told, key=lambda one: seconds_of(one.progress.estimated_remaining))
    left = length(math.ceil(seconds_of(first.progress.estimated_remaining)))
    return (
        f"Try again in about {left}: then {first.operation_id} is likely to end. "
        f"`ktrdr operations list --active{backend_argument(backend.address)}` shows them all."
    )


def _began(operation: operation_pb2.Operation, *, is_new: bool) -> str:
    if is_new:
        return f"Started {operation.operation_id}"
    return f"Found {operation.operation_id}, which the same request has started before"


def _detach(operation: operation_pb2.Operation, address: str, output: Format) -> None:
    if output is Format.JSON:
        print_document(operation)
    else:
        note(how_to_return(operation.operation_id, address))
