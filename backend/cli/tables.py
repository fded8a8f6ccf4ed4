"""Operations and models as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.cli.displays import phase_of, staleness
from backend.cli.figures import length, minute, moment, percent, remaining, seconds_of, size
from backend.cli.results import print_fact, print_outcome, print_training_result
from backend.cli.states import STYLES, is_terminal, status_name, type_name
from ktrdr.operations.v1 import operation_pb2
from ktrdr.training.v1 import model_pb2


def operations_table(operations: Sequence[operation_pb2.Operation]) -> Table:
    """A row per operation; fits 80 columns."""
    table = _table("operation", "type", "status", "done", "created (UTC)")
    for operation in operations:
        progress = operation.progress
        status = status_name(operation)
        table.add_row(
            operation.operation_id,
            type_name(operation).lower().replace("_", " "),
            Text(status.lower(), style=STYLES.get(status, "")),
            f"{progress.percentage:.0f} %" if progress.HasField("percentage") else "-",
            minute(operation.create_time),
        )
    return table


def models_table(models: Sequence[model_pb2.Model]) -> Table:
    """A row per model; fits 80 columns."""
    table = _table("model", "test acc", "baseline", "epochs", "size", "saved (UTC)")
    for model in models:
        test = model.result.test
        table.add_row(
            model.name,
            percent(test.accuracy),
            percent(test.baseline_accuracy),
            str(model.result.epochs_trained),
            size(model.size_bytes),
            minute(model.create_time),
        )
    return table


def print_operation(console: Console, operation: operation_pb2.Operation) -> None:
    """Print everything there is to say about one operation."""
    status = status_name(operation)
    print_fact(console, "operation", operation.operation_id)
    print_fact(console, "type", type_name(operation).lower().replace("_", " "))
    print_fact(console, "status", status.lower(), style=STYLES.get(status, ""))
    if operation.HasField("progress"):
        print_fact(console, "progress", _progress_text(operation))
    for name in ("create_time", "start_time", "update_time", "end_time", "cancel_time"):
        if operation.HasField(name):
            print_fact(console, _TIME_WORDS[name], moment(getattr(operation, name)))
    if operation.cancel_reason:
        print_fact(console, "reason", operation.cancel_reason)
    print_fact(console, "metrics", str(operation.metrics_count))
    for key, value in sorted(operation.metadata.items()):
        print_fact(console, key, value)
    print_fact(console, "as of", _freshness_text(operation))
    if operation.HasField("liveness"):
        print_fact(console, "worker", _worker_text(operation))
    if is_terminal(operation):
        console.print()
        print_outcome(console, operation)


def _worker_text(operation: operation_pb2.Operation) -> str:
    if operation.status == operation_pb2.OPERATION_STATUS_PENDING:
        return "waiting for one"
    return "alive" if operation.liveness.worker_alive else "gone"


def print_model(console: Console, model: model_pb2.Model) -> None:
    """Print everything there is to say about one model."""
    print_fact(console, "saved", f"{moment(model.create_time)}, {size(model.size_bytes)}")
    console.print()
    print_training_result(console, model.result)
    print_fact(console, "inputs", ", ".join(model.features))
    console.print(Text("\n  strategy", style="bold"))
    for line in model.strategy_yaml.splitlines():
        console.print(f"    {line}", soft_wrap=True)


_TIME_WORDS = {
    "create_time": "created",
    "start_time": "started",
    "update_time": "updated",
    "end_time": "ended",
    "cancel_time": "cancelled",
}


def _progress_text(operation: operation_pb2.Operation) -> str:
    progress = operation.progress
    parts = [f"{progress.percentage:.1f} %"] if progress.HasField("percentage") else []
    parts += [phase_of(operation)] if not is_terminal(operation) else []
    parts += [progress.message] if progress.message else []
    if progress.HasField("estimated_remaining") and not is_terminal(operation):
        parts.append(remaining(seconds_of(progress.estimated_remaining)))
    return ", ".join(parts)


def _freshness_text(operation: operation_pb2.Operation) -> str:
    stale = staleness(operation)
    if stale:
        return stale
    freshness = operation.freshness
    source = operation_pb2.FreshnessSource.DESCRIPTOR.values_by_number.get(freshness.source)
    word = source.name.removeprefix("FRESHNESS_SOURCE_").lower() if source else "unknown source"
    cached = ", cached" if freshness.cached else ""
    return f"{length(seconds_of(freshness.age))} ago (from the {word}{cached})"


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in headings:
        numeric = heading in {"done", "test acc", "baseline", "epochs", "size"}
        table.add_column(
            heading, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric
        )
    return table
