"""A training as asked for on the command line, and its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from backend.cli.client import Backend
from backend.cli.dates import Period
from backend.cli.failures import ExitCode
from backend.cli.options import Format
from backend.cli.pace import Pace
from backend.cli.starting import Beginning, known_as, start_and_follow
from ktrdr.operations.v1 import operation_pb2
from ktrdr.training.v1 import training_service_pb2

_OPTIONS = {
    "request_id": "--request-id",
    "strategy_yaml": "--strategy",
    "symbols": "--symbols",
    "timeframes": "--timeframes",
    "start_time": "--start-date",
    "end_time": "--end-date",
    "seed": "--seed",
    "overrides": "--set",
}
"""The option behind each field of the request."""


@dataclass(frozen=True, slots=True)
class Order:
    """A training as asked for on the command line."""

    strategy_yaml: str
    symbols: tuple[str, ...]
    """Empty: the strategy's."""
    timeframes: tuple[str, ...]
    """Empty: the strategy's."""
    period: Period
    seed: int | None
    overrides: Mapping[str, str]
    """Values by dotted path."""
    request_id: str
    """Empty: make one up."""


def train(
    order: Order, address: str, pace: Pace, *, detach: bool, plot: Path | None, output: Format
) -> ExitCode:
    """Start a training and follow it, or leave it to itself."""
    request = build_request(order)
    with Backend(address) as backend:
        beginning = Beginning(
            call=lambda: backend.start_training(request),
            noun="training",
            type=operation_pb2.OPERATION_TYPE_TRAINING,
            request_id=request.request_id,
            options=_OPTIONS,
            known_as=known_as("training", order.request_id),
        )
        return start_and_follow(backend, beginning, pace, detach=detach, plot=plot, output=output)


def build_request(order: Order) -> training_service_pb2.StartTrainingRequest:
    """The order as a request that can be repeated without starting anything twice."""
    request = training_service_pb2.StartTrainingRequest(
        request_id=order.request_id or uuid4().hex[:16],
        strategy_yaml=order.strategy_yaml,
        symbols=order.symbols,
        timeframes=order.timeframes,
        seed=order.seed,
        overrides=dict(order.overrides),
    )
    order.period.put_into(request)
    return request
