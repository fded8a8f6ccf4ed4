from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGKILL
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.marketdata.bars import no_bars
from shared.marketdata.gaps import GapClass
from shared.marketdata.ranges import TimeRange, union
from shared.marketdata.series_file import SeriesUnreadableError
from shared.marketdata.store import BarStore, Merged, SeriesNotFoundError, SeriesNotSavedError
from shared.rpc.errors import InvalidArgumentError
from tests.support.clock import FakeClock
from tests.support.programs import ROOT
from tests.unit.marketdata.frames import START, bars_at, daily, day, days

assert_same = pd.testing.assert_frame_equal


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "data")


def minutes(count: int) -> pd.DataFrame:
    """A bar for each minute, enough of them for several groups of the file."""
    times = pd.date_range(START, periods=count, freq="min", unit="us")
    return bars_at(times.to_pydatetime().tolist())


def span(frame: pd.DataFrame) -> TimeRange:
    last = frame.index[-1].to_pydatetime() + timedelta(minutes=1)
    return TimeRange(frame.index[0].to_pydatetime(), last)


# ----------------------------------------------------------------- reading and merging


def test_bars_are_read_back_bit_for_bit(store: BarStore) -> None:
    bars = daily(0, 300)

    assert Merged(300, 0) == store.merge("IBM", "1d", bars, days(0, 300))

    assert_same(bars, store.read("IBM", "1d", None, None), check_exact=True)


def test_a_range_includes_its_start_and_excludes_its_end(store: BarStore) -> None:
    bars = daily(0, 30)
    store.merge("IBM", "1d", bars, days(0, 30))

    assert_same(bars.iloc[5:9], store.read("IBM", "1d", day(5), day(9)))
    assert_same(no_bars(), store.read("IBM", "1d", day(40), None))


def test_new_bars_join_those_there_are_and_changed_ones_replace_them(store: BarStore) -> None:
    old, new = daily(0, 10), daily(5, 20, seed=1)
    store.merge("IBM", "1d", old, days(0, 10))

    assert Merged(10, 5) == store.merge("IBM", "1d", new, days(5, 20))

    assert_same(pd.concat([old.iloc[:5], new]), store.read("IBM", "1d", None, None))
    assert (days(0, 20),) == store.info("IBM", "1d").covered


def test_the_same_bars_again_change_nothing(store: BarStore) -> None:
    store.merge("IBM", "1d", daily(0, 10), days(0, 10))

    assert Merged(0, 0) == store.merge("IBM", "1d", daily(0, 10), days(0, 10))


def test_a_series_that_was_written_outlasts_a_power_cut_with_its_name(
    tmp_path: Path, synced: list[Path]
) -> None:
    root = tmp_path / "data"
    BarStore(root).merge("IBM", "1d", daily(0, 3), days(0, 3))
    file, *folders = synced
    assert ".writing" == file.suffix
    assert [root / "1d", root] == folders


def test_coverage_without_bars_is_kept(store: BarStore) -> None:
    store.merge("IBM", "1d", no_bars(), days(0, 10))
    info = store.info("IBM", "1d")

    assert (0, None, None, (days(0, 10),)) == (info.row_count, info.first, info.last, info.covered)
    assert_same(no_bars(), store.read("IBM", "1d", None, None))
    assert [] == list(store.iter_batches("IBM", "1d"))
    assert Merged(3, 0) == store.merge("IBM", "1d", daily(2, 5), days(2, 5))


def test_nothing_is_written_if_there_is_no_news(tmp_path: Path) -> None:
    clock = FakeClock()
    store = BarStore(tmp_path, clock)
    store.merge("IBM", "1d", daily(0, 10), days(0, 10))
    written = store.info("IBM", "1d").update_time
    clock.advance(60)

    assert Merged(0, 0) == store.merge("IBM", "1d", no_bars(), days(2, 5))

    assert written == store.info("IBM", "1d").update_time


@settings(max_examples=40, deadline=None)  # each example writes files
@given(
    st.lists(
        st.tuples(st.integers(0, 39), st.integers(1, 20), st.integers(0, 99)),
        min_size=1,
        max_size=6,
    )
)
def test_merges_in_any_order_are_the_newest_bar_of_each_time(
    merges: list[tuple[int, int, int]],
) -> None:
    with TemporaryDirectory() as folder:
        _check_merges(BarStore(Path(folder)), merges)


