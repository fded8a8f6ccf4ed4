"""The pace of an operation as it has shown it, by the clock of its owner.

Only differences between times of one owner are used, so that no clock has to
agree with another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from google.protobuf.timestamp_pb2 import Timestamp

from backend.cli.figures import seconds_of
from ktrdr.operations.v1 import operation_pb2

_REPORTS_STEPS = "training"
"""The phase in which a training's steps follow each other: one ends when the next begins."""
_FIRST_SHARE = 0.25
"""Of the time worked so far: how long silence means nothing before the first step has ended."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """How fast an operation goes and how long nothing has come; seconds, None while unknown."""

    usual: float | None
    """What a step takes: the median of the last ones; before there are any, what an item takes."""
    unit: str
    """What `usual` is of: "epoch", "symbol", "batch"; empty while unknown."""
    silence: float | None
    """Since the worker last reported anything."""
    lag: float | None
    """What is compared with `usual`: the time in the step at hand if it began when the last
    one ended, else the silence."""
    least: float = 0.0
    """Below this a lag means nothing, whatever `usual` says."""


def cadence_of(
    operation: operation_pb2.Operation, metrics: Sequence[operation_pb2.Metric]
) -> Cadence:
    """The cadence of an operation of which the last metrics are known."""
    silence = None
    if operation.liveness.HasField("last_report_age"):
        silence = seconds_of(operation.liveness.last_report_age)
    lag = _lag(operation, metrics, silence)
    usual, unit = _step(metrics)
    if usual is not None:
        return Cadence(usual, unit, silence, lag)
    usual, worked = _item(operation)
    # What comes once a step, such as the validation after it, has not been seen yet.
    unit = "" if usual is None else "batch"
    return Cadence(usual, unit, silence, lag, worked * _FIRST_SHARE)


def _step(metrics: Sequence[operation_pb2.Metric]) -> tuple[float | None, str]:
    """What a step usually takes, from the times of its metrics."""
    if not metrics:
        return None, ""
    kind = metrics[-1].kind
    times = [_seconds(metric.time) for metric in metrics if metric.kind == kind]
    if len(times) > 1:
        return median(max(0.0, after - before) for before, after in pairwise(times)), kind
    told = metrics[-1].values.get("duration", 0.0)
    return (told if told > 0 else None), kind


def _item(operation: operation_pb2.Operation) -> tuple[float | None, float]:
    """What a batch takes, and what has been worked in all, from the start to the last report.

    The first is more than a batch takes, never less. Rows of a load come many at
    once, so they show no pace of reports.
    """
    progress = operation.progress
    if operation.type != operation_pb2.OPERATION_TYPE_TRAINING or not operation.start_time.seconds:
        return None, 0.0
    worked = _seconds(progress.update_time) - _seconds(operation.start_time)
    if progress.items_processed <= 0 or worked <= 0:
        return None, 0.0
    return worked / progress.items_processed, worked


def _lag(
    operation: operation_pb2.Operation,
    metrics: Sequence[operation_pb2.Metric],
    silence: float | None,
) -> float | None:
    progress = operation.progress
    if silence is None or not metrics or progress.phase != _REPORTS_STEPS:
        return silence
    since_metric = _seconds(progress.update_time) + silence - _seconds(metrics[-1].time)
    return max(silence, since_metric)


def _seconds(time: Timestamp) -> float:
    return time.seconds + time.nanos / 1e9
