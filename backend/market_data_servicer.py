"""Market data that is elsewhere: loads are started there, bars stream through."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from ktrdr.marketdata.v1 import market_data_service_pb2_grpc
from ktrdr.marketdata.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from shared.clock import Clock, SystemClock
from shared.marketdata.servicer import MarketDataServicer, check_read
from shared.rpc.deadline import deadline_of
from shared.rpc.host_channel import HostChannel

LIST = 5.0
"""Seconds the host has for a listing."""
READ = 300.0
"""Seconds the host has for a series."""


class HostMarketDataServicer(market_data_service_pb2_grpc.MarketDataServiceServicer):
    """Serves ktrdr.marketdata.v1.MarketDataService from the host that holds the bars.

    `starts` checks and starts loads, on that host.
    """

    def __init__(
        self, starts: MarketDataServicer, host: HostChannel, clock: Clock | None = None
    ) -> None:
        self._starts = starts
        self._host = host
        self._clock = clock or SystemClock()

    def StartDataLoad(  # noqa: N802  # the contract's name
        self, request: pb.StartDataLoadRequest, context: grpc.ServicerContext
    ) -> pb.StartDataLoadResponse:
        """Check the request, have the host start it, answer at once."""
        return self._starts.StartDataLoad(request, context)

    def ReadBars(  # noqa: N802  # the contract's name
        self, request: pb.ReadBarsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ReadBarsResponse]:
        """Pass the host's chunks on as they come."""
        check_read(request)
        timeout = self._left(context, READ)
        yield from self._host.stream(
            MarketDataServiceStub, "ReadBars", request, timeout, context.add_callback
        )

    def ListSeries(  # noqa: N802  # the contract's name
        self, request: pb.ListSeriesRequest, context: grpc.ServicerContext
    ) -> pb.ListSeriesResponse:
        """Answer with the host's page."""
        timeout = self._left(context, LIST)
        answer: pb.ListSeriesResponse = self._host.call(
            MarketDataServiceStub, "ListSeries", request, timeout
        )
        return answer

    def _left(self, context: grpc.ServicerContext, most: float) -> float:
        """Seconds that the host may take, so that the caller can still be answered."""
        left = deadline_of(context, self._clock) - self._clock.monotonic()
        return max(0.0, min(most, left * 0.9))