def _check_merges(store: BarStore, merges: list[tuple[int, int, int]]) -> None:
    expected = no_bars()
    covered = []
    for first, count, seed in merges:
        new, part = daily(first, first + count, seed=seed), days(first, first + count)
        before = set(expected.index)
        merged = store.merge("X", "1d", new, part)
        covered.append(part)
        assert len(set(new.index) - before) == merged.added
        kept = expected.loc[~expected.index.isin(new.index)]
        expected = pd.concat([each for each in (kept, new) if len(each)]).sort_index()

    assert_same(expected, store.read("X", "1d", None, None))
    assert union(covered) == store.info("X", "1d").covered


def test_a_series_of_several_groups_is_merged_at_every_seam(store: BarStore) -> None:
    bars = minutes(150_000)
    changed = bars.iloc[[0, 65_535, 65_536, 131_071, 131_072, 149_999]] * 2
    store.merge("X", "1m", bars.drop(bars.index[65_530:65_540]), span(bars))

    assert Merged(10, 0) == store.merge("X", "1m", bars.iloc[65_530:65_540], span(bars))
    assert Merged(0, 6) == store.merge("X", "1m", changed, span(bars))

    expected = bars.copy()
    expected.loc[changed.index] = changed
    assert_same(expected, store.read("X", "1m", None, None))


def test_bars_come_in_batches_of_one_state_of_the_series(store: BarStore) -> None:
    bars = minutes(70_000)
    store.merge("X", "1m", bars, span(bars))
    batches = store.iter_batches("X", "1m", rows=20_000)
    parts = [next(batches)]
    store.merge("X", "1m", bars * 2, span(bars))

    parts += batches

    assert max(map(len, parts)) <= 20_000
    assert_same(bars, pd.concat(parts))


@pytest.mark.parametrize("limit", [0, 1, 15, 16, 40, 1000])
def test_a_limit_takes_the_first_bars_of_the_range(store: BarStore, limit: int) -> None:
    bars = daily(0, 40)
    store.merge("X", "1d", bars, days(0, 40))

    batches = list(store.iter_batches("X", "1d", day(3), None, limit, rows=16))

    assert bars.index[3:][:limit].tolist() == [time for batch in batches for time in batch.index]
    assert all(len(batch) for batch in batches)


def test_reading_a_range_opens_only_the_groups_it_needs(tmp_path: Path) -> None:
    store = BarStore(tmp_path)
    bars = minutes(200_000)
    store.merge("X", "1m", bars, span(bars))
    path = tmp_path / "1m" / "X.parquet"
    content = bytearray(path.read_bytes())
    content[1000:2000] = bytes(1000)  # in the first group
    path.write_bytes(content)

    late = bars.index[-10].to_pydatetime()

    assert_same(bars.iloc[-10:], store.read("X", "1m", late, None))


# ----------------------------------------------------------------- what there is


def test_what_there_is_of_a_series(tmp_path: Path) -> None:
    clock = FakeClock()
    store = BarStore(tmp_path, clock)
    store.merge("IBM", "1d", daily(0, 10), days(0, 12))
    store.merge("IBM", "1d", daily(20, 30), days(20, 31))
    info = store.info("IBM", "1d")

    assert ("IBM", "1d") == info.key
    assert (20, day(0), day(29)) == (info.row_count, info.first, info.last)
    assert (days(0, 12), days(20, 31)) == info.covered
    assert clock.now() == info.update_time


def test_a_gap_is_reported_once_its_time_has_been_loaded(store: BarStore) -> None:
    store.merge("X", "1d", daily(0, 5), days(0, 5))
    store.merge("X", "1d", daily(12, 20), days(12, 20))
    assert 0 == store.info("X", "1d").gap_count

    store.merge("X", "1d", no_bars(), days(5, 12))

    info = store.info("X", "1d")
    assert 1 == info.gap_count
    assert (day(5), day(12), GapClass.MARKET_CLOSURE) == (
        info.gaps[0].start,
        info.gaps[0].end,
        info.gaps[0].gap_class,
    )


