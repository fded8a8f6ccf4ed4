"""`ktrdr models`: train models and look at those there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backend.cli.dates import parse_period
from backend.cli.options import (
    MAX_INT64,
    BackendOption,
    DetachOption,
    EndDateOption,
    Format,
    FormatOption,
    PlotOption,
    RequestIdOption,
    SetOption,
    StartDateOption,
    check_plot,
    read_strategy,
    split_assignments,
    split_names,
)

app = typer.Typer(no_args_is_help=True)


@app.command()
def train(
    ctx: typer.Context,
    strategy: Annotated[
        Path, typer.Option(metavar="FILE", help="The strategy to train, a YAML file.")
    ],
    symbols: Annotated[
        str | None, typer.Option(metavar="A,B", help="Symbols. Default: the strategy's.")
    ] = None,
    timeframes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Timeframes. Default: the strategy's.")
    ] = None,
    start_date: StartDateOption = None,
    end_date: EndDateOption = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=MAX_INT64, help="Makes the run repeatable."),
    ] = None,
    set_: SetOption = None,
    request_id: RequestIdOption = None,
    detach: DetachOption = False,
    plot: PlotOption = None,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Train a model and watch it: progress, a row per epoch, the result.

    Ctrl-C stops watching (exit code 0); the training goes on.
    """
    if detach and plot is not None:
        raise typer.BadParameter(
            "a detached training is not watched, so there is nothing to draw; leave it out and "
            "use `ktrdr operations watch ID --plot` later.",
            param_hint="'--plot'",
        )
    names = split_names("--symbols", symbols), split_names("--timeframes", timeframes)
    period = parse_period(start_date, end_date)
    overrides = split_assignments(set_)
    check_plot(plot)
    text = read_strategy(strategy, "--strategy")
    from backend.cli import training

    order = training.Order(text, *names, period, seed, overrides, request_id or "")
    raise typer.Exit(
        training.train(order, backend, ctx.obj, detach=detach, plot=plot, output=output)
    )


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The most models to show.")] = 50,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """List the models that the backend and its hosts hold, newest first."""
    from backend.cli.catalog import list_models

    list_models(backend, limit, output)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The model, as `ktrdr models list` shows it.")
    ],
    instance: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Only that of the process with this instance id, or one that begins like this.",
        ),
    ] = "",
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Show one model: how its training ended, its features and its strategy."""
    from backend.cli.catalog import show_model

    show_model(backend, name, instance, output)
