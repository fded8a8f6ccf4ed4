"""Operations and models as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.cli.displays import message_of, phase_of, staleness
from backend.cli.figures import length, minute, moment, percent, remaining, seconds_of, size
from backend.cli.results import (
    Fact,
    print_fact,
    print_facts,
    print_outcome,
    print_training_result,
)
from backend.cli.states import STYLES, is_terminal, status_name, type_name
from ktrdr.operations.v1 import operation_pb2
from ktrdr.training.v1 import model_pb2

_SHORT = 8
"""Characters of an instance id that are enough to tell a few processes apart."""


def operations_table(operations: Sequence[operation_pb2.Operation]) -> Table:
    """A row per operation; fits 80 columns. A "?" marks a state that is only last known."""
    table = _table("operation", "type", "status", "done", "created (UTC)")
    for operation in operations:
        progress = operation.progress
        status = status_name(operation)
        table.add_row(
            operation.operation_id,
            type_name(operation).lower().replace("_", " "),
            Text(status.lower() + ("?" if staleness(operation) else ""), STYLES.get(status, "")),
            f"{progress.percentage:.0f} %" if progress.HasField("percentage") else "-",
            minute(operation.create_time),
        )
    return table


def models_table(models: Sequence[model_pb2.Model]) -> Table:
    """A row per model; fits 80 columns. Whose it is, where they are of several processes."""
    several = len({model.result.instance for model in models}) > 1
    whose = ("instance",) if several else ()
    table = _table("model", "test acc", "baseline", "epochs", "size", "saved (UTC)", *whose)
    for model in models:
        test = model.result.test
        table.add_row(
            model.name,
            percent(test.accuracy),
            percent(test.baseline_accuracy),
            str(model.result.epochs_trained),
            size(model.size_bytes),
            minute(model.create_time),
            *((model.result.instance[:_SHORT],) if several else ()),
        )
    return table


def print_operation(console: Console, operation: operation_pb2.Operation) -> None:
    """Print everything there is to say about one operation."""
    print_facts(console, list(_facts(operation)))
    if is_terminal(operation):
        console.print()
        print_outcome(console, operation)


def _facts(operation: operation_pb2.Operation) -> Iterator[Fact]:
    """What there is to say, but for its outcome."""
    status = status_name(operation)
    yield Fact("operation", operation.operation_id)
    yield Fact("type", type_name(operation).lower().replace("_", " "))
    yield Fact("status", status.lower(), STYLES.get(status, ""))
    if operation.HasField("progress"):
        yield Fact("progress", _progress_text(operation))
    for name, word in _TIME_WORDS.items():
        if operation.HasField(name):
            yield Fact(word, moment(getattr(operation, name)))
    if operation.cancel_reason:
        yield Fact("reason", operation.cancel_reason)
    yield Fact("metrics", str(operation.metrics_count))
    yield from (Fact(key, value) for key, value in sorted(operation.metadata.items()))
    yield Fact("as of", _freshness_text(operation))
    if len(operation.freshness.path) > 1:
        for index, text in enumerate(_hops(operation)):
            yield Fact("" if index else "path", text)
    if operation.HasField("liveness"):
        yield Fact("worker", _worker_text(operation))


def _worker_text(operation: operation_pb2.Operation) -> str:
    if operation.status == operation_pb2.OPERATION_STATUS_PENDING:
        return "waiting for one"
    word = "alive" if operation.liveness.worker_alive else "gone"
    return f"{word} when last seen" if staleness(operation) else word


def print_model(console: Console, model: model_pb2.Model) -> None:
    """Print everything there is to say about one model."""
    if model.result.instance:
        print_fact(console, "instance", model.result.instance)
    print_fact(console, "saved", f"{moment(model.create_time)}, {size(model.size_bytes)}")
    console.print()
    print_training_result(console, model.result)
    print_fact(console, "inputs", ", ".join(model.features))
    console.print(Text("\n  strategy", style="bold"))
    for line in model.strategy_yaml.splitlines():
        console.print(f"    {line}", soft_wrap=True)


TimeName = Literal["create_time", "start_time", "update_time", "end_time", "cancel_time"]
_SOURCES: dict[int, str] = {
    operation_pb2.FRESHNESS_SOURCE_BRIDGE: "the bridge",
    operation_pb2.FRESHNESS_SOURCE_REMOTE: "its host",
    operation_pb2.FRESHNESS_SOURCE_RECORD: "the record",
}
_TIME_WORDS: dict[TimeName, str] = {
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
    parts += [message_of(operation)] if progress.message else []
    if progress.HasField("estimated_remaining") and not is_terminal(operation):
        parts.append(remaining(seconds_of(progress.estimated_remaining)))
    return ", ".join(parts)


def _freshness_text(operation: operation_pb2.Operation) -> str:
    stale = staleness(operation)
    if stale:
        return stale
    freshness = operation.freshness
    cached = ", cached" if freshness.cached else ""
    return f"{length(seconds_of(freshness.age))} ago (from {_source(freshness.source)}{cached})"


def _source(source: operation_pb2.FreshnessSource.ValueType) -> str:
    return _SOURCES.get(source, "an unknown source")


def _hops(operation: operation_pb2.Operation) -> Iterator[str]:
    """A line per process that the snapshot passed, the one that was asked first."""
    path = operation.freshness.path
    url = operation.metadata.get("host_service_url", "")
    for place, hop in enumerate(path):
        owner = f", {url}" if url and place == len(path) - 1 else ""
        who = "the backend" if place == 0 else f"its host{owner}"
        cached = ", cached" if hop.cached else ""
        age = length(seconds_of(hop.age))
        yield f"{hop.instance[:_SHORT]} ({who}): from {_source(hop.source)}{cached}, {age} old"


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in headings:
        numeric = heading in {"done", "test acc", "baseline", "epochs", "size"}
        table.add_column(
            heading, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric
        )
    return table
