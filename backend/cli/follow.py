"""Following an operation to its end: show, conclude, draw; or detach."""

from __future__ import annotations

from pathlib import Path

from backend.cli.client import Backend
from backend.cli.console import note, stderr_console, stdout_console
from backend.cli.displays import Display, NoDisplay, display_for
from backend.cli.documents import print_document
from backend.cli.failures import CommandError, ExitCode
from backend.cli.options import Format, backend_argument
from backend.cli.pace import Pace
from backend.cli.results import print_outcome
from backend.cli.states import outcome, status_name
from backend.cli.watch import Look, OperationWatch
from ktrdr.operations.v1 import operation_pb2


def watch_operation(
    address: str, operation_id: str, pace: Pace, *, plot: Path | None, output: Format
) -> ExitCode:
    """Follow an operation by its id; how it ended is the exit code."""
    with Backend(address) as backend:
        operation = operation_pb2.Operation(operation_id=operation_id)
        return follow(backend, operation, pace, plot=plot, output=output, known=False)


def follow(
    backend: Backend,
    operation: operation_pb2.Operation,
    pace: Pace,
    *,
    plot: Path | None,
    output: Format,
    known: bool,
) -> ExitCode:
    """Follow an operation; Ctrl-C leaves it alone and says how to come back.

    Args:
        backend: Who to ask.
        operation: The operation as last known, at least with its id.
        pace: How often to look.
        plot: Where to save the picture; None: nowhere.
        output: In JSON, stdout carries the operation's last state and nothing else.
        known: Whether the operation is known to exist.
    """
    metrics: list[operation_pb2.Metric] = []
    watch = OperationWatch(backend, operation.operation_id, pace, known=known)
    try:
        with _display(output) as display:
            for seen in watch.looks():
                if isinstance(seen, Look):
                    operation = seen.operation
                    metrics += seen.metrics
                    display.show(seen)
                else:
                    display.tell(seen)
    except KeyboardInterrupt:
        _detach(operation, output, backend.address)
        return ExitCode.DONE
    _conclude(operation, output)
    if plot is not None:
        _draw(plot, operation, metrics, output, backend.address)
    return outcome(operation)


def how_to_return(operation_id: str, address: str) -> str:
    """The commands that come back to an operation, as two lines."""
    backend = backend_argument(address)
    return (
        f"Watch it again:  ktrdr operations watch {operation_id}{backend}\n"
        f"Stop it:         ktrdr operations cancel {operation_id}{backend}"
    )


def _display(output: Format) -> Display:
    if output is Format.TABLE:
        return display_for(stdout_console())
    console = stderr_console()
    return display_for(console) if console.is_terminal else NoDisplay(console)


def _detach(operation: operation_pb2.Operation, output: Format, address: str) -> None:
    """Say that the operation goes on, and how to come back."""
    if output is Format.JSON:
        print_document(operation)
    note("Detached; the operation goes on.")
    note(how_to_return(operation.operation_id, address))


def _conclude(operation: operation_pb2.Operation, output: Format) -> None:
    """Say how the operation ended."""
    if output is Format.JSON:
        print_document(operation)
        return
    console = stdout_console()
    console.print(f"\n{operation.operation_id} {status_name(operation)}\n", soft_wrap=True)
    print_outcome(console, operation)


def _draw(
    path: Path,
    operation: operation_pb2.Operation,
    metrics: list[operation_pb2.Metric],
    output: Format,
    address: str,
) -> None:
    """Save the picture and say where it is."""
    if not any(metric.kind == "epoch" for metric in metrics):
        note(f"No picture: {operation.operation_id} has reported no epoch.")
        return
    # Not imported above: it takes longer than the rest of the command together.
    from backend.cli.plot import save_plot

    try:
        save_plot(path, operation, metrics)
    except OSError as error:
        again = f"{operation.operation_id}{backend_argument(address)}"
        raise CommandError(
            f"the picture could not be saved as {path}: {error.strerror or error}.",
            hint="The operation itself has ended as said above. Draw it again with `ktrdr "
            f"operations watch {again} --plot FILE.png`.",
        ) from error
    if output is Format.TABLE:
        stdout_console().print(f"  {'picture':<14}{path.resolve()}", soft_wrap=True)
    else:
        note(f"picture: {path.resolve()}")