def test_all_gaps_are_counted_and_the_oldest_kept(store: BarStore) -> None:
    """Four days of minutes; each ten minutes are missing on one of them."""
    monday = day(5)
    times = [
        monday + timedelta(minutes=minute)
        for minute in range(4 * 1440)
        if (minute // 10 + minute // 1440) % 4
    ]
    store.merge("X", "1m", bars_at(times), TimeRange(monday, day(9)))

    info = store.info("X", "1m")

    assert 100 == len(info.gaps) < info.gap_count
    assert {GapClass.UNEXPECTED} == {gap.gap_class for gap in info.gaps}
    assert sorted(gap.start for gap in info.gaps) == [gap.start for gap in info.gaps]
    assert {timedelta(minutes=10)} == {gap.end - gap.start for gap in info.gaps}


def test_series_are_listed_by_symbol_and_length(store: BarStore) -> None:
    for symbol, timeframe in [("IBM", "1d"), ("AAPL", "1w"), ("AAPL", "1d")]:
        store.merge(symbol, timeframe, daily(0, 3), days(0, 3))

    expected = [("AAPL", "1d"), ("AAPL", "1w"), ("IBM", "1d")]
    assert expected == store.series()
    assert expected == [info.key for info in store.list().series]


def test_an_empty_store_has_no_series(store: BarStore) -> None:
    assert [] == store.series()
    assert () == store.covered("IBM", "1d")


@pytest.mark.parametrize(
    "symbol", ["BRK.B", "EUR/USD", "../../x", "^GSPC", ".hidden", "..", "A B", "Ü%2F", "ES=F", "-x"]
)
def test_any_symbol_has_a_file_of_its_own_below_the_root(tmp_path: Path, symbol: str) -> None:
    store = BarStore(tmp_path / "data")
    store.merge(symbol, "1d", daily(0, 3), days(0, 3))

    assert [(symbol, "1d")] == store.series()
    assert 3 == len(store.read(symbol, "1d", None, None))
    assert ["data"] == [path.name for path in tmp_path.iterdir()]
    assert ["1d"] == [path.name for path in (tmp_path / "data").iterdir()]


@pytest.mark.parametrize("symbol", ["", "X" * 193, "/" * 65, "." + "X" * 190])
def test_a_symbol_without_a_file_is_refused_with_what_fits(store: BarStore, symbol: str) -> None:
    store.merge("X" * 192, "1d", daily(0, 3), days(0, 3))

    with pytest.raises(InvalidArgumentError, match="have at most 192 bytes"):
        store.merge(symbol, "1d", daily(0, 3), days(0, 3))


@pytest.mark.parametrize(
    ("symbol", "timeframe"),
    [("IBM", "1d"), ("", "1d"), ("X" * 300, "1d"), ("IBM", "7d"), ("IBM", "../1d")],
)
def test_a_series_that_is_not_there_says_how_to_load_it(
    store: BarStore, symbol: str, timeframe: str
) -> None:
    with pytest.raises(SeriesNotFoundError, match="ktrdr data load") as raised:
        store.read(symbol, timeframe, None, None)
    assert "SERIES_NOT_FOUND" == raised.value.reason


# ----------------------------------------------------------------- damage


def damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Ways a file can be damaged."""
    middle = len(content) // 3
    yield "empty", b""
    yield "cut short", content[: len(content) // 2]
    yield "without its end", content[:-8]
    yield "overwritten", content[:middle] + bytes(200) + content[middle + 200 :]
    yield "no Parquet", b"date,open\n" * 100


@pytest.mark.parametrize(
    "damage", ["empty", "cut short", "without its end", "overwritten", "no Parquet"]
)
def test_a_damaged_file_is_named_with_the_mend_and_never_replaced(
    tmp_path: Path, damage: str
) -> None:
    store = BarStore(tmp_path)
    bars = daily(0, 3000)
    store.merge("IBM", "1d", bars, days(0, 3000))
    path = tmp_path / "1d" / "IBM.parquet"
    content = dict(damaged(path.read_bytes()))[damage]
    path.write_bytes(content)

    with pytest.raises(SeriesUnreadableError, match="delete it and load again") as raised:
        store.read("IBM", "1d", None, None)
    assert ("SERIES_UNREADABLE", str(path)) == (raised.value.reason, raised.value.metadata["path"])
    with pytest.raises(SeriesUnreadableError):
        store.merge("IBM", "1d", daily(5, 9, seed=3), days(5, 9))
    assert content == path.read_bytes()
    assert [path.name] == [each.name for each in path.parent.iterdir() if each.name[0] != "."]


def test_a_flipped_bit_in_the_bars_is_noticed(tmp_path: Path) -> None:
    store = BarStore(tmp_path)
    store.merge("IBM", "1d", daily(0, 3000), days(0, 3000))
    path = tmp_path / "1d" / "IBM.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)

    with pytest.raises(SeriesUnreadableError):
        store.read("IBM", "1d", None, None)


def test_a_file_of_another_series_or_program_is_refused(tmp_path: Path) -> None:
    store = BarStore(tmp_path)
    store.merge("IBM", "1d", daily(0, 3), days(0, 3))
    folder = tmp_path / "1d"
    (folder / "AAPL.parquet").write_bytes((folder / "IBM.parquet").read_bytes())
    pq.write_table(pa.table({"x": [1, 2]}), folder / "MSFT.parquet")

    with pytest.raises(SeriesUnreadableError, match="it holds 1d bars of IBM"):
        store.info("AAPL", "1d")
    with pytest.raises(SeriesUnreadableError, match="not those of bars"):
        store.info("MSFT", "1d")


def test_a_folder_in_the_place_of_a_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "1d" / "IBM.parquet").mkdir(parents=True)

    with pytest.raises(SeriesUnreadableError):
        BarStore(tmp_path).info("IBM", "1d")
    assert ["1d/IBM.parquet"] == BarStore(tmp_path).list().unreadable


def test_files_that_are_named_otherwise_are_no_series(tmp_path: Path) -> None:
    BarStore(tmp_path).merge("IBM", "1d", daily(0, 3), days(0, 3))
    for name in ("100%.parquet", "a%2fb.parquet", "notes.txt", ".IBM.parquet.writing"):
        (tmp_path / "1d" / name).write_bytes(b"")

    assert [("IBM", "1d")] == BarStore(tmp_path).series()


def test_a_listing_names_what_cannot_be_read(tmp_path: Path) -> None:
    store = BarStore(tmp_path)
    for symbol in ("IBM", "EUR/USD"):
        store.merge(symbol, "1d", daily(0, 3), days(0, 3))
    (tmp_path / "1d" / "EUR%2FUSD.parquet").write_bytes(b"x")

    listing = store.list()

    assert ["IBM"] == [info.symbol for info in listing.series]
    assert ["1d/EUR%2FUSD.parquet"] == listing.unreadable


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")

    with pytest.raises(SeriesNotSavedError, match="Free space there") as raised:
        BarStore(tmp_path / "data").merge("IBM", "1d", daily(0, 3), days(0, 3))
    assert "SERIES_NOT_SAVED" == raised.value.reason


def test_a_merge_that_fails_leaves_the_series_and_no_other_file(tmp_path: Path) -> None:
    class BrokenClock(FakeClock):
        """Fails once the bars have been written, before what is said about them."""

        def now(self) -> datetime:
            raise OSError("the disk is full")

    store = BarStore(tmp_path)
    store.merge("IBM", "1d", daily(0, 10), days(0, 10))
    before = (tmp_path / "1d" / "IBM.parquet").read_bytes()

    with pytest.raises(SeriesNotSavedError, match="the disk is full"):
        BarStore(tmp_path, BrokenClock()).merge("IBM", "1d", daily(10, 20), days(10, 20))

    assert before == (tmp_path / "1d" / "IBM.parquet").read_bytes()
    assert {"IBM.parquet", ".IBM.parquet.lock"} == {f.name for f in (tmp_path / "1d").iterdir()}


# ----------------------------------------------------------------- several writers, and crashes


def test_merges_from_several_threads_all_count(store: BarStore) -> None:
    def merge(number: int) -> None:
        part = days(number * 5, number * 5 + 5)
        store.merge("X", "1d", daily(number * 5, number * 5 + 5, seed=number), part)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(merge, np.random.default_rng(1).permutation(20).tolist()))

    assert 100 == store.info("X", "1d").row_count
    assert (days(0, 100),) == store.info("X", "1d").covered


CHILD = """
import os
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
import pandas as pd
from shared.clock import SystemClock
from shared.marketdata.bars import COLUMNS, in_canonical_form
from shared.marketdata.ranges import TimeRange
from shared.marketdata.store import BarStore

class Stuck(SystemClock):
    @staticmethod
    def now():
        if Path(root, "1d", ".X.parquet.writing").exists():
            print("writing", flush=True)
            sys.stdin.read()  # until it is killed
        return SystemClock.now()

root, first, last, step, stuck = sys.argv[1:]
store = BarStore(Path(root), Stuck() if stuck else SystemClock())
for number in range(int(first), int(last), int(step)):
    start = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=number)
    times = pd.date_range(start, periods=int(step), freq="D")
    frame = in_canonical_form(pd.DataFrame(1.0, columns=list(COLUMNS), index=times))
    store.merge("X", "1d", frame, TimeRange(start, start + timedelta(days=int(step))))
    print(number + int(step), flush=True)
