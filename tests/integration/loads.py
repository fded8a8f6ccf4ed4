"""What tests of loads share: a provider that waits, and the calls in fewer words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from google.protobuf.timestamp_pb2 import Timestamp

from ktrdr.marketdata.v1 import bar_pb2
from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as operations_pb
from shared.marketdata.conversion import frame_from_chunks
from shared.marketdata.provider import Fetched, FetchWatch
from shared.marketdata.ranges import TimeRange
from shared.marketdata.sample import SampleBarSource
from shared.operations.conversion import timestamp
from tests.integration.running import BARS, RunningBackend

SERVICE = "ktrdr.marketdata.v1.MarketDataService"
FROM, TO = datetime(2004, 8, 19, tzinfo=UTC), datetime(2013, 3, 1, tzinfo=UTC)
ROWS = {name: len(BARS.read(name, "1d", FROM, TO)) for name in ("IBM", "GOOG")}
PIECE = 500
"""Bars that the sample gives at once."""
NEVER = Timestamp(seconds=10**15)
QUICK = {"model.training.epochs": "2"}
HEADER = "date,open,high,low,close,volume\n"
assert_same = pd.testing.assert_frame_equal


class SteppedSample(SampleBarSource):
    """The sample, which gives a piece only once a test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self._let = threading.Semaphore(0)
        self.fetches: list[tuple[str, TimeRange]] = []

    def give(self, pieces: int) -> None:
        """Let that many pieces pass."""
        self._let.release(pieces)

    def fetch(
        self, symbol: str, timeframe: str, wanted: TimeRange, watch: FetchWatch
    ) -> Iterator[Fetched]:
        """Yield the pieces of the sample as they may pass."""
        self.fetches.append((symbol, wanted))
        for piece in super().fetch(symbol, timeframe, wanted, watch):
            while not self._let.acquire(timeout=0.01):
                watch.raise_if_cancelled()
            yield piece


def load(running: RunningBackend, **fields: Any) -> str:
    """Start a load, of IBM's and GOOG's days in the range unless the fields say otherwise."""
    defaults = {
        "symbols": ["IBM", "GOOG"],
        "timeframe": "1d",
        "start_time": timestamp(FROM),
        "end_time": timestamp(TO),
    }
    request = pb.StartDataLoadRequest(**{**defaults, **fields})
    operation: operation_pb2.Operation = running.market_data.StartDataLoad(request).operation
    return operation.operation_id


def load_whole(running: RunningBackend, **fields: Any) -> operation_pb2.Operation:
    """Load, and return the operation as it ended."""
    return running.ended(load(running, **fields))


def loaded_in(operation: operation_pb2.Operation) -> bar_pb2.DataLoadResult:
    """Unpack the result of a completed load."""
    result = bar_pb2.DataLoadResult()
    assert operation.result.Unpack(result), operation.error.message
    return result


def bars(
    running: RunningBackend, symbol: str, timeframe: str = "1d", **fields: Any
) -> pd.DataFrame:
    """Read the bars of a series."""
    request = pb.ReadBarsRequest(symbol=symbol, timeframe=timeframe, **fields)
    return frame_from_chunks(answer.chunk for answer in running.market_data.ReadBars(request))


def keys(page: pb.ListSeriesResponse) -> list[tuple[str, str]]:
    """Symbol and timeframe of each series of a page."""
    return [(series.symbol, series.timeframe) for series in page.series]


def operations(running: RunningBackend) -> int:
    """Count the operations there are."""
    answer = running.operations.ListOperations(operations_pb.ListOperationsRequest())
    return int(answer.total_count)


def write_csv(folder: Path, symbol: str, frame: pd.DataFrame) -> None:
    """Write days as a CSV file that the folder's provider finds."""
    frame.to_csv(folder / f"{symbol}_1d.csv", index_label="date", date_format="%Y-%m-%d")
