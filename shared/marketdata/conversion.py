"""Between the market data domain and its messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from google.protobuf.any_pb2 import Any as AnyMessage

from ktrdr.marketdata.v1 import bar_pb2 as pb
from shared.marketdata.bars import COLUMNS, in_canonical_form, no_bars
from shared.marketdata.gaps import Gap, GapClass
from shared.marketdata.ranges import TimeRange
from shared.marketdata.result import DataLoadResult
from shared.marketdata.store import SeriesInfo
from shared.operations.conversion import duration, in_utf8, timestamp
from shared.operations.model import PackedResult
from shared.rpc.errors import MalformedAnswerError

CHUNK_ROWS = 16_000
"""Bars per message: six columns of 8 bytes stay below 1 MiB."""
_ROW_BYTES = 64
"""Of a bar in a message, at most."""

_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""The first and the last second that a Timestamp can say."""

_GAP_CLASS = {each: pb.GapClass.Value(f"GAP_CLASS_{each.name}") for each in GapClass}


def chunk_from_frame(bars: pd.DataFrame) -> pb.BarChunk:
    """Convert a frame of bars, column by column."""
    chunk = pb.BarChunk()
    chunk.times.extend(bars.index.as_unit("s").asi8.tolist())  # type: ignore[attr-defined]  # a DatetimeIndex
    for column in COLUMNS:
        getattr(chunk, column).extend(bars[column].tolist())
    return chunk


def frame_from_chunks(chunks: Iterable[pb.BarChunk]) -> pd.DataFrame:
    """Convert the chunks of one series to a frame, in canonical form.

    Raises MalformedAnswerError unless they are bars that ascend in time.
    """
    frames = [_frame_from_chunk(chunk) for chunk in chunks]
    bars = pd.concat(frames) if frames else no_bars()
    if not (bars.index.is_monotonic_increasing and bars.index.is_unique):
        raise MalformedAnswerError("chunk: its bars do not ascend in time.")
    return bars


def chunks_of(frames: Iterable[pd.DataFrame], rows: int = CHUNK_ROWS) -> Iterator[pb.BarChunk]:
    """Convert frames, each to chunks of at most `rows`; none for an empty frame."""
    for frame in frames:
        for first in range(0, len(frame), rows):
            yield chunk_from_frame(frame.iloc[first : first + rows])


def chunk_rows(size: int) -> int:
    """How many bars fit into `size` bytes."""
    return min(CHUNK_ROWS, size // _ROW_BYTES)


def series_to_proto(info: SeriesInfo) -> pb.Series:
    """Convert what a store holds of a series."""
    message = pb.Series(
        symbol=info.symbol,
        timeframe=info.timeframe,
        row_count=info.row_count,
        gap_count=info.gap_count,
        gaps=[_gap_to_proto(gap) for gap in info.gaps],
        update_time=timestamp(info.update_time),
        covered=[_range_to_proto(covered) for covered in info.covered],
    )
    if info.first is not None and info.last is not None:
        message.start_time.FromDatetime(info.first)
        message.end_time.FromDatetime(info.last)
    return message


def pack_result(result: DataLoadResult) -> PackedResult:
    """Pack a result as the operation's typed outcome."""
    packed = AnyMessage()
    packed.Pack(result_to_proto(result))
    return PackedResult(packed.type_url, packed.value)


def result_to_proto(result: DataLoadResult) -> pb.DataLoadResult:
    """Convert a load's result."""
    return pb.DataLoadResult(
        total_rows_loaded=result.total_rows_loaded,
        symbols_loaded=result.symbols_loaded,
        symbols_failed=[
            pb.FailedSymbol(symbol=failed.symbol, error=in_utf8(failed.error), reason=failed.reason)
            for failed in result.symbols_failed
        ],
        duration=duration(result.duration),
        timeframe=result.timeframe,
        symbols=[
            pb.LoadedSymbol(
                symbol=loaded.symbol,
                rows_loaded=loaded.rows_loaded,
                rows_rejected=loaded.rows_rejected,
                gap_count=loaded.gap_count,
                row_count=loaded.row_count,
            )
            for loaded in result.symbols
        ],
    )


def _gap_to_proto(gap: Gap) -> pb.Gap:
    return pb.Gap(
        start_time=timestamp(gap.start),
        end_time=timestamp(gap.end),
        gap_class=_GAP_CLASS[gap.gap_class],
    )


def _range_to_proto(covered: TimeRange) -> pb.TimeRange:
    return pb.TimeRange(start_time=timestamp(covered.start), end_time=timestamp(covered.end))


def _frame_from_chunk(chunk: pb.BarChunk) -> pd.DataFrame:
    times = np.array(chunk.times, dtype="int64")
    columns = {name: np.array(getattr(chunk, name), dtype="float64") for name in COLUMNS}
    if any(len(column) != len(times) for column in columns.values()):
        raise MalformedAnswerError("chunk: its columns are not of one length.")
    if len(times) and not (times.min() >= _FIRST and times.max() <= _LAST):
        raise MalformedAnswerError("chunk.times: must lie between the years 1 and 9999.")
    if not all(np.isfinite(column).all() for column in columns.values()):
        raise MalformedAnswerError("chunk: some of its values are not finite.")
    index = pd.DatetimeIndex(times.astype("datetime64[s]"), tz="UTC")
    return in_canonical_form(pd.DataFrame(columns, index=index))
