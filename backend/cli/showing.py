"""Reading the bars and the series that a backend holds."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rich.table import Table
from rich.text import Text

from backend.cli.bars import Bars, table_lines, write_csv, write_json
from backend.cli.candles import print_chart
from backend.cli.console import counted, note, stdout_console, width_of
from backend.cli.dates import Period
from backend.cli.documents import print_document
from backend.cli.failures import CommandError, RpcFailedError
from backend.cli.figures import day
from backend.cli.market_data import MarketDataBackend
from backend.cli.options import Format, RowsFormat, backend_argument
from backend.cli.starting import in_options
from backend.cli.table_layout import print_table
from ktrdr.marketdata.v1 import bar_pb2, market_data_service_pb2

_TABLE_ROWS = 50
"""Rows of a table whose length nobody has named."""
_COVERED_ROWS = 3
"""Ranges of a series in the list; a document has them all."""
_OPTIONS = {
    "symbol": "SYMBOL",
    "timeframe": "TIMEFRAME",
    "start_time": "--start-date",
    "end_time": "--end-date",
    "limit": "--limit",
}
"""The option or argument behind each field of the request."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which bars to show."""

    symbol: str
    timeframe: str
    period: Period
    limit: int | None
    """The most bars; None: all of them, in a table the first few."""


def show_bars(
    wanted: Wanted, address: str, output: RowsFormat, *, chart: bool, plot: Path | None
) -> None:
    """Print bars, or draw them, and save their picture if there is a place for it."""
    in_table = output is RowsFormat.TABLE and not chart
    # One more than is shown tells whether there are more.
    shortened = in_table and plot is None
    bars = _read(wanted, address, wanted.limit or (_TABLE_ROWS + 1 if shortened else 0))
    if in_table:
        _print_table(bars, wanted)
    elif chart:
        _print_chart(bars)
    else:
        (write_csv if output is RowsFormat.CSV else write_json)(bars, sys.stdout)
    if plot is not None:
        _save(plot, bars)


def list_series(address: str, limit: int, output: Format) -> None:
    """Print the series there are."""
    with MarketDataBackend(address) as backend:
        found = backend.list_series(limit)
    if output is Format.JSON:
        print_document(found)
        return
    if found.series:
        print_table(stdout_console(), _series_table(found.series))
    shown, total = len(found.series), found.total_count
    part = f"{shown} of " if shown < total else ""
    note(f"{part}{max(shown, total)} series.")
    for name in found.unreadable:
        note(f"{name} could not be read; restore it from a copy, or delete it and load again.")


def _read(wanted: Wanted, address: str, limit: int) -> Bars:
    """The bars; raises CommandError in the words of the command."""
    request = market_data_service_pb2.ReadBarsRequest(
        symbol=wanted.symbol, timeframe=wanted.timeframe, limit=limit
    )
    wanted.period.put_into(request)
    with MarketDataBackend(address) as backend:
        try:
            chunks = backend.read_bars(request)
        except RpcFailedError as error:
            raise _explained(error, wanted, address) from error
    return Bars(wanted.symbol, wanted.timeframe, chunks)


def _explained(error: RpcFailedError, wanted: Wanted, address: str) -> CommandError:
    """The error with options for fields; of a series that is not there, how to load it."""
    if error.reason != "SERIES_NOT_FOUND":
        return in_options(error, _OPTIONS)
    backend = backend_argument(address)
    series = f"{shlex.quote(wanted.symbol)} {wanted.timeframe}"
    return CommandError(
        f"no {wanted.timeframe} bars of {wanted.symbol} have been loaded ({error.reason}).",
        exit_code=error.exit_code,
        hint=f"Load them:          ktrdr data load {series}{backend}\n"
        f"See what there is:  ktrdr data list{backend}",
    )


def _print_table(bars: Bars, wanted: Wanted) -> None:
    count = len(bars) if wanted.limit else min(len(bars), _TABLE_ROWS)
    if count:
        console = stdout_console()
        lines = table_lines(bars, count, width_of(console))
        console.print(Text(next(lines), style="bold"), soft_wrap=True)
        sys.stdout.writelines(f"{line}\n" for line in lines)
    name = f"{bars.symbol} {bars.timeframe}"
    if count < len(bars):
        note(f"The first {count} bars of {name}; --limit N shows more, --format csv all.")
    else:
        note(f"{counted(count, 'bar')} of {name}.")


def _print_chart(bars: Bars) -> None:
    if len(bars):
        print_chart(stdout_console(), bars)
    note(f"{counted(len(bars), 'bar')} of {bars.symbol} {bars.timeframe}.")


def _save(path: Path, bars: Bars) -> None:
    """Save the picture and say where it is."""
    if not len(bars):
        note("No picture: there are no bars in this range.")
        return
    # Not imported above: it takes longer than the rest of the command together.
    from backend.cli.candle_plot import save_candles

    try:
        save_candles(path, bars)
    except OSError as error:
        raise CommandError(
            f"the picture could not be saved as {path}: {error.strerror or error}.",
            hint="Name another file with --plot.",
        ) from error
    note(f"picture: {path.resolve()}")


def _series_table(series: Sequence[bar_pb2.Series]) -> Table:
    """A row per series; fits 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("symbol", "timeframe", "first", "last"):
        table.add_column(heading, overflow="fold")
    for heading in ("rows", "gaps"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("covered (UTC)", overflow="fold")
    for one in series:
        bounds = (day(one.start_time), day(one.end_time)) if one.row_count else ("-", "-")
        rows = f"{one.row_count:,}", f"{one.gap_count:,}"
        table.add_row(one.symbol, one.timeframe, *bounds, *rows, _covered(one.covered))
    return table


def _covered(ranges: Sequence[bar_pb2.TimeRange]) -> str:
    """The days that have been loaded, the last one included, a line per range."""
    lines = []
    for one in ranges[:_COVERED_ROWS]:
        last = one.end_time.ToDatetime() - timedelta(microseconds=1)
        lines.append(f"{day(one.start_time)}..{last:%Y-%m-%d}")
    more = len(ranges) - len(lines)
    return "\n".join([*lines, f"and {more} more"] if more else lines) or "-"
