from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from ktrdr.marketdata.v1 import bar_pb2 as pb
from shared.marketdata.bars import COLUMNS, no_bars
from shared.marketdata.conversion import (
    CHUNK_ROWS,
    chunk_from_frame,
    chunks_of,
    frame_from_chunks,
    pack_result,
    result_to_proto,
    series_to_proto,
)
from shared.marketdata.gaps import Gap, GapClass
from shared.marketdata.result import DataLoadResult, FailedSymbol, LoadedSymbol
from shared.marketdata.sample import SampleBarSource
from shared.marketdata.store import SeriesInfo
from shared.operations.conversion import time_of
from shared.rpc.errors import MalformedAnswerError
from tests.unit.marketdata.frames import bars_at, daily, day, days

MIB = 1024 * 1024
assert_same = pd.testing.assert_frame_equal


def minutes(count: int, start: datetime = datetime(2020, 1, 1, tzinfo=UTC)) -> pd.DataFrame:
    return bars_at([start + timedelta(minutes=number) for number in range(count)])


@pytest.mark.parametrize(
    "rows", [1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS + 7]
)
def test_bars_come_back_from_their_chunks_bit_for_bit(rows: int) -> None:
    bars = minutes(rows)
    sent = [chunk.SerializeToString() for chunk in chunks_of([bars])]
    assert_same(bars, frame_from_chunks(map(pb.BarChunk.FromString, sent)), check_exact=True)
    assert -(-rows // CHUNK_ROWS) == len(sent)


def test_the_sample_comes_back_bit_for_bit() -> None:
    source = SampleBarSource()
    for symbol, timeframe in source.series():
        bars = source.read(symbol, timeframe, None, None)
        assert_same(bars, frame_from_chunks(chunks_of([bars])), check_exact=True)


def test_values_at_the_ends_of_what_a_double_holds_come_back() -> None:
    bars = daily(0, 4)
    bars["volume"] = [0.0, np.finfo("f8").max, np.finfo("f8").tiny, np.nextafter(1.0, 2.0)]
    assert_same(bars, frame_from_chunks(chunks_of([bars])), check_exact=True)


def test_bars_before_1970_come_back() -> None:
    bars = bars_at([datetime(1926, 5, 3, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, tzinfo=UTC)])
    assert_same(bars, frame_from_chunks(chunks_of([bars])), check_exact=True)


@pytest.mark.parametrize(
    "start", [datetime(1910, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)]
)
def test_a_full_chunk_is_less_than_a_mebibyte_whatever_its_times(start: datetime) -> None:
    (chunk,) = chunks_of([minutes(CHUNK_ROWS, start)])
    assert MIB > chunk.ByteSize()


def test_no_chunk_is_empty() -> None:
    frames = [no_bars(), daily(0, 3), no_bars(), daily(3, 5)]
    assert [3, 2] == [len(chunk.times) for chunk in chunks_of(frames)]
    assert [] == list(chunks_of([no_bars()]))


def test_no_chunks_are_no_bars() -> None:
    assert_same(no_bars(), frame_from_chunks([]))


def test_frames_are_taken_one_at_a_time() -> None:
    taken = []

    def frames() -> object:
        for number in range(3):
            taken.append(number)
            yield daily(number, number + 1)

    chunks = chunks_of(frames())  # type: ignore[arg-type]  # a generator
    next(chunks)
    assert [0] == taken


def short_column(chunk: pb.BarChunk) -> None:
    del chunk.low[-1]


def no_column(chunk: pb.BarChunk) -> None:
    chunk.ClearField("volume")


def more_times(chunk: pb.BarChunk) -> None:
    chunk.times.append(2_000_000_000)


def same_time(chunk: pb.BarChunk) -> None:
    chunk.times[1] = chunk.times[0]


def back_in_time(chunk: pb.BarChunk) -> None:
    chunk.times[:] = reversed(chunk.times)


def beyond_time(chunk: pb.BarChunk) -> None:
    chunk.times[-1] = 2**63 - 1


def before_time(chunk: pb.BarChunk) -> None:
    chunk.times[0] = -(2**63)


def not_a_number(chunk: pb.BarChunk) -> None:
    chunk.close[1] = float("nan")


def infinite(chunk: pb.BarChunk) -> None:
    chunk.high[0] = float("inf")


@pytest.mark.parametrize(
    "spoil",
    [
        short_column,
        no_column,
        more_times,
        same_time,
        back_in_time,
        beyond_time,
        before_time,
        not_a_number,
        infinite,
    ],
)
def test_chunks_that_are_no_bars_are_a_malformed_answer(
    spoil: Callable[[pb.BarChunk], None],
) -> None:
    chunk = chunk_from_frame(daily(0, 3))
    spoil(chunk)
    with pytest.raises(MalformedAnswerError, match="chunk"):
        frame_from_chunks([chunk])


def test_chunks_that_overlap_are_a_malformed_answer() -> None:
    chunks = [chunk_from_frame(daily(0, 3)), chunk_from_frame(daily(2, 5))]
    with pytest.raises(MalformedAnswerError, match="ascend"):
        frame_from_chunks(chunks)


def info(**fields: object) -> SeriesInfo:
    values: dict[str, object] = {
        "symbol": "IBM",
        "timeframe": "1d",
        "row_count": 7,
        "first": day(0),
        "last": day(9),
        "covered": (days(0, 5), days(7, 10)),
        "gaps": (Gap(day(3), day(4), GapClass.UNEXPECTED),),
        "gap_count": 1,
        "update_time": day(20),
    }
    return SeriesInfo(**{**values, **fields})  # type: ignore[arg-type]  # tests name its fields


def test_a_series_says_what_the_store_holds_of_it() -> None:
    message = series_to_proto(info())
    assert ("IBM", "1d", 7, 1) == (
        message.symbol,
        message.timeframe,
        message.row_count,
        message.gap_count,
    )
    assert (day(0), day(9), day(20)) == (
        time_of(message.start_time),
        time_of(message.end_time),
        time_of(message.update_time),
    )
    assert [(day(0), day(5)), (day(7), day(10))] == [
        (time_of(part.start_time), time_of(part.end_time)) for part in message.covered
    ]
    (gap,) = message.gaps
    assert (day(3), day(4)) == (time_of(gap.start_time), time_of(gap.end_time))
    assert pb.GAP_CLASS_UNEXPECTED == gap.gap_class


def test_a_series_without_bars_has_no_first_and_no_last() -> None:
    message = series_to_proto(info(row_count=0, first=None, last=None))
    assert not message.HasField("start_time")
    assert not message.HasField("end_time")


@pytest.mark.parametrize("gap_class", list(GapClass))
def test_every_class_of_gap_has_its_own_name_in_the_contract(gap_class: GapClass) -> None:
    message = series_to_proto(info(gaps=(Gap(day(0), day(1), gap_class),)))
    assert f"GAP_CLASS_{gap_class.name}" == pb.GapClass.Name(message.gaps[0].gap_class)


def test_a_result_arrives_as_it_was() -> None:
    result = DataLoadResult(
        total_rows_loaded=12,
        symbols_loaded=1,
        symbols_failed=(FailedSymbol("BAD", "It has no bars. Name another.", "CSV_UNREADABLE"),),
        duration=1.25,
        timeframe="1d",
        symbols=(LoadedSymbol("IBM", 12, 1, 2, 40), LoadedSymbol("BAD", 0, 0, 0, 0)),
    )
    packed = pack_result(result)
    message = pb.DataLoadResult()
    assert AnyMessage(type_url=packed.type_url, value=packed.value).Unpack(message)
    assert (12, 1, "1d") == (message.total_rows_loaded, message.symbols_loaded, message.timeframe)
    assert 1.25 == message.duration.ToTimedelta().total_seconds()
    assert [("BAD", "It has no bars. Name another.", "CSV_UNREADABLE")] == [
        (failed.symbol, failed.error, failed.reason) for failed in message.symbols_failed
    ]
    assert [("IBM", 12, 1, 2, 40), ("BAD", 0, 0, 0, 0)] == [
        (one.symbol, one.rows_loaded, one.rows_rejected, one.gap_count, one.row_count)
        for one in message.symbols
    ]


def test_half_a_character_in_why_a_symbol_failed_does_not_lose_the_result() -> None:
    """It may name a file in a folder whose name is not UTF-8."""
    failed = FailedSymbol("BAD", "The bars in /caf\udce9 cannot be read.", "SERIES_UNREADABLE")
    result = DataLoadResult(1, 1, (failed,), 1.0, "1d", ())

    message = result_to_proto(result)

    assert ["The bars in /caf? cannot be read."] == [one.error for one in message.symbols_failed]


def test_the_columns_of_a_chunk_belong_to_the_same_bars() -> None:
    bars = daily(0, 5)
    chunk = chunk_from_frame(bars)
    assert all(bars[name].tolist() == list(getattr(chunk, name)) for name in COLUMNS)
    assert all(later - earlier == 86_400 for earlier, later in pairwise(chunk.times))
