from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from shared.marketdata.bars import check_series, no_bars
from shared.marketdata.bridge import DataLoadingProgressBridge
from shared.marketdata.csv_file import CsvUnreadableError
from shared.marketdata.csv_folder import CsvFolder
from shared.marketdata.loader import DataLoader, NothingLoadedError
from shared.marketdata.provider import SeriesFailedError
from shared.marketdata.request import LoadMode, LoadRequest
from shared.marketdata.result import DataLoadResult
from shared.marketdata.sample import SampleBarSource
from shared.marketdata.source import StoredBarSource
from shared.marketdata.store import BarStore
from shared.rpc.errors import InvalidArgumentError
from tests.unit.marketdata.frames import daily, day

assert_same = pd.testing.assert_frame_equal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "csv").mkdir()
    return tmp_path / "csv"


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "data")


def write(folder: Path, name: str, bars: pd.DataFrame) -> None:
    bars.to_csv(folder / f"{name}.csv")


def load(
    store: BarStore, folder: Path, *symbols: str, mode: LoadMode = LoadMode.MISSING
) -> DataLoadResult:
    bridge = DataLoadingProgressBridge()
    loader = DataLoader(store, CsvFolder(folder), bridge, bridge.cancel)
    return loader.run(LoadRequest(symbols, "1d", mode=mode))


def test_files_are_series_by_their_names(folder: Path) -> None:
    for name in ("IBM_1d", "IBM_1h", "BRK.B_1w", "MY_OWN_5m", "IBM", "IBM_7d", "_1d", ".X_1d"):
        write(folder, name, daily(0, 3))

    assert [("BRK.B", "1w"), ("IBM", "1h"), ("IBM", "1d"), ("MY_OWN", "5m")] == CsvFolder(
        folder
    ).series()


def test_a_folder_that_is_not_there_has_no_series(folder: Path) -> None:
    source = CsvFolder(folder / "none")

    assert [] == source.series()
    assert "There are: none." in source.check(["IBM"], "1d")[0].description


def test_a_folder_that_has_gone_is_named_with_the_mend(folder: Path, store: BarStore) -> None:
    write(folder, "IBM_1d", daily(0, 5))
    source = CsvFolder(folder)
    folder.rename(folder.with_name("elsewhere"))
    told = (
        f"There are: none. The folder {folder}, named by KTRDR_CSV_FOLDER, cannot be read (No such "
        "file or directory); put it back."
    )

    assert [] == source.series()
    assert told in source.check(["IBM"], "1d")[0].description
    with pytest.raises(SeriesFailedError, match=re.escape(told)):
        source.begins("IBM", "1d")
    with pytest.raises(InvalidArgumentError, match=re.escape(told)):
        StoredBarSource(store, source).read("IBM", "1d", None, None)


def test_a_folder_that_has_gone_does_not_keep_from_reading_what_was_loaded(
    folder: Path, store: BarStore
) -> None:
    write(folder, "IBM_1d", daily(0, 5))
    load(store, folder, "IBM")
    folder.rename(folder.with_name("elsewhere"))
    source = StoredBarSource(store, CsvFolder(folder))

    assert [] == check_series(source, ["IBM"], ["1d"])
    assert 5 == len(source.read("IBM", "1d", None, None))
    (violation,) = check_series(source, ["GOOG"], ["1d"])
    assert "There are: IBM. The folder " in violation.description


def test_a_folder_that_is_there_is_not_mentioned(folder: Path) -> None:
    assert CsvFolder(folder).check(["IBM"], "1d")[0].description.endswith("There are: none.")


def test_bars_are_read_as_they_are_in_the_file(folder: Path) -> None:
    bars = SampleBarSource().read("IBM", "1d", None, None)
    write(folder, "IBM_1d", bars)
    source = CsvFolder(folder)

    assert_same(bars, source.read("IBM", "1d", None, None), check_exact=True)
    start, end = datetime(2010, 1, 4, tzinfo=UTC), datetime(2010, 1, 7, tzinfo=UTC)
    assert 3 == len(source.read("IBM", "1d", start, end))


def test_rows_that_cannot_be_right_are_not_read(folder: Path) -> None:
    bars = daily(0, 5)
    bars.iloc[1, 4] = -5.0
    write(folder, "IBM_1d", bars.iloc[::-1])

    assert_same(bars.drop(bars.index[1]), CsvFolder(folder).read("IBM", "1d", None, None))


