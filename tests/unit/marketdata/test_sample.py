from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from shared.marketdata import sample
from shared.marketdata.bars import COLUMNS
from shared.marketdata.provider import SeriesFailedError
from shared.marketdata.ranges import TimeRange, union
from shared.marketdata.sample import SampleBarSource
from shared.rpc.errors import InvalidArgumentError


@pytest.fixture(scope="module")
def source() -> SampleBarSource:
    return SampleBarSource()


def test_it_has_five_stocks_by_day_and_week(source: SampleBarSource) -> None:
    stocks = ("AAPL", "FB", "GOOG", "IBM", "MSFT")

    assert [(stock, name) for stock in stocks for name in ("1d", "1w")] == source.series()


@pytest.mark.parametrize("timeframe", ["1d", "1w"])
@pytest.mark.parametrize("symbol", ["AAPL", "FB", "GOOG", "IBM", "MSFT"])
def test_bars_are_complete_ordered_and_consistent(
    source: SampleBarSource, symbol: str, timeframe: str
) -> None:
    bars = source.read(symbol, timeframe, None, None)

    assert list(COLUMNS) == list(bars.columns)
    assert "time" == bars.index.name
    assert "UTC" == str(pd.DatetimeIndex(bars.index).tz)
    assert bars.index.is_monotonic_increasing
    assert bars.index.is_unique
    assert {np.dtype("float64")} == set(bars.dtypes)
    assert not bars.isna().to_numpy().any()
    assert (bars["high"] >= bars[["open", "close", "low"]].max(axis=1)).all()
    assert (bars["low"] <= bars[["open", "close", "high"]].min(axis=1)).all()


def test_prices_are_those_traded(source: SampleBarSource) -> None:
    first = source.read("AAPL", "1d", None, None).iloc[0]

    assert [118.56, 132.06, 118.5, 130.31, 9616100.0] == first.tolist()


def test_the_range_includes_its_start_and_excludes_its_end(source: SampleBarSource) -> None:
    start, end = datetime(2010, 1, 4, tzinfo=UTC), datetime(2010, 1, 7, tzinfo=UTC)

    bars = source.read("IBM", "1d", start, end)

    assert ["2010-01-04", "2010-01-05", "2010-01-06"] == [f"{day:%Y-%m-%d}" for day in bars.index]


def test_a_range_without_bars_is_empty(source: SampleBarSource) -> None:
    assert 0 == len(source.read("IBM", "1d", datetime(2020, 1, 1, tzinfo=UTC), None))


def test_a_week_starts_on_monday_and_sums_up_its_days(source: SampleBarSource) -> None:
    start, end = datetime(2010, 1, 4, tzinfo=UTC), datetime(2010, 1, 11, tzinfo=UTC)
    days = source.read("IBM", "1d", start, end)

    weeks = source.read("IBM", "1w", start, end)

    assert [start] == list(weeks.index)
    assert [
        days["open"].iloc[0],
        days["high"].max(),
        days["low"].min(),
        days["close"].iloc[-1],
        days["volume"].sum(),
    ] == weeks.iloc[0].tolist()


def test_weeks_hold_every_day(source: SampleBarSource) -> None:
    days, weeks = source.read("FB", "1d", None, None), source.read("FB", "1w", None, None)

    assert days["volume"].sum() == weeks["volume"].sum()
    assert {0} == set(pd.DatetimeIndex(weeks.index).day_of_week)


def test_changing_what_was_read_changes_nothing_for_others(source: SampleBarSource) -> None:
    mine = source.read("IBM", "1d", None, None)
    mine["close"] = 0.0

    assert (source.read("IBM", "1d", None, None)["close"] > 0).all()


def test_an_unknown_series_is_refused(source: SampleBarSource) -> None:
    with pytest.raises(InvalidArgumentError, match="no bars for symbol 'XYZ'"):
        source.read("XYZ", "1d", None, None)


def test_several_first_readers_load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load = sample._load

    def counted() -> dict[tuple[str, str], pd.DataFrame]:
        loads.append(1)
        return load()

    monkeypatch.setattr(sample, "_load", counted)
    source = SampleBarSource()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: source.series(), range(8)))

    assert [1] == loads


class SilentWatch:
    """Watches a fetch and only remembers the estimates."""

    def __init__(self) -> None:
        self.estimates: list[int] = []

    def note(self, message: str) -> None:
        raise AssertionError(message)

    def estimate(self, rows: int) -> None:
        self.estimates.append(rows)

    def raise_if_cancelled(self) -> None:
        """Never."""

    def wait(self, seconds: float) -> None:
        raise AssertionError(seconds)


def test_it_can_be_loaded_from_piece_by_piece(source: SampleBarSource) -> None:
    watch = SilentWatch()
    wanted = TimeRange(datetime(2009, 12, 31, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))

    pieces = list(source.fetch("IBM", "1d", wanted, watch))

    expected = source.read("IBM", "1d", wanted.start, wanted.end)
    assert [len(expected)] == watch.estimates
    assert len(pieces) > 1
    pd.testing.assert_frame_equal(expected, pd.concat([piece.frame for piece in pieces]))
    assert (wanted,) == union(piece.covered for piece in pieces)


def test_it_knows_when_its_bars_begin(source: SampleBarSource) -> None:
    assert datetime(2004, 8, 19, tzinfo=UTC) == source.begins("GOOG", "1d")
    assert datetime(2004, 8, 16, tzinfo=UTC) == source.begins("GOOG", "1w")


def test_what_it_cannot_provide_fails_with_what_there_is(source: SampleBarSource) -> None:
    assert ["symbols[1]", "timeframe"] == [v.field for v in source.check(["IBM", "X"], "1m")]
    with pytest.raises(SeriesFailedError, match="There are: AAPL, FB, GOOG, IBM, MSFT"):
        source.begins("XYZ", "1d")
