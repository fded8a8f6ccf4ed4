"""What a watch shows: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backend.cli.console import note, width_of
from backend.cli.figures import length, per_second, remaining, seconds_of
from backend.cli.metric_rows import MetricRows
from backend.cli.states import STYLES, is_terminal, status_name
from backend.cli.watch import Look, Outage
from ktrdr.operations.v1 import operation_pb2

_TRAINING = "training"
"""The phase that metrics are reported in."""


class Display(Protocol):
    """Shows a watch while it lasts; used in a with statement."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        ...

    def show(self, look: Look) -> None:
        """Show what was seen."""
        ...

    def tell(self, outage: Outage) -> None:
        """Say that nothing was seen and the watch goes on."""
        ...


def display_for(console: Console) -> Display:
    """The display that suits a console."""
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


class _Rows:
    """Prints metrics as rows, with a heading before the first."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: MetricRows | None = None

    def print(self, look: Look) -> None:
        """Print a row per metric of the look."""
        if not look.metrics:
            return
        if self._rows is None:
            total = look.operation.progress.total_steps or None
            self._rows = MetricRows(look.metrics, total, width_of(self._console))
            self._console.print(Text(self._rows.heading(), style="bold"), soft_wrap=True)
        for metric in look.metrics:
            self._console.print(Text(self._rows.row(metric)), soft_wrap=True)


class _Silent:
    """Enters and leaves without a trace; the base of displays without a bar."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class NoDisplay(_Silent):
    """Shows nothing but outages, for the sake of a document on stdout."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._silent = False

    def show(self, look: Look) -> None:  # noqa: ARG002 - the port's argument
        """Show nothing."""
        self._silent = False

    def tell(self, outage: Outage) -> None:
        """Print the first line of an outage."""
        if not self._silent:
            self._console.print(outage.message, soft_wrap=True)
        self._silent = True


class LineDisplay(_Silent):
    """Plain lines without control codes: one per phase or symbol, one per metric."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows = _Rows(console)
        self._stage = ("", "")
        self._notice = ""

    def show(self, look: Look) -> None:
        """Print what is new."""
        phase = phase_of(look.operation)
        # The symbols of a load are stages of one phase.
        stage = phase, look.operation.progress.context.get("current_symbol", "")
        # Rows that come with a later phase belong to the one before it.
        rows_first = phase != _TRAINING
        if rows_first:
            self._rows.print(look)
        if stage != self._stage and not is_terminal(look.operation):
            message = message_of(look.operation)
            percentage = _percentage_text(look.operation)
            self._line(f"[{percentage:>5}] {phase}" + (f": {message}" if message else ""))
        self._stage = stage
        if not rows_first:
            self._rows.print(look)
        self._notify(staleness(look.operation))

    def tell(self, outage: Outage) -> None:
        """Print the first line of an outage."""
        self._notify("", keep=bool(self._notice))
        if not self._notice:
            self._line(outage.message)
            self._notice = outage.message

    def _notify(self, notice: str, *, keep: bool = False) -> None:
        """Print a notice when it begins, not again while it lasts."""
        if notice and not self._notice:
            self._line(notice)
        if not keep:
            self._notice = notice

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


class BarDisplay:
    """A bar with phase, message and remaining time; rows scroll above it."""

    def __init__(self, console: Console) -> None:
        self._rows = _Rows(console)
        self._operation = operation_pb2.Operation()
        self._notice = ""
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Draw the bar."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away; the rows stay."""
        self._live.stop()

    def show(self, look: Look) -> None:
        """Print the new rows and redraw the bar below them."""
        self._operation = look.operation
        self._notice = staleness(look.operation)
        self._rows.print(look)
        self._draw()

    def tell(self, outage: Outage) -> None:
        """Keep the bar as last known, with the outage below it."""
        self._notice = outage.message
        self._draw()

    def _draw(self) -> None:
        self._live.update(bar(self._operation, self._notice), refresh=True)


def bar(operation: operation_pb2.Operation, notice: str = "") -> RenderableType:
    """A line with phase, bar, percentage and remaining time, and the message below."""
    progress = operation.progress
    known = progress.HasField("percentage")
    line = Table.grid(padding=(0, 1), expand=True)
    # Widths of their own, so that the bar does not jump when a text changes.
    line.add_column(no_wrap=True, min_width=len("preprocessing"))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, min_width=len("100 %"), justify="right")
    line.add_column(no_wrap=True, min_width=len("about 59 s left"), justify="right")
    left = ""
    if progress.HasField("estimated_remaining"):
        left = remaining(seconds_of(progress.estimated_remaining))
    line.add_row(
        Text(phase_of(operation), style=STYLES.get(status_name(operation), "bold")),
        ProgressBar(total=100, completed=progress.percentage if known else 0),
        _percentage_text(operation),
        left,
    )
    message = Text(message_of(operation), style="dim", no_wrap=True, overflow="ellipsis")
    parts: list[RenderableType] = [line, message]
    if notice:
        parts.append(Text(notice, style="yellow"))
    return Group(*parts)


def phase_of(operation: operation_pb2.Operation) -> str:
    """Where the work is: the worker's phase, or the state that outweighs it."""
    words: dict[int, str] = {
        operation_pb2.OPERATION_STATUS_PENDING: "waiting for a worker",
        operation_pb2.OPERATION_STATUS_RUNNING: operation.progress.phase or "starting",
        operation_pb2.OPERATION_STATUS_UNSPECIFIED: "looking",
    }
    return words.get(operation.status) or status_name(operation).lower()


def message_of(operation: operation_pb2.Operation) -> str:
    """The worker's message; of a load that goes on also its rows so far and their pace."""
    progress = operation.progress
    is_load = operation.type == operation_pb2.OPERATION_TYPE_DATA_LOADING
    if not is_load or is_terminal(operation) or not progress.items_processed:
        return progress.message
    parts = [progress.message, f"{progress.items_processed:,} rows"]
    elapsed = progress.update_time.ToNanoseconds() - operation.start_time.ToNanoseconds()
    if operation.HasField("start_time") and elapsed > 0:
        parts.append(per_second(progress.items_processed / elapsed * 1e9))
    return " · ".join(parts)


def staleness(operation: operation_pb2.Operation) -> str:
    """Why the look is not as fresh as it should be; empty if it is."""
    reason = why_stale(operation)
    age = length(seconds_of(operation.freshness.age))
    return f"Last known, {age} old: {reason}" if reason else ""


def why_stale(operation: operation_pb2.Operation) -> str:
    """Why nothing newer was had; empty if what was asked for was."""
    return operation.freshness.refresh_error.message


def _percentage_text(operation: operation_pb2.Operation) -> str:
    progress = operation.progress
    return f"{progress.percentage:.0f} %" if progress.HasField("percentage") else "? %"


def print_metrics_table(console: Console, metrics: Sequence[operation_pb2.Metric]) -> None:
    """Print metrics under one heading that has the columns of them all."""
    rows = MetricRows(metrics, width=width_of(console))
    console.print(Text(rows.heading(), style="bold"), soft_wrap=True)
    for metric in metrics:
        console.print(Text(rows.row(metric)), soft_wrap=True)
    if rows.left_out:
        note(f"There is no room for {rows.left_out} more figures; --format csv has them all.")