def test_a_changed_file_is_read_anew(folder: Path) -> None:
    source = CsvFolder(folder)
    write(folder, "IBM_1d", daily(0, 5))
    assert 5 == len(source.read("IBM", "1d", None, None))

    write(folder, "IBM_1d", daily(0, 9))

    assert 9 == len(source.read("IBM", "1d", None, None))


def test_a_series_without_a_file_is_refused(folder: Path) -> None:
    write(folder, "IBM_1d", daily(0, 5))
    source = CsvFolder(folder)

    with pytest.raises(InvalidArgumentError, match="no bars for symbol 'XYZ'"):
        source.read("XYZ", "1d", None, None)
    with pytest.raises(SeriesFailedError, match=r"no bars for symbol '\.\./\.\./IBM'"):
        source.begins("../../IBM", "1d")
    assert ["symbols[1]"] == [v.field for v in source.check(["IBM", "XYZ"], "1d")]


def test_files_are_loaded_into_the_store(folder: Path, store: BarStore) -> None:
    bars = SampleBarSource().read("IBM", "1d", None, None)
    write(folder, "IBM_1d", bars)

    result = load(store, folder, "IBM")

    assert len(bars) == result.total_rows_loaded
    assert_same(bars, store.read("IBM", "1d", None, None), check_exact=True)


def test_rows_added_to_a_file_are_loaded_later(folder: Path, store: BarStore) -> None:
    write(folder, "IBM_1d", daily(0, 50))
    load(store, folder, "IBM")
    assert 0 == load(store, folder, "IBM").total_rows_loaded

    write(folder, "IBM_1d", pd.concat([daily(0, 50), daily(50, 60)]))

    result = load(store, folder, "IBM")
    assert (10, 60) == (result.total_rows_loaded, result.symbols[0].row_count)


def test_rows_changed_in_a_file_are_loaded_in_full_mode(folder: Path, store: BarStore) -> None:
    write(folder, "IBM_1d", daily(10, 50))
    load(store, folder, "IBM")
    write(folder, "IBM_1d", daily(0, 50, seed=5))

    assert 0 == load(store, folder, "IBM").total_rows_loaded
    assert 50 == load(store, folder, "IBM", mode=LoadMode.FULL).total_rows_loaded
    assert_same(daily(0, 50, seed=5), store.read("IBM", "1d", None, None))


def test_defects_of_a_file_are_counted(folder: Path, store: BarStore) -> None:
    bars = daily(0, 10)
    bars.iloc[3, 1] = float("nan")
    bars.iloc[5, 2] = 99.0
    bars = bars.iloc[[0, 1, 1, 3, 2, 4, 5, 6, 7, 8, 9]]
    bars.iloc[-1, 4] = -7.0
    write(folder, "IBM_1d", bars)
    with (folder / "IBM_1d.csv").open("a") as file:
        file.write(",1,2,0.5,1.5,3\n")

    result = load(store, folder, "IBM")

    assert (7, 5) == (result.symbols[0].rows_loaded, result.symbols[0].rows_rejected)
    kept = store.read("IBM", "1d", None, None)
    assert [day(number) for number in (0, 1, 2, 4, 6, 7, 8)] == list(kept.index)


def test_a_file_that_is_not_understood_fails_alone(folder: Path, store: BarStore) -> None:
    write(folder, "IBM_1d", daily(0, 5))
    (folder / "BAD_1d.csv").write_text("hello\n")
    write(folder, "EMPTY_1d", no_bars())

    result = load(store, folder, "BAD", "IBM", "EMPTY")

    assert {"BAD": "CSV_UNREADABLE", "EMPTY": "CSV_UNREADABLE"} == {
        failed.symbol: failed.reason for failed in result.symbols_failed
    }
    assert 5 == result.total_rows_loaded


def test_a_file_that_goes_between_check_and_load_fails_its_symbol(
    folder: Path, store: BarStore
) -> None:
    with pytest.raises(NothingLoadedError, match="no bars for symbol 'IBM'"):
        load(store, folder, "IBM")


def test_a_folder_where_a_file_should_be_is_unreadable(folder: Path) -> None:
    (folder / "IBM_1d.csv").mkdir()

    with pytest.raises(CsvUnreadableError, match="is not a file; put one in its place"):
        CsvFolder(folder).begins("IBM", "1d")


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    write(folder, "IBM_1d", daily(0, 30))

    with pytest.raises(CsvUnreadableError, match=r"more than the 100 that are read; .*_CSV_BYTES"):
        CsvFolder(folder, most_bytes=100).begins("IBM", "1d")
