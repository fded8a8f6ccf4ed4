"""What is known of a live operation at one instant."""

from __future__ import annotations

from typing import NamedTuple

from shared.operations.model import (
    FreshnessSource,
    Hop,
    Liveness,
    Metric,
    Operation,
    OperationError,
)


class LiveState(NamedTuple):
    """A consistent copy of what a live operation knows."""

    operation: Operation
    observed_at: float
    """Monotonic instant its state is known for: of the last read, else of its creation.

    `inf` while it is being started: until then nobody knows more than its record.
    """
    source: FreshnessSource
    path: tuple[Hop, ...]
    liveness: Liveness | None
    metrics: tuple[Metric, ...]
    store_error: OperationError | None
