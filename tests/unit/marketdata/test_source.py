from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from shared.marketdata.bars import BarSource, no_bars
from shared.marketdata.csv_folder import CsvFolder
from shared.marketdata.sample import SampleBarSource
from shared.marketdata.series_file import SeriesUnreadableError
from shared.marketdata.source import StoredBarSource
from shared.marketdata.store import BarStore
from shared.rpc.errors import InvalidArgumentError
from tests.unit.marketdata.frames import daily, day, days

SAMPLE = SampleBarSource()
assert_same = pd.testing.assert_frame_equal


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "data")


@pytest.fixture
def source(store: BarStore) -> BarSource:
    return StoredBarSource(store, SAMPLE)


def test_what_was_loaded_is_read_in_place_of_what_could_be_read_directly(
    store: BarStore, source: BarSource
) -> None:
    loaded = daily(0, 5)
    store.merge("IBM", "1d", loaded, days(0, 5))
    assert_same(loaded, source.read("IBM", "1d", None, None))
    assert_same(loaded.iloc[1:3], source.read("IBM", "1d", day(1), day(3)))


def test_what_was_not_loaded_is_read_directly(store: BarStore, source: BarSource) -> None:
    store.merge("IBM", "1d", daily(0, 5), days(0, 5))
    start, end = datetime(2010, 1, 1, tzinfo=UTC), datetime(2011, 1, 1, tzinfo=UTC)
    for symbol, timeframe in [("GOOG", "1d"), ("IBM", "1w")]:
        assert_same(
            SAMPLE.read(symbol, timeframe, start, end), source.read(symbol, timeframe, start, end)
        )


def test_a_load_that_brought_no_bars_hides_none(store: BarStore, source: BarSource) -> None:
    store.merge("IBM", "1d", no_bars(), days(0, 5))
    assert_same(SAMPLE.read("IBM", "1d", None, None), source.read("IBM", "1d", None, None))


def test_a_series_that_was_loaded_without_bars_and_is_nowhere_else_has_none(
    store: BarStore, source: BarSource
) -> None:
    store.merge("AAA", "1d", no_bars(), days(0, 5))
    assert ("AAA", "1d") in source.series()
    assert_same(no_bars(), source.read("AAA", "1d", None, None))


def test_the_series_are_those_of_both_each_once_and_in_order(
    store: BarStore, source: BarSource
) -> None:
    store.merge("IBM", "1h", daily(0, 1), days(0, 1))
    store.merge("IBM", "1d", daily(0, 1), days(0, 1))
    store.merge("AAA", "1w", daily(0, 1), days(0, 1))
    series = source.series()
    assert {*SAMPLE.series(), ("IBM", "1h"), ("AAA", "1w")} == set(series)
    assert len(set(series)) == len(series)
    assert ("AAA", "1w") == series[0]
    assert ["1h", "1d", "1w"] == [timeframe for symbol, timeframe in series if symbol == "IBM"]


def test_a_series_nobody_has_is_refused_with_all_there_are(
    store: BarStore, source: BarSource
) -> None:
    store.merge("AAA", "1d", daily(0, 1), days(0, 1))
    with pytest.raises(InvalidArgumentError) as raised:
        source.read("NOPE", "1d", None, None)
    (violation,) = raised.value.violations
    assert "symbol" == violation.field
    assert "AAA" in violation.description
    assert "IBM" in violation.description


@pytest.mark.parametrize("timeframe", ["", "2d", "../1d"])
def test_an_unknown_timeframe_is_refused(source: BarSource, timeframe: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        source.read("IBM", timeframe, None, None)
    assert ["timeframe"] == [violation.field for violation in raised.value.violations]


def test_a_damaged_series_is_not_passed_over_in_silence(
    tmp_path: Path, store: BarStore, source: BarSource
) -> None:
    store.merge("IBM", "1d", daily(0, 5), days(0, 5))
    (tmp_path / "data" / "1d" / "IBM.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(SeriesUnreadableError):
        source.read("IBM", "1d", None, None)


def test_bars_of_ones_own_need_no_load(tmp_path: Path, store: BarStore) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    (folder / "OWN_1d.csv").write_text("date,open,high,low,close,volume\n2020-01-01,1,2,1,2,5\n")
    source = StoredBarSource(store, CsvFolder(folder))
    assert [("OWN", "1d")] == list(source.series())
    assert [2.0] == source.read("OWN", "1d", None, None)["close"].tolist()
