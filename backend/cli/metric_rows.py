"""Metrics as rows of fixed width, so that they can be printed as they come."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from backend.cli.figures import percent
from ktrdr.operations.v1 import operation_pb2

_EPOCH = "epoch"
_SYMBOL = "symbol"
_STEP_WIDTH = len("100/100")
_GAP = "  "
_BEST = "best"


@dataclass(frozen=True, slots=True)
class _Column:
    """One figure of a metric: its name, its heading and how it is written."""

    name: str
    heading: str
    write: Callable[[float], str] = "{:.4g}".format


_KNOWN = (
    _Column("train_loss", "train loss", "{:.4f}".format),
    _Column("train_accuracy", "train acc", percent),
    _Column("val_loss", "val loss", "{:.4f}".format),
    _Column("val_accuracy", "val acc", percent),
    _Column("learning_rate", "learn rate", "{:.2g}".format),
    _Column("rows_loaded", "rows", "{:,.0f}".format),
    _Column("rejected", "rejected", "{:,.0f}".format),
    _Column("gaps", "gaps", "{:,.0f}".format),
    _Column("duration", "seconds", "{:.2f}".format),
    _Column("rows_per_second", "rows/s", "{:,.0f}".format),
)
_BY_IMPORTANCE = ("train_loss", "val_loss", "val_accuracy", "train_accuracy", "rows_loaded", "gaps")
"""What is shown first where not everything fits."""
_NOT_IN_ROWS = frozenset({"validation_time", "total_rows_loaded", "symbols_completed"})
"""Figures of a load that a row does without; CSV and JSON have them."""
_ORDER = tuple(column.name for column in _KNOWN)


def value_names(metrics: Iterable[operation_pb2.Metric]) -> list[str]:
    """The names of all figures in the metrics, the familiar ones first."""
    return _ordered({name for metric in metrics for name in metric.values})


class MetricRows:
    """Writes metrics as rows under one heading.

    The columns are those of the metrics it is made with; a figure a metric lacks
    is a dash. The row of the lowest validation loss so far is marked.

    Args:
        metrics: At least one, to take the columns from.
        total: How many rows there will be; None while unknown.
        width: Columns there are; figures that do not fit are left out, the last
            ones first. None: any number.
    """

    def __init__(
        self,
        metrics: Sequence[operation_pb2.Metric],
        total: int | None = None,
        width: int | None = None,
    ) -> None:
        known = {column.name: column for column in _KNOWN}
        names = {name for metric in metrics for name in _figures(metric)}
        columns = [known.get(name, _Column(name, name)) for name in _ordered(names)]
        self._kind = metrics[0].kind or "step"
        self._total = total
        self._labelled = any(metric.labels for metric in metrics)
        self._best = math.inf
        beside = _STEP_WIDTH + len(_GAP) + max(len(_BEST), *(len(_labels(m)) for m in metrics))
        self._columns = columns if width is None else _fitting(columns, width - beside)
        self.left_out = len(columns) - len(self._columns)
        """Figures that there is no room for."""

    def heading(self) -> str:
        """The line above the rows."""
        cells = [
            f"{self._kind:>{_STEP_WIDTH}}",
            *(f"{c.heading:>{_width(c)}}" for c in self._columns),
        ]
        cells += [_BEST] if self._marks_best else []
        return _GAP.join([*cells, "labels"] if self._labelled else cells)

    def row(self, metric: operation_pb2.Metric) -> str:
        """One metric as a line."""
        step = f"{metric.step}/{self._total}" if self._total else str(metric.step)
        cells = [
            f"{step:>{_STEP_WIDTH}}",
            *(self._cell(metric, column) for column in self._columns),
        ]
        if self._marks_best:
            cells.append(self._best_mark(metric))
        labels = _labels(metric)
        return _GAP.join([*cells, labels] if labels else cells).rstrip()

    @property
    def _marks_best(self) -> bool:
        return self._kind == _EPOCH and any(c.name == "val_loss" for c in self._columns)

    def _cell(self, metric: operation_pb2.Metric, column: _Column) -> str:
        figures = _figures(metric)
        text = column.write(figures[column.name]) if column.name in figures else "-"
        return f"{text:>{_width(column)}}"

    def _best_mark(self, metric: operation_pb2.Metric) -> str:
        loss = metric.values.get("val_loss", math.nan)
        if not loss < self._best:
            return "    "
        self._best = loss
        return "  * "


def write_csv(metrics: Sequence[operation_pb2.Metric], file: TextIO) -> None:
    """Write metrics as CSV: step, kind, time, each figure, each label."""
    names = value_names(metrics)
    labels = sorted({key for metric in metrics for key in metric.labels})
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["step", "kind", "time", *names, *labels])
    for metric in metrics:
        writer.writerow(
            [
                metric.step,
                metric.kind,
                metric.time.ToJsonString(),
                *(metric.values.get(n, "") for n in names),
                *(metric.labels.get(key, "") for key in labels),
            ]
        )


def _figures(metric: operation_pb2.Metric) -> dict[str, float]:
    """The figures of a row; for a symbol of a load also the pace."""
    if metric.kind != _SYMBOL:
        return dict(metric.values)
    figures = {name: value for name, value in metric.values.items() if name not in _NOT_IN_ROWS}
    rows, seconds = figures.get("rows_loaded"), figures.get("duration")
    if rows and seconds:
        figures["rows_per_second"] = rows / seconds
    return figures


def _labels(metric: operation_pb2.Metric) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(metric.labels.items()))


def _fitting(columns: Sequence[_Column], room: int) -> list[_Column]:
    """The columns that fit into so many characters, the most telling ones; at least one."""
    kept: list[_Column] = []
    for column in sorted(columns, key=_unimportance):
        room -= len(_GAP) + _width(column)
        if room < 0 and kept:
            break
        kept.append(column)
    return [column for column in columns if column in kept]


def _unimportance(column: _Column) -> int:
    names = _BY_IMPORTANCE
    return names.index(column.name) if column.name in names else len(names)


def _ordered(names: set[str]) -> list[str]:
    return [n for n in _ORDER if n in names] + sorted(names.difference(_ORDER))


def _width(column: _Column) -> int:
    return max(len(column.heading), 8)
