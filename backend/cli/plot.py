"""The picture of a training: loss and accuracy per epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from backend.cli.results import training_result
from ktrdr.operations.v1 import operation_pb2

_TRAIN, _VALIDATION, _MARK = "#1f77b4", "#d95f02", "#555555"


def save_plot(
    path: Path, operation: operation_pb2.Operation, metrics: Sequence[operation_pb2.Metric]
) -> None:
    """Draw the epochs of a training and save the picture as PNG.

    Raises OSError if it cannot be written.
    """
    epochs = [metric for metric in metrics if metric.kind == "epoch"]
    result = training_result(operation)
    best = result.best_epoch if result else best_epoch(epochs)
    # Figure instead of pyplot: nothing is kept in the process, no screen is asked for.
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    _draw(loss, epochs, "loss", best)
    _draw(accuracy, epochs, "accuracy", best)
    loss.set_title("Loss (cross-entropy)")
    accuracy.set_title("Accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    if result:
        accuracy.axhline(
            result.validation.baseline_accuracy,
            color=_MARK,
            linestyle=":",
            label=f"baseline on validation: {result.validation.baseline_accuracy:.1%}",
        )
    for axes in (loss, accuracy):
        axes.legend(framealpha=0.95, edgecolor="none", fontsize=9)
    # Dollars are of names that come from elsewhere, not of formulas.
    title = _title(operation, best, len(epochs)).replace("$", r"\$")
    figure.suptitle(title, fontsize=13, wrap=True)
    figure.savefig(path, format="png", dpi=130)


def best_epoch(epochs: Sequence[operation_pb2.Metric]) -> int:
    """The epoch with the lowest validation loss; 0 if there is none."""
    losses = {m.step: _value(m, "val_loss") for m in epochs}
    finite = {step: loss for step, loss in losses.items() if math.isfinite(loss)}
    return min(finite, key=finite.__getitem__) if finite else 0


def _draw(axes: Axes, epochs: Sequence[operation_pb2.Metric], figure: str, best: int) -> None:
    """Draw one figure for the training and the validation part, and mark the best epoch."""
    steps = [metric.step for metric in epochs]
    # A single point has no line; give every point a mark while there are few.
    marker = "o" if len(steps) <= 30 else None
    for name, color, word in (("train", _TRAIN, "train"), ("val", _VALIDATION, "validation")):
        values = [_value(metric, f"{name}_{figure}") for metric in epochs]
        axes.plot(steps, values, color=color, marker=marker, markersize=3.5, label=word)
        if name == "val" and best in steps:
            value = values[steps.index(best)]
            axes.plot([best], [value], "*", color=_VALIDATION, markersize=14, zorder=5)
    if best in steps:
        axes.axvline(best, color=_MARK, linestyle="--", linewidth=1, label=f"best epoch: {best}")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _title(operation: operation_pb2.Operation, best: int, count: int) -> str:
    """The model's name with its data and, if it did not complete, its state."""
    result = training_result(operation)
    if result is None:
        name = operation.metadata.get("strategy") or operation.operation_id
        return f"{name}: not completed, {count} epochs"
    data = f"{', '.join(result.symbols)} ({', '.join(result.timeframes)})"
    return f"{result.model_name}  ·  {data}  ·  best epoch {best} of {count}"


def _value(metric: operation_pb2.Metric, name: str) -> float:
    return metric.values.get(name, math.nan)
