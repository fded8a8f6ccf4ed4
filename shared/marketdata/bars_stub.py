"""RemoteBars: what another process has loaded, as a source of bars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pandas as pd

from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from ktrdr.marketdata.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from shared.marketdata.conversion import frame_from_chunks
from shared.operations.conversion import optional_timestamp
from shared.rpc.errors import FieldViolation, InvalidArgumentError, NotFoundError
from shared.rpc.host_channel import HostChannel

LIST = 5.0
"""Seconds a listing may take."""
READ = 300.0
"""Seconds a series may take."""
_PAGE = 500


class RemoteBars:
    """The bars that the process behind a channel holds; a BarSource."""

    def __init__(self, channel: HostChannel) -> None:
        self._channel = channel

    def series(self) -> Sequence[tuple[str, str]]:
        """Return every series there is; see BarSource.series. Raises as HostChannel.call."""
        found: list[tuple[str, str]] = []
        token = ""
        while True:
            request = pb.ListSeriesRequest(page_size=_PAGE, page_token=token)
            page: pb.ListSeriesResponse = self._channel.call(
                MarketDataServiceStub, "ListSeries", request, LIST
            )
            found += [(series.symbol, series.timeframe) for series in page.series]
            token = page.next_page_token
            if not token:
                return found

    def trouble(self) -> str:
        """Return nothing: whoever does not answer is told by series; see BarSource.trouble."""
        return ""

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        """Return the bars that start in [start, end); see BarSource.read.

        Raises MalformedAnswerError unless they ascend in time, else as
        HostChannel.stream.
        """
        request = pb.ReadBarsRequest(
            symbol=symbol,
            timeframe=timeframe,
            start_time=optional_timestamp(start),
            end_time=optional_timestamp(end),
        )
        answers = self._channel.stream(MarketDataServiceStub, "ReadBars", request, READ)
        try:
            return frame_from_chunks(answer.chunk for answer in answers)
        except NotFoundError as error:
            raise InvalidArgumentError([FieldViolation("symbol", error.message)]) from error
