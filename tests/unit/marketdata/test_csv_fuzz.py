"""Whatever a CSV file holds, it is loaded or refused with a sentence, soon."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from shared.marketdata.bridge import DataLoadingProgressBridge
from shared.marketdata.conversion import pack_result, series_to_proto
from shared.marketdata.csv_folder import CsvFolder
from shared.marketdata.loader import DataLoader
from shared.marketdata.request import LoadRequest
from shared.marketdata.result import DataLoadResult
from shared.marketdata.store import BarStore
from shared.rpc.errors import KtrdrError
from tests.support.fuzzing import examples

HEADER = "date,open,high,low,close,volume"
GOOD = f"{HEADER}\n" + "".join(f"2012-01-{day:02},1,2,0.5,1.5,100\n" for day in range(1, 31))
PIECES = [
    *('"', ",", "\n", "\r", "\r\n", "\0", "\ufeff", ";", "\t", "|", "'", "#", "\\", "\x1a"),
    *("nan", "inf", "-1", "1e999", "0x10", "1_000", "9" * 400, "-0", "1,5", "٣", "$1", "1.5%"),
    *("2012-13-45", "0000-00-00", "9999-12-31", "-1", "now", "NaT", "20120131", "1326844800"),
    *("9999999999999", "31/01/2012", "2012-01-31T25:00", "2012-01-31T00:00:00.123456789Z"),
    *("2012-01-31T00:00+99:99", "2012-W05-1", "time", "index", "Unnamed: 0", HEADER),
]
WHOLE: dict[str, bytes] = {
    "nothing": b"",
    "blank lines": b"\n" * 10_000,
    "NUL bytes": b"\0" * 10_000,
    "a mark of order": b"\xef\xbb\xbf",
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-16 without a mark": GOOD.encode("utf-16-le"),
    "Latin-1": GOOD.replace("open", "öpen").encode("latin-1"),
    "gzip": gzip.compress(GOOD.encode()),
    "Parquet": b"PAR1" + bytes(range(256)),
    "a header twice": f"{HEADER}\n{GOOD}".encode(),
    "a column twice": GOOD.replace("open", "open,open").encode(),
    "half a line": GOOD[:-9].encode(),
    "a quote that is not closed": GOOD.replace("2012-01-05", '"2012-01-05').encode(),
    "a huge field": GOOD.replace("1.5", "1" * 1_000_000, 1).encode(),
    "a huge header": GOOD.replace("open", "o" * 1_000_000).encode(),
    "one huge line": b"x" * 5_000_000,
    "very many columns": GOOD.replace("volume", "volume" + ",c" * 20_000).encode(),
    "the year after the last": GOOD.replace("2012-01-30", "9999-12-31").encode(),
    "a year before the first": GOOD.replace("2012-01-30", "-1").encode(),
    "parts of a microsecond": b"date,open,high,low,close\n2012-01-31T00:00:00.123456789Z,1,2,1,1\n",
}
SOON = 3.0
"""Seconds of the processor; most take hundredths."""


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@st.composite
def mangled(draw: DrawFn) -> bytes:
    """A good file, some of it lost, doubled, replaced or with something put in."""
    text = GOOD
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(text)))
        before, after = text[:place], text[place:]
        match draw(st.sampled_from(["put", "put", "field", "lose", "double"])):
            case "put":
                text = before + draw(st.sampled_from(PIECES)) + after
            case "field":
                _, comma, rest = after.partition(",")
                text = before + draw(st.sampled_from(PIECES)) + comma + rest
            case "lose":
                text = before + after[draw(st.integers(1, 60)) :]
            case _:
                text = before + after[:60] + after
    data = text.encode()
    flips = draw(st.lists(st.tuples(st.integers(0, 1400), st.integers(0, 255)), max_size=2))
    for place, byte in flips:
        data = data[:place] + bytes([byte]) + data[place + 1 :]
    return data


def load(folder: Path, data: bytes, timeframe: str) -> DataLoadResult | KtrdrError:
    """Write a file, load it as a backend would, look at all that came of it."""
    (folder / f"IBM_{timeframe}.csv").write_bytes(data)
    source, store = CsvFolder(folder), BarStore(folder / "data")
    bridge = DataLoadingProgressBridge()
    try:
        result = DataLoader(store, source, bridge, bridge.cancel).run(
            LoadRequest(("IBM",), timeframe)
        )
        source.read("IBM", timeframe, None, None)
    except KtrdrError as error:
        return error
    finally:
        bridge.snapshot(0, 10)
    store.read("IBM", timeframe, None, None)
    for info in store.list().series:
        series_to_proto(info)
    pack_result(result)
    return result


def outcome(data: bytes, timeframe: str) -> DataLoadResult | KtrdrError:
    with TemporaryDirectory() as folder:
        began = thread_time()
        outcome = load(Path(folder), data, timeframe)
        assert thread_time() - began < SOON
    return outcome


@pytest.mark.parametrize("what", WHOLE)
@pytest.mark.parametrize("timeframe", ["1d", "1h"])
def test_what_is_no_good_file_is_loaded_in_part_or_refused(what: str, timeframe: str) -> None:
    result = outcome(WHOLE[what], timeframe)
    assert isinstance(result, DataLoadResult) or result.message


@examples(120)
@given(data=mangled(), timeframe=st.sampled_from(["1d", "1h", "1m", "1w"]))
def test_a_mangled_file_is_loaded_in_part_or_refused(data: bytes, timeframe: str) -> None:
    result = outcome(data, timeframe)
    assert isinstance(result, DataLoadResult) or result.message


@examples(40)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_loaded_or_refused(data: bytes) -> None:
    result = outcome(data, "1d")
    assert isinstance(result, DataLoadResult) or result.message


def test_a_good_file_is_loaded_whole() -> None:
    result = outcome(GOOD.encode(), "1d")
    assert isinstance(result, DataLoadResult)
    assert 30 == result.total_rows_loaded
