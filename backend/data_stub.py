"""The starts of data loads on a host, as the backend's domain sees them."""

from __future__ import annotations

from backend.started import Started
from backend.started_conversion import started_from
from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from ktrdr.marketdata.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from shared.marketdata.launcher import LoadOrder
from shared.marketdata.request import LoadMode
from shared.operations.conversion import optional_timestamp
from shared.rpc.host_channel import HostChannel

_MODES = {LoadMode.MISSING: pb.LOAD_MODE_MISSING, LoadMode.FULL: pb.LOAD_MODE_FULL}


class DataStub:
    """Data loads on one host; raises KtrdrErrors as RemoteOperationStub does."""

    def __init__(self, channel: HostChannel) -> None:
        self._channel = channel

    def start(self, order: LoadOrder, request_id: str, *, timeout: float) -> Started:
        """Start a load under this request_id; return what the host made of it."""
        request = pb.StartDataLoadRequest(
            request_id=request_id,
            symbols=order.request.symbols,
            timeframe=order.request.timeframe,
            start_time=optional_timestamp(order.request.start),
            end_time=optional_timestamp(order.request.end),
            mode=_MODES[order.request.mode],
        )
        answer: pb.StartDataLoadResponse = self._channel.call(
            MarketDataServiceStub, "StartDataLoad", request, timeout
        )
        return started_from(answer, request_id, self._channel.target)
