"""A load of market data as asked for on the command line, and its start."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from backend.cli.dates import Period
from backend.cli.failures import ExitCode
from backend.cli.market_data import MarketDataBackend
from backend.cli.options import Format
from backend.cli.pace import Pace
from backend.cli.starting import Beginning, known_as, start_and_follow
from ktrdr.marketdata.v1 import market_data_service_pb2
from ktrdr.operations.v1 import operation_pb2

_OPTIONS = {
    "request_id": "--request-id",
    "symbols": "SYMBOLS",
    "timeframe": "TIMEFRAME",
    "start_time": "--start-date",
    "end_time": "--end-date",
    "mode": "--mode",
}
"""The option or argument behind each field of the request."""


@dataclass(frozen=True, slots=True)
class Order:
    """A load as asked for on the command line."""

    symbols: tuple[str, ...]
    timeframe: str
    period: Period
    mode: str
    """Name of a LoadMode, without prefix."""
    request_id: str
    """Empty: make one up."""


def load(order: Order, address: str, pace: Pace, *, detach: bool, output: Format) -> ExitCode:
    """Start a load and follow it, or leave it to itself."""
    request = build_request(order)
    with MarketDataBackend(address) as backend:
        beginning = Beginning(
            call=lambda: backend.start_data_load(request),
            noun="load",
            type=operation_pb2.OPERATION_TYPE_DATA_LOADING,
            request_id=request.request_id,
            options=_OPTIONS,
            known_as=known_as("data", order.request_id),
        )
        return start_and_follow(backend, beginning, pace, detach=detach, plot=None, output=output)


def build_request(order: Order) -> market_data_service_pb2.StartDataLoadRequest:
    """The order as a request that can be repeated without starting anything twice."""
    request = market_data_service_pb2.StartDataLoadRequest(
        request_id=order.request_id or uuid4().hex[:16],
        symbols=order.symbols,
        timeframe=order.timeframe,
        mode=market_data_service_pb2.LoadMode.Value(f"LOAD_MODE_{order.mode}"),
    )
    order.period.put_into(request)
    return request
