"""What a reader gets: an operation, metrics of the same instant, and how fresh they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.operations.live_state import LiveState
from shared.operations.model import (
    Freshness,
    FreshnessSource,
    Hop,
    Liveness,
    Metric,
    Operation,
    OperationError,
)
from shared.operations.refresh import Refreshed


class OperationView(NamedTuple):
    """A consistent snapshot for one caller."""

    operation: Operation
    freshness: Freshness
    liveness: Liveness | None
    """None if the operation is terminal."""
    metrics: tuple[Metric, ...] = ()


def view_of_live(
    state: LiveState, refreshed: Refreshed, instance: str, now: float
) -> OperationView:
    """Build the view of an operation that was live when it was read."""
    if state.operation.status.terminal:
        return view_of_record(state.operation, state.metrics, instance)
    age = max(0.0, now - state.observed_at)
    hop = Hop(instance, state.source, refreshed.cached, age)
    error = state.store_error
    if refreshed.error is not None:
        error = OperationError.of(refreshed.error)
    freshness = Freshness(age, state.source, refreshed.cached, error, (hop, *state.path))
    return OperationView(state.operation, freshness, state.liveness, state.metrics)


def view_of_record(operation: Operation, metrics: Sequence[Metric], instance: str) -> OperationView:
    """Build the view of a finished operation: a record, which cannot get stale."""
    source = FreshnessSource.RECORD
    hop = Hop(instance, source, cached=False, age=0.0)
    freshness = Freshness(0.0, source, cached=False, path=(hop,))
    return OperationView(operation, freshness, None, tuple(metrics))
