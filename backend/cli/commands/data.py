"""`ktrdr data`: load market data and look at it."""

from __future__ import annotations

from enum import Enum
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
    RequestIdOption,
    RowsFormat,
    RowsFormatOption,
    StartDateOption,
    check_plot,
    split_names,
)

app = typer.Typer(no_args_is_help=True)

_Timeframe = Annotated[
    str, typer.Argument(metavar="TIMEFRAME", help="Length of a bar: 1m 5m 15m 30m 1h 4h 1d 1w.")
]


class Mode(Enum):
    """What a load fetches."""

    MISSING = "missing"
    FULL = "full"


@app.command()
def load(
    ctx: typer.Context,
    symbols: Annotated[
        str, typer.Argument(metavar="SYMBOLS", help="Symbols, with commas between them: IBM,GOOG.")
    ],
    timeframe: _Timeframe,
    start_date: StartDateOption = None,
    end_date: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="Last day, UTC, included. Default: up to now."),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            case_sensitive=False,
            help="Fetch what has not been loaded, or the full range again.",
        ),
    ] = Mode.MISSING,
    request_id: RequestIdOption = None,
    detach: DetachOption = False,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Load bars and watch it: progress, a row per symbol, the result.

    Ctrl-C stops watching (exit code 0); the load goes on.

    Exit code 1 also if only some of the symbols could be loaded.
    """
    names = split_names("SYMBOLS", symbols, otherwise="")
    period = parse_period(start_date, end_date)
    from backend.cli import loading

    order = loading.Order(names, timeframe, period, mode.name, request_id or "")
    raise typer.Exit(loading.load(order, backend, ctx.obj, detach=detach, output=output))


@app.command()
def show(
    symbol: Annotated[
        str, typer.Argument(metavar="SYMBOL", help="The symbol, as `ktrdr data list` shows it.")
    ],
    timeframe: _Timeframe,
    start_date: StartDateOption = None,
    end_date: EndDateOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=MAX_INT64,
            show_default=False,
            help="The first N bars. Default: 50 in a table, else all.",
        ),
    ] = None,
    output: RowsFormatOption = RowsFormat.TABLE,
    chart: Annotated[
        bool, typer.Option("--chart", help="Draw candles in place of the table.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.png", help="Save the candles as a picture, too."),
    ] = None,
    backend: BackendOption = "",
) -> None:
    """Show bars that have been loaded: prices and volume by start of the bar, in UTC."""
    if chart and output is not RowsFormat.TABLE:
        raise typer.BadParameter(
            f"a chart is drawn in place of the table, not as {output.value}; leave out one of "
            "the two.",
            param_hint="'--chart' / '--format'",
        )
    period = parse_period(start_date, end_date)
    check_plot(plot)
    from backend.cli import showing

    wanted = showing.Wanted(symbol, timeframe, period, limit)
    showing.show_bars(wanted, backend, output, chart=chart, plot=plot)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The most series to show.")] = 50,
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """List the series that have been loaded, by symbol and timeframe."""
    from backend.cli.showing import list_series

    list_series(backend, limit, output)
