"""Bars read back, and listings of what there is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from shared.operations.conversion import time_of, timestamp
from tests.integration.loads import (
    FROM,
    SERVICE,
    TO,
    assert_same,
    bars,
    keys,
    load_whole,
)
from tests.integration.refusals import refused
from tests.integration.running import (
    BARS,
    COMPLETED,
    RunningBackend,
    running_backend,
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """A backend that holds the days of IBM and GOOG in the range; tests only read it."""
    with running_backend(tmp_path_factory.mktemp("home")) as running:
        assert COMPLETED == load_whole(running).status
        yield running


def test_a_listing_says_what_there_is_of_each_series(loaded: RunningBackend) -> None:
    page = loaded.market_data.ListSeries(pb.ListSeriesRequest())
    assert [("GOOG", "1d"), ("IBM", "1d")] == keys(page)
    for series in page.series:
        there = BARS.read(series.symbol, "1d", FROM, TO)
        assert len(there) == series.row_count
        assert there.index[0] == time_of(series.start_time)
        assert there.index[-1] == time_of(series.end_time)
        assert [(FROM, TO)] == [
            (time_of(part.start_time), time_of(part.end_time)) for part in series.covered
        ]
        assert series.gap_count == len(series.gaps)


def test_series_are_listed_page_by_page(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        symbols = ["AAPL", "GOOG", "IBM"]
        for timeframe in ("1w", "1d"):
            load_whole(running, symbols=symbols, timeframe=timeframe)
        found: list[tuple[str, str]] = []
        token, pages = "", 0
        while True:
            request = pb.ListSeriesRequest(page_size=2, page_token=token)
            page = running.market_data.ListSeries(request)
            assert 2 * len(symbols) == page.total_count
            found, token, pages = [*found, *keys(page)], page.next_page_token, pages + 1
            if not token:
                break
        assert [(symbol, length) for symbol in symbols for length in ("1d", "1w")] == found
        assert len(symbols) == pages


@pytest.mark.parametrize(
    ("symbol", "timeframe"), [("MSFT", "1d"), ("IBM", "1w"), ("NOPE", "1d"), ("../IBM", "1d")]
)
def test_bars_that_were_not_loaded_are_not_found_and_the_way_to_them_is_named(
    loaded: RunningBackend, symbol: str, timeframe: str
) -> None:
    refusal = refused(lambda: bars(loaded, symbol, timeframe))
    assert grpc.StatusCode.NOT_FOUND == refusal.code
    assert "SERIES_NOT_FOUND" == refusal.reason
    assert {"symbol": symbol, "timeframe": timeframe} == dict(refusal.metadata)
    assert f"ktrdr data load {symbol} {timeframe}" in refusal.message


@pytest.mark.parametrize("symbol", ["IBM", "GOOG"])
def test_what_is_read_is_the_sample_bit_for_bit(loaded: RunningBackend, symbol: str) -> None:
    assert_same(BARS.read(symbol, "1d", FROM, TO), bars(loaded, symbol), check_exact=True)


def test_every_series_of_the_sample_is_read_bit_for_bit_once_loaded(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        symbols = sorted({symbol for symbol, _ in BARS.series()})
        for timeframe in ("1d", "1w"):
            fields = {"symbols": symbols, "timeframe": timeframe}
            assert COMPLETED == load_whole(running, **fields, start_time=None, end_time=None).status
            for symbol in symbols:
                whole = BARS.read(symbol, timeframe, None, None)
                assert_same(whole, bars(running, symbol, timeframe), check_exact=True)
        page = running.market_data.ListSeries(pb.ListSeriesRequest())
        assert list(BARS.series()) == keys(page)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(2012, 1, 1, tzinfo=UTC), None),
        (None, datetime(2005, 1, 1, tzinfo=UTC)),
        (datetime(2009, 6, 1, tzinfo=UTC), datetime(2009, 6, 2, tzinfo=UTC)),
        (datetime(2009, 6, 6, tzinfo=UTC), datetime(2009, 6, 8, tzinfo=UTC)),  # a weekend
        (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("limit", [0, 1, 10])
def test_a_range_and_its_first_bars_are_read(
    loaded: RunningBackend, start: datetime | None, end: datetime | None, limit: int
) -> None:
    read = bars(
        loaded,
        "IBM",
        start_time=start and timestamp(start),
        end_time=end and timestamp(end),
        limit=limit,
    )
    expected = BARS.read("IBM", "1d", max(start or FROM, FROM), min(end or TO, TO))
    assert_same(expected.iloc[: limit or None], read, check_exact=True)


def test_the_service_says_that_it_serves(loaded: RunningBackend) -> None:
    assert 1 == loaded.health(SERVICE)
