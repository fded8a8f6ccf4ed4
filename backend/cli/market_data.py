"""The backend's market data as the command sees it: one method per RPC."""

from __future__ import annotations

from backend.cli.client import START_DEADLINE, Backend
from backend.cli.failures import CommandError
from ktrdr.marketdata.v1 import bar_pb2, market_data_service_pb2, market_data_service_pb2_grpc
from ktrdr.operations.v1 import operation_pb2

READ_DEADLINE = 120.0
"""Seconds within which all bars of a series must have come."""
_PAGE = 500
_COLUMNS = ("open", "high", "low", "close", "volume")


class MarketDataBackend(Backend):
    """The backend with its market data; every method raises RpcFailedError."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._market_data = market_data_service_pb2_grpc.MarketDataServiceStub(
            self._connection.channel
        )

    def start_data_load(
        self, request: market_data_service_pb2.StartDataLoadRequest
    ) -> operation_pb2.Operation:
        """Start a load, or find the one the same request_id has started."""
        response: market_data_service_pb2.StartDataLoadResponse = self._call(
            self._market_data.StartDataLoad, request, START_DEADLINE
        )
        return response.operation

    def read_bars(
        self, request: market_data_service_pb2.ReadBarsRequest
    ) -> tuple[bar_pb2.BarChunk, ...]:
        """The bars of a series, in chunks, all of them.

        They are kept until the last has come: printing them meanwhile would make
        the backend wait for the reader of the output.
        """
        replies = self._connection.call(
            self._market_data.ReadBars, request, READ_DEADLINE, read=tuple
        )
        chunks = tuple(reply.chunk for reply in replies)
        if not all(map(_is_whole, chunks)):
            raise CommandError(
                f"the backend at {self.address} sent bars with values missing.",
                hint="It may be of another version than this command; update the older one.",
            )
        return chunks

    def list_series(self, limit: int) -> market_data_service_pb2.ListSeriesResponse:
        """The first `limit` series, by symbol and timeframe."""
        whole = market_data_service_pb2.ListSeriesResponse()
        while True:
            request = market_data_service_pb2.ListSeriesRequest(
                page_size=min(limit - len(whole.series), _PAGE), page_token=whole.next_page_token
            )
            page: market_data_service_pb2.ListSeriesResponse = self._call(
                self._market_data.ListSeries, request
            )
            whole.series.extend(page.series)
            whole.next_page_token, whole.total_count = page.next_page_token, page.total_count
            whole.unreadable.extend(set(page.unreadable) - set(whole.unreadable))
            if not page.next_page_token or len(whole.series) >= limit:
                return whole


def _is_whole(chunk: bar_pb2.BarChunk) -> bool:
    count = len(chunk.times)
    return all(len(getattr(chunk, name)) == count for name in _COLUMNS)
