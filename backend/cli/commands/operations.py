"""`ktrdr operations`: follow work, stop it, look after it and forget it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from backend.cli.durations import parse_duration
from backend.cli.options import (
    MAX_INT64,
    BackendOption,
    Format,
    FormatOption,
    OperationId,
    PlotOption,
    RowsFormat,
    RowsFormatOption,
    check_plot,
    check_seconds,
)

app = typer.Typer(no_args_is_help=True)


class Status(Enum):
    """The states to filter by."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Type(Enum):
    """The kinds of work to filter by."""

    TRAINING = "training"
    DATA_LOADING = "data-loading"


@app.command("list")
def list_(
    active: Annotated[
        bool, typer.Option("--active", help="Only what waits, runs or is being cancelled.")
    ] = False,
    status: Annotated[
        list[Status] | None,
        typer.Option(case_sensitive=False, help="Only in this state. Repeatable."),
    ] = None,
    type_: Annotated[
        list[Type] | None,
        typer.Option("--type", case_sensitive=False, help="Only of this type. Repeatable."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="The most operations to show.")
    ] = 50,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """List operations, newest first."""
    if active and status:
        raise typer.BadParameter(
            "--active is a choice of states itself; leave out one of the two.",
            param_hint="'--active' / '--status'",
        )
    from backend.cli import inspection

    filters = inspection.Filters(
        active, tuple(s.name for s in status or ()), tuple(t.name for t in type_ or ())
    )
    inspection.list_operations(backend, filters, limit, output)


@app.command()
def get(
    operation_id: OperationId,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Read the worker now; fail if that cannot be done.")
    ] = False,
    max_staleness: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="The oldest answer to accept; else fail."),
    ] = None,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Show one operation as it is now."""
    if refresh and max_staleness is not None:
        raise typer.BadParameter(
            "--refresh accepts no age at all; leave out one of the two.",
            param_hint="'--refresh' / '--max-staleness'",
        )
    check_seconds("--max-staleness", max_staleness)
    from backend.cli.inspection import get_operation

    get_operation(backend, operation_id, refresh, max_staleness, output)


@app.command()
def metrics(
    operation_id: OperationId,
    cursor: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=MAX_INT64, help="Index of the first metric, from 0."),
    ] = 0,
    output: RowsFormatOption = RowsFormat.TABLE,
    backend: BackendOption = "",
) -> None:
    """Print all metrics of an operation, a row per epoch."""
    from backend.cli.inspection import print_metrics

    print_metrics(backend, operation_id, cursor, output)


@app.command()
def watch(
    ctx: typer.Context,
    operation_id: OperationId,
    plot: PlotOption = None,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Watch an operation to its end: progress, a row per epoch, the result.

    Ctrl-C stops watching (exit code 0); the operation goes on.
    """
    check_plot(plot)
    from backend.cli.follow import watch_operation

    raise typer.Exit(watch_operation(backend, operation_id, ctx.obj, plot=plot, output=output))


@app.command()
def wait(
    ctx: typer.Context,
    operation_id: OperationId,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Give up after so long (exit code 5)."),
    ] = None,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Wait in silence until an operation has ended; the exit code says how."""
    check_seconds("--timeout", timeout)
    from backend.cli.waiting import wait_for_operation

    raise typer.Exit(wait_for_operation(backend, operation_id, ctx.obj, timeout, output))


@app.command()
def cancel(
    ctx: typer.Context,
    operation_id: OperationId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with it.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has stopped.")] = False,
    give_up: Annotated[
        bool,
        typer.Option(
            "--give-up",
            help="If its host does not answer, end it here: failed, outcome unknown.",
        ),
    ] = False,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Ask an operation to stop. Repeating it does no harm."""
    from backend.cli.waiting import Cancellation, cancel_operation

    asked = Cancellation(operation_id, reason, give_up=give_up, wait=wait)
    raise typer.Exit(cancel_operation(backend, asked, ctx.obj, output))


@app.command()
def delete(
    operation_ids: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Operations, as `ktrdr operations list` shows them."),
    ],
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Forget finished operations, with their results and metrics.

    Models and bars stay. What has not ended is not deleted.

    Exit code 0: all are deleted, 1: some are not, 2: there is none of them.
    """
    from backend.cli.deletion import delete_operations

    raise typer.Exit(delete_operations(backend, operation_ids, output))


@app.command()
def doctor(
    ctx: typer.Context,
    stale_after: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Silence that is wrong whatever the pace: 30m, 90s, 1h30m.",
        ),
    ] = "30m",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only what is wrong, or nothing at all.")
    ] = False,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Look once whether all that waits or runs is well, and say what to do if not.

    Of each operation: whether its host answers, whether its worker lives, and whether it goes at
    the pace it has shown.

    Exit code 0: all is well, or nothing runs. 1: something is wrong. 4: no backend answers.
    """
    seconds = parse_duration("--stale-after", stale_after)
    from backend.cli.doctor import see_doctor

    raise typer.Exit(see_doctor(backend, ctx.obj, stale_after=seconds, quiet=quiet, output=output))
