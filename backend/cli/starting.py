"""Starting work, once, and following it, whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.cli.client import Backend
from backend.cli.console import note, stdout_console
from backend.cli.documents import print_document
from backend.cli.failures import CommandError, ExitCode, RpcFailedError
from backend.cli.follow import follow, how_to_return
from backend.cli.options import Format
from backend.cli.pace import Pace
from ktrdr.operations.v1 import operation_pb2


@dataclass(frozen=True, slots=True)
class Beginning:
    """A request that starts an operation, and that can be repeated without harm."""

    call: Callable[[], operation_pb2.Operation]
    """Starts the operation, or finds the one the same request has started."""
    noun: str
    """What is started: "training"."""
    request_id: str
    options: Mapping[str, str]
    """The option behind each field of the request."""


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
    operation = _start(beginning, pace)
    if detach:
        _print_started(operation, backend.address, output)
        return ExitCode.DONE
    if output is Format.TABLE:
        stdout_console().print(f"Started {operation.operation_id}\n", soft_wrap=True)
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


def _start(beginning: Beginning, pace: Pace) -> operation_pb2.Operation:
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
        late = error.status == "DEADLINE_EXCEEDED"
        hint = _repeat_hint(beginning) if late else None
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


def _print_started(operation: operation_pb2.Operation, address: str, output: Format) -> None:
    if output is Format.JSON:
        print_document(operation)
    else:
        stdout_console().print(f"Started {operation.operation_id}", soft_wrap=True)
        note(how_to_return(operation.operation_id, address))