"""


@contextmanager
def child(
    root: Path, first: int, last: int, step: int, *, stuck: bool = False
) -> Iterator[Popen[str]]:
    """A process of its own that merges days, step by step, and says how far it is."""
    arguments = [str(root), str(first), str(last), str(step), "stuck" if stuck else ""]
    process = Popen(
        [sys.executable, "-c", CHILD, *arguments], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: Popen[str]) -> str:
    assert process.stdout is not None
    return str(process.stdout.readline()).strip()


def test_a_process_killed_while_it_writes_leaves_the_old_file_whole(tmp_path: Path) -> None:
    store = BarStore(tmp_path)
    store.merge("X", "1d", daily(0, 100), days(0, 100))
    before = (tmp_path / "1d" / "X.parquet").read_bytes()
    with child(tmp_path, 100, 200, 100, stuck=True) as process:
        assert "writing" == line_of(process)
        process.send_signal(SIGKILL)
        process.wait()

    assert (tmp_path / "1d" / ".X.parquet.writing").exists()
    assert before == (tmp_path / "1d" / "X.parquet").read_bytes()
    assert [("X", "1d")] == store.series()
    assert Merged(50, 0) == store.merge("X", "1d", daily(100, 150), days(100, 150))
    assert not (tmp_path / "1d" / ".X.parquet.writing").exists()


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 8, 13])
def test_a_process_killed_at_any_time_leaves_bars_and_coverage_that_agree(
    tmp_path: Path, lines: int
) -> None:
    with child(tmp_path, 0, 100_000, 10) as process:
        for _ in range(lines):
            told = int(line_of(process))
        process.send_signal(SIGKILL)
        process.wait()

    info = BarStore(tmp_path).info("X", "1d")

    assert info.row_count >= told
    assert (days(0, info.row_count),) == info.covered
    bars = BarStore(tmp_path).read("X", "1d", None, None)
    assert [day(number) for number in range(info.row_count)] == list(bars.index)


def test_merges_from_several_processes_all_count(tmp_path: Path) -> None:
    with child(tmp_path, 0, 100, 5) as one, child(tmp_path, 100, 200, 5) as other:
        one.wait()
        other.wait()

    assert (0, 0) == (one.returncode, other.returncode)
    assert 200 == BarStore(tmp_path).info("X", "1d").row_count
    assert (days(0, 200),) == BarStore(tmp_path).info("X", "1d").covered


def test_memory_does_not_grow_with_the_series(tmp_path: Path) -> None:
    bars = minutes(400_000)
    store = BarStore(tmp_path)
    store.merge("X", "1m", bars, span(bars))
    size = (tmp_path / "1m" / "X.parquet").stat().st_size

    tracemalloc.start()
    try:
        rows = sum(map(len, store.iter_batches("X", "1m")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(bars) == rows
    assert peak < size / 2, f"{peak} bytes to read a file of {size}"


def test_a_file_whose_name_is_not_utf_8_is_nobodys(store: BarStore) -> None:
    store.merge("IBM", "1d", daily(0, 3), span(daily(0, 3)))
    stray = os.path.join(os.fsencode(store._root / "1d"), b"caf\xe9.parquet")  # noqa: PTH118  # in bytes
    with open(stray, "wb"):  # noqa: PTH123  # as above
        pass

    assert [("IBM", "1d")] == list(store.series())
    assert ([("IBM", "1d")], []) == (
        [info.key for info in store.list().series],
        list(store.list().unreadable),
    )
