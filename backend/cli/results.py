"""The outcome of an operation, for people: its figures, or why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.cli.figures import day, length, per_second, percent, seconds_of
from backend.cli.states import is_terminal, load_result
from backend.cli.table_layout import print_table
from ktrdr.marketdata.v1 import bar_pb2
from ktrdr.operations.v1 import operation_pb2
from ktrdr.training.v1 import training_pb2

_KEY_WIDTH = 14


class Fact(NamedTuple):
    """A named fact."""

    key: str
    value: str
    style: str = ""


def training_result(operation: operation_pb2.Operation) -> training_pb2.TrainingResult | None:
    """The result of a completed training; None for anything else."""
    result = training_pb2.TrainingResult()
    return result if operation.result.Unpack(result) else None


def print_outcome(console: Console, operation: operation_pb2.Operation) -> None:
    """Print how an operation ended; nothing while it goes on."""
    result, load = training_result(operation), load_result(operation)
    if result is not None:
        print_training_result(console, result)
    elif load is not None:
        print_load_result(console, load)
        if hint := _nothing_loaded(operation, load):
            print_fact(console, "note", hint, style="yellow")
    elif operation.HasField("result"):
        name = operation.result.type_url.rpartition("/")[2]
        print_fact(console, "result", f"a {name}; --format json shows it")
    elif operation.HasField("error"):
        print_error(console, operation.error)
    elif is_terminal(operation):
        print_fact(console, "result", "none was recorded")


def print_training_result(console: Console, result: training_pb2.TrainingResult) -> None:
    """Print the figures of a model beside those of the majority-class baseline."""
    print_table(console, _split_table(result))
    caption = "  baseline: the accuracy of always answering the majority class\n"
    console.print(Text(caption, style="dim"), soft_wrap=True)
    facts = {
        "epochs": f"{result.epochs_trained} (best: {result.best_epoch}, lowest validation loss)",
        "time": length(seconds_of(result.duration)),
        "speed": f"{result.samples_per_second:,.0f} samples per second",
        "parameters": f"{result.parameter_count:,}",
        "features": str(result.feature_count),
        "symbols": f"{', '.join(result.symbols)} ({', '.join(result.timeframes)})",
        "period": f"{day(result.start_time)} to {day(result.end_time)}",
        "class shares": ", ".join(
            f"{name} {percent(share)}" for name, share in sorted(result.class_shares.items())
        ),
        "seed": str(result.seed),
        "model": result.model_name,
        "path": result.model_path,
    }
    for key, value in facts.items():
        print_fact(console, key, value)
    for warning in result.warnings:
        print_fact(console, "warning", warning, style="yellow")


def print_load_result(console: Console, result: bar_pb2.DataLoadResult) -> None:
    """Print what each symbol brought, what could not be loaded, and the totals."""
    print_table(console, _symbols_table(result))
    console.print()
    seconds = seconds_of(result.duration)
    whole, asked = result.symbols_loaded, result.symbols_loaded + len(result.symbols_failed)
    print_fact(console, "loaded", f"{result.total_rows_loaded:,} bars of {result.timeframe}")
    print_fact(console, "symbols", f"{whole} of {asked}" if whole < asked else str(whole))
    print_fact(console, "time", length(seconds))
    if result.total_rows_loaded and seconds > 0:
        print_fact(console, "speed", per_second(result.total_rows_loaded / seconds))
    for failed in result.symbols_failed:
        text = f"{failed.symbol}: {failed.error} ({failed.reason})"
        print_fact(console, "failed", text, style="red")


def _nothing_loaded(operation: operation_pb2.Operation, result: bar_pb2.DataLoadResult) -> str:
    """Why a load that went well has brought nothing; empty if it has, or if symbols failed."""
    if result.total_rows_loaded or result.symbols_failed:
        return ""
    asked = operation.metadata.get("start_time", "")
    if asked and _parsed(asked) >= operation.create_time.ToDatetime(UTC):
        return f"Nothing is in that range yet: it begins in the future, on {asked[:10]}."
    if not any(one.row_count for one in result.symbols):
        return "There is nothing in that range; name an earlier or a longer one."
    return "Nothing new: what there is in that range, if anything, has been loaded before."


def _parsed(text: str) -> datetime:
    """A time as the backend writes it; what is none is long ago."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.fromtimestamp(0, UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def print_error(console: Console, error: operation_pb2.OperationError) -> None:
    """Print why an operation has no result."""
    print_fact(console, "error", f"{error.message} ({error.reason})", style="red")
    for key, value in sorted(error.metadata.items()):
        print_fact(console, "", f"{key}: {value}")
    if error.retryable:
        print_fact(console, "", "The same work may succeed if it is started again.")


def print_fact(
    console: Console, key: str, value: str, style: str = "", *, width: int = _KEY_WIDTH
) -> None:
    """Print a named fact on a line of its own, uncut, so that paths can be copied.

    `width` is that of the column of names, with the space after it.
    """
    line = Text(f"  {key:<{width - 1}} ", style="bold")
    line.append(value, style=style or "not bold")
    console.print(line, soft_wrap=True)


def print_facts(console: Console, facts: Sequence[Fact]) -> None:
    """Print named facts below each other, their values in one column."""
    width = max(_KEY_WIDTH, *(len(fact.key) + 1 for fact in facts))
    for fact in facts:
        print_fact(console, fact.key, fact.value, fact.style, width=width)


def _symbols_table(result: bar_pb2.DataLoadResult) -> Table:
    """A row per symbol."""
    failed = {one.symbol for one in result.symbols_failed}
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("  symbol", overflow="fold", style="bold", min_width=_KEY_WIDTH)
    for heading in ("rows loaded", "rejected", "gaps", "rows now"):
        table.add_column(heading, justify="right", no_wrap=True)
    if failed:
        table.add_column("")
    for one in result.symbols:
        figures = (one.rows_loaded, one.rows_rejected, one.gap_count, one.row_count)
        mark = (Text("failed", style="red"),) if one.symbol in failed else ()
        table.add_row(f"  {one.symbol}", *(f"{figure:,}" for figure in figures), *mark)
    return table


def _split_table(result: training_pb2.TrainingResult) -> Table:
    """A column per part of the data, a row per figure."""
    splits = (result.train, result.validation, result.test)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(" " * (_KEY_WIDTH + 2), style="bold", no_wrap=True)
    for name in ("train", "validation", "test"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("  accuracy", *(percent(s.accuracy) for s in splits))
    table.add_row("  baseline", *(percent(s.baseline_accuracy) for s in splits), style="dim")
    table.add_row("  loss", *(f"{s.loss:.4f}" for s in splits))
    table.add_row("  precision", *(percent(s.precision) for s in splits))
    table.add_row("  recall", *(percent(s.recall) for s in splits))
    table.add_row("  F1", *(percent(s.f1) for s in splits))
    counts = (result.train_sample_count, result.validation_sample_count, result.test_sample_count)
    table.add_row("  samples", *(f"{count:,}" for count in counts))
    return table
