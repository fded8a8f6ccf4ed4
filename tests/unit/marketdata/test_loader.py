from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.marketdata.bars import between, no_bars
from shared.marketdata.bridge import DataLoadingProgressBridge
from shared.marketdata.loader import DataLoader, NothingLoadedError
from shared.marketdata.provider import BarProvider, Fetched, FetchWatch, SeriesFailedError
from shared.marketdata.ranges import TimeRange, subtract, union
from shared.marketdata.request import BEGINNING, LoadMode, LoadRequest
from shared.marketdata.result import DataLoadResult, LoadedSymbol
from shared.marketdata.sample import SampleBarSource
from shared.marketdata.store import BarStore
from shared.marketdata.timeframes import TIMEFRAMES
from shared.operations.cancellation import CancelSignal
from shared.operations.model import Progress
from shared.rpc.errors import OperationCancelledError, UnavailableError
from tests.support.clock import FakeClock
from tests.support.eventually import eventually
from tests.unit.marketdata.frames import ScriptedProvider, bars_at, daily, day, days, row

assert_same = pd.testing.assert_frame_equal
DAY = 86_400.0


class RecordingBridge(DataLoadingProgressBridge):
    """Remembers every state, and may do something once one is reported."""

    def __init__(self, cancel: CancelSignal) -> None:
        super().__init__(cancel=cancel)
        self.states: list[Progress] = []
        self.when: Callable[[Progress], None] = lambda _: None

    def _looked(self) -> None:
        status = self.get_status()
        assert status is not None
        self.states.append(status)
        self.when(status)

    def on_symbol_progress(
        self, symbol: str, rows_loaded: int, total_rows_estimate: int | None
    ) -> None:
        super().on_symbol_progress(symbol, rows_loaded, total_rows_estimate)
        self._looked()

    def on_note(self, message: str) -> None:
        super().on_note(message)
        self._looked()

    def on_validation(self, step: str, message: str) -> None:
        super().on_validation(step, message)
        self._looked()


class Load:
    """One load from a provider into a store; the clock stands at the 1000th day."""

    def __init__(self, store: BarStore, provider: BarProvider) -> None:
        self.store = store
        self.provider = provider
        self.cancel = CancelSignal()
        self.bridge = RecordingBridge(self.cancel)
        self.clock = FakeClock()

    def run(
        self,
        *symbols: str,
        start: datetime | None = None,
        end: datetime | None = None,
        timeframe: str = "1d",
        mode: LoadMode = LoadMode.MISSING,
    ) -> DataLoadResult:
        request = LoadRequest(symbols, timeframe, start, end, mode)
        return DataLoader(self.store, self.provider, self.bridge, self.cancel, self.clock).run(
            request
        )

    def figures(self) -> list[Mapping[str, float]]:
        """The figures of each symbol that is done."""
        metrics, _ = self.bridge.get_metrics()
        return [metric.values for metric in metrics]  # noqa: PD011  # a metric is no frame


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "data")


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider({"AAA": daily(0, 100), "BBB": daily(30, 60, seed=1)})


# ----------------------------------------------------------------- what is loaded


def test_real_prices_are_loaded_bit_for_bit(store: BarStore) -> None:
    sample = SampleBarSource()
    load = Load(store, sample)

    result = load.run("IBM", "GOOG")

    assert (5418, 2, (), "1d") == (
        result.total_rows_loaded,
        result.symbols_loaded,
        result.symbols_failed,
        result.timeframe,
    )
    assert (LoadedSymbol("IBM", 3270, 0, 0, 3270), LoadedSymbol("GOOG", 2148, 0, 0, 2148)) == (
        result.symbols
    )
    for symbol in ("IBM", "GOOG"):
        expected = sample.read(symbol, "1d", None, None)
        assert_same(expected, store.read(symbol, "1d", None, None), check_exact=True)


def test_only_the_range_asked_for_is_loaded(store: BarStore, provider: ScriptedProvider) -> None:
    result = Load(store, provider).run("AAA", start=day(20), end=day(50))

    assert [("AAA", days(20, 50))] == provider.fetches
    assert 30 == result.total_rows_loaded
    assert_same(daily(0, 100).iloc[20:50], store.read("AAA", "1d", None, None))
    assert (days(20, 50),) == store.info("AAA", "1d").covered


def test_a_repeated_load_fetches_nothing(store: BarStore, provider: ScriptedProvider) -> None:
    Load(store, provider).run("AAA", "BBB", end=day(100))
    provider.fetches.clear()
    provider.series.clear()  # not even when the bars begin is asked for

    result = Load(store, provider).run("AAA", "BBB", end=day(100))

    assert ([], 0, 2) == (provider.fetches, result.total_rows_loaded, result.symbols_loaded)
    assert [100, 30] == [symbol.row_count for symbol in result.symbols]


def test_a_wider_load_fetches_what_is_missing(store: BarStore, provider: ScriptedProvider) -> None:
    Load(store, provider).run("AAA", start=day(20), end=day(30))
    Load(store, provider).run("AAA", start=day(40), end=day(50))
    provider.fetches.clear()

    result = Load(store, provider).run("AAA", start=day(10), end=day(60))

    assert [days(10, 20), days(30, 40), days(50, 60)] == [part for _, part in provider.fetches]
    assert (30, 50) == (result.total_rows_loaded, result.symbols[0].row_count)
    assert_same(daily(0, 100).iloc[10:60], store.read("AAA", "1d", None, None))


def test_a_full_load_fetches_again_and_replaces_what_has_changed(
    store: BarStore, provider: ScriptedProvider
) -> None:
    Load(store, provider).run("AAA", start=day(0), end=day(100))
    provider.series["AAA"] = daily(0, 100, seed=9)

    assert 0 == Load(store, provider).run("AAA", start=day(0), end=day(50)).total_rows_loaded
    result = Load(store, provider).run("AAA", start=day(0), end=day(50), mode=LoadMode.FULL)

    assert (50, 100) == (result.total_rows_loaded, result.symbols[0].row_count)
    expected = pd.concat([daily(0, 100, seed=9).iloc[:50], daily(0, 100).iloc[50:]])
    assert_same(expected, store.read("AAA", "1d", None, None))


@settings(max_examples=40, deadline=None)  # each example writes files
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 60)), min_size=1, max_size=6))
def test_whatever_is_loaded_no_time_is_fetched_twice_and_no_bar_is_lost(
    requests: list[tuple[int, int]],
) -> None:
    with TemporaryDirectory() as folder:
        _check_loads(BarStore(Path(folder)), requests)


def _check_loads(store: BarStore, requests: list[tuple[int, int]]) -> None:
    provider = ScriptedProvider({"AAA": daily(0, 200)}, piece=timedelta(days=7))
    wanted = []
    for first, count in requests:
        Load(store, provider).run("AAA", start=day(first), end=day(first + count))
        wanted.append(days(first, first + count))

    fetched = [part for _, part in provider.fetches]
    assert union(wanted) == union(fetched) == store.info("AAA", "1d").covered
    assert sum((part.end - part.start for part in fetched), timedelta()) == sum(
        (part.end - part.start for part in union(wanted)), timedelta()
    )
    parts = [between(daily(0, 200), part.start, part.end) for part in union(wanted)]
    assert_same(pd.concat(parts), store.read("AAA", "1d", None, None))


# ----------------------------------------------------------------- where bars begin and end


def test_without_a_start_a_load_begins_with_the_first_bar(
    store: BarStore, provider: ScriptedProvider
) -> None:
    Load(store, provider).run("BBB", end=day(50))

    assert [("BBB", days(30, 50))] == provider.fetches
    assert (TimeRange(BEGINNING, day(50)),) == store.info("BBB", "1d").covered


def test_the_time_before_the_first_bar_is_not_asked_for(
    store: BarStore, provider: ScriptedProvider
) -> None:
    Load(store, provider).run("BBB", start=day(0), end=day(40))
    Load(store, provider).run("BBB", start=day(-20), end=day(10))

    assert [("BBB", days(30, 40))] == provider.fetches
    assert (days(-20, 40),) == store.info("BBB", "1d").covered


def test_a_provider_that_does_not_know_the_begin_is_given_a_start(store: BarStore) -> None:
    provider = ScriptedProvider({"AAA": daily(0, 100)}, knows_begin=False)

    with pytest.raises(NothingLoadedError, match="Name a start") as raised:
        Load(store, provider).run("AAA", end=day(50))
    assert {"AAA": "BEGINNING_UNKNOWN"} == raised.value.metadata
    assert 50 == Load(store, provider).run("AAA", start=day(0), end=day(50)).total_rows_loaded


def test_bars_that_have_not_ended_are_left_for_later(store: BarStore) -> None:
    """It is 00:16 on the first day of 2026."""
    today = datetime(2026, 1, 1, tzinfo=UTC)
    times = [today - timedelta(days=number) for number in range(5, -1, -1)]
    provider = ScriptedProvider({"AAA": bars_at(times)})

    Load(store, provider).run("AAA", start=times[0])
    Load(store, provider).run("AAA", start=times[0], end=today + timedelta(days=9))

    assert times[:-1] == list(store.read("AAA", "1d", None, None).index)
    assert (TimeRange(times[0], today),) == store.info("AAA", "1d").covered
    assert 1 == len(provider.fetches)


def test_what_a_clock_that_ran_ahead_took_for_past_is_loaded_when_it_is(tmp_path: Path) -> None:
    """A load took it to be nine days later; of today there was half a bar."""
    clock = FakeClock()
    today = datetime(2026, 1, 1, tzinfo=UTC)
    times = [today + timedelta(days=number) for number in range(-5, 9)]
    whole = bars_at(times)
    half = whole.iloc[:6].copy()
    half.iloc[5] = row()
    provider = ScriptedProvider({"AAA": half})
    load = Load(BarStore(tmp_path / "data", clock), provider)
    load.clock = clock

    clock.advance(9 * DAY)
    load.run("AAA")
    clock.advance(-9 * DAY)
    provider.fetches.clear()
    load.run("AAA")
    provider.series["AAA"] = whole
    for _ in range(3):
        clock.advance(2 * DAY)
        load.run("AAA")
        load.run("AAA")

    asked = [(part.start, part.end) for _, part in provider.fetches]
    assert [(times[number], times[number + 2]) for number in (5, 7, 9)] == asked
    assert_same(whole.iloc[:11], load.store.read("AAA", "1d", None, None))
    assert (TimeRange(BEGINNING, times[11]),) == load.store.info("AAA", "1d").covered


@pytest.mark.parametrize("bars", [0, 3])
def test_without_bars_of_its_time_nothing_of_such_a_load_counts(tmp_path: Path, bars: int) -> None:
    clock = FakeClock()
    store = BarStore(tmp_path / "data", clock)
    today = datetime(2026, 1, 1, tzinfo=UTC)
    store.merge("AAA", "1d", daily(0, bars), days(0, 3))
    store.merge("AAA", "1d", no_bars(), TimeRange(day(100), today + timedelta(days=1)))

    assert (days(0, 3),) == store.covered("AAA", "1d")
    clock.advance(DAY)
    assert (days(0, 3), TimeRange(day(100), today + timedelta(days=1))) == (
        store.covered("AAA", "1d")
    )


def test_a_load_of_the_future_has_nothing_to_fetch(
    store: BarStore, provider: ScriptedProvider
) -> None:
    result = Load(store, provider).run("AAA", start=datetime(2027, 1, 1, tzinfo=UTC))

    assert ([], 1, 0) == (provider.fetches, result.symbols_loaded, result.symbols[0].row_count)


# ----------------------------------------------------------------- what goes wrong


def test_a_bad_symbol_does_not_lose_the_others(store: BarStore, provider: ScriptedProvider) -> None:
    load = Load(store, provider)

    result = load.run("AAA", "XYZ", "BBB", start=day(0), end=day(60))

    assert (2, 90) == (result.symbols_loaded, result.total_rows_loaded)
    (failed,) = result.symbols_failed
    assert ("XYZ", "XYZ is not had here.", "NO_SUCH_SERIES") == (
        failed.symbol,
        failed.error,
        failed.reason,
    )
    assert ["AAA", "XYZ", "BBB"] == [symbol.symbol for symbol in result.symbols]
    assert [("AAA", "1d"), ("BBB", "1d")] == store.series()
    assert ["", "NO_SUCH_SERIES", ""] == [
        metric.labels.get("reason", "") for metric in load.bridge.get_metrics()[0]
    ]
    status = load.bridge.get_status()
    assert status is not None
    assert "Loaded 90 bars of 2 symbols; 1 could not be loaded" == status.message


def test_what_was_fetched_of_a_failed_symbol_is_kept(
    store: BarStore, provider: ScriptedProvider
) -> None:
    provider.failing["AAA"] = SeriesFailedError("No permission.", reason="NO_PERMISSION")

    result = Load(store, provider).run("AAA", "BBB", start=day(0), end=day(60))

    assert LoadedSymbol("AAA", 10, 0, 0, 10) == result.symbols[0]
    assert (days(0, 10),) == store.info("AAA", "1d").covered


def test_a_load_of_nothing_but_bad_symbols_fails(
    store: BarStore, provider: ScriptedProvider
) -> None:
    with pytest.raises(
        NothingLoadedError, match=r"No symbol could be loaded\. XYZ: XYZ is"
    ) as raised:
        Load(store, provider).run("XYZ", "UVW", start=day(0), end=day(60))
    assert "NOTHING_LOADED" == raised.value.reason
    assert {"XYZ": "NO_SUCH_SERIES", "UVW": "NO_SUCH_SERIES"} == raised.value.metadata


def test_a_damaged_series_fails_alone(store: BarStore, provider: ScriptedProvider) -> None:
    Load(store, provider).run("AAA", start=day(0), end=day(10))
    (path,) = (path for path in store._root.rglob("AAA.parquet"))
    path.write_bytes(b"damaged")

    result = Load(store, provider).run("AAA", "BBB", start=day(0), end=day(60))

    assert ["SERIES_UNREADABLE"] == [failed.reason for failed in result.symbols_failed]
    assert 30 == result.total_rows_loaded
    assert b"damaged" == path.read_bytes()


def test_a_provider_that_is_away_ends_the_load_and_the_next_one_goes_on_from_there(
    store: BarStore, provider: ScriptedProvider
) -> None:
    provider.failing["AAA"] = UnavailableError("The gateway does not answer.")
    with pytest.raises(UnavailableError):
        Load(store, provider).run("AAA", "BBB", start=day(0), end=day(60))
    provider.failing.clear()
    provider.fetches.clear()

    Load(store, provider).run("AAA", "BBB", start=day(0), end=day(60))

    assert [("AAA", days(10, 60)), ("BBB", days(30, 60))] == provider.fetches
    assert_same(daily(0, 100).iloc[:60], store.read("AAA", "1d", None, None))


class FlakyProvider(ScriptedProvider):
    """Is away after each of these numbers of pieces."""

    def __init__(self, bars: pd.DataFrame, piece: timedelta, faults: Iterable[int]) -> None:
        super().__init__({"AAA": bars}, piece=piece)
        self.faults = set(faults)
        self.pieces: list[TimeRange] = []

    def fetch(
        self, symbol: str, timeframe: str, wanted: TimeRange, watch: FetchWatch
    ) -> Iterator[Fetched]:
        for piece in super().fetch(symbol, timeframe, wanted, watch):
            if len(self.pieces) in self.faults:
                self.faults.remove(len(self.pieces))
                raise UnavailableError("The gateway does not answer.")
            self.pieces.append(piece.covered)
            yield piece


@pytest.mark.parametrize("timeframe", ["5m", "1h", "1d"])
@settings(max_examples=10, deadline=None)  # each example writes files
@given(faults=st.sets(st.integers(0, 20)))
def test_wherever_a_load_breaks_off_the_bars_are_those_of_the_provider(
    timeframe: str, faults: set[int]
) -> None:
    length = TIMEFRAMES[timeframe]
    bars = bars_at([day(0) + number * length for number in range(200)])
    provider = FlakyProvider(bars, 11 * length, faults)
    end = day(0) + 200 * length
    with TemporaryDirectory() as folder:
        store = BarStore(Path(folder))
        for _ in range(len(faults)):
            with suppress(UnavailableError):
                Load(store, provider).run("AAA", timeframe=timeframe, start=day(0), end=end)
        Load(store, provider).run("AAA", timeframe=timeframe, start=day(0), end=end)

        assert_same(bars, store.read("AAA", timeframe, None, None), check_exact=True)
    pieces = provider.pieces
    assert (TimeRange(day(0), end),) == union(pieces)
    assert end - day(0) == sum((piece.end - piece.start for piece in pieces), timedelta())


class FaultyProvider(ScriptedProvider):
    """Gives wrong bars among the good ones."""

    def fetch(
        self, symbol: str, timeframe: str, wanted: TimeRange, watch: FetchWatch
    ) -> Iterator[Fetched]:
        for piece in super().fetch(symbol, timeframe, wanted, watch):
            frame = piece.frame.copy()
            frame.iloc[2, 4] = -1.0
            frame.iloc[4, 1] = float("nan")
            yield Fetched(frame.iloc[::-1], piece.covered)


def test_rejected_bars_are_counted_and_said(store: BarStore) -> None:
    load = Load(store, FaultyProvider({"AAA": daily(0, 20)}))

    result = load.run("AAA", start=day(0), end=day(20))

    assert (16, 4) == (result.symbols[0].rows_loaded, result.symbols[0].rows_rejected)
    (figures,) = load.figures()
    assert (4.0, 16.0) == (figures["rejected"], figures["rows_loaded"])
    said = [state.message for state in load.bridge.states if state.phase == "validation"]
    assert any("AAA: 1 row left out, as volume is negative (2020-01-03" in text for text in said)
    assert any("out of order, and sorted" in text for text in said)
    missing = subtract(days(0, 20), store.info("AAA", "1d").covered)
    assert () == missing


def test_gaps_are_counted(store: BarStore) -> None:
    bars = daily(0, 60)
    load = Load(store, ScriptedProvider({"AAA": bars.drop(bars.index[20:30])}))

    result = load.run("AAA", start=day(0), end=day(60))

    assert 1 == result.symbols[0].gap_count
    assert [1.0] == [figures["gaps"] for figures in load.figures()]


def test_a_symbol_without_bars_in_the_range_is_loaded(store: BarStore) -> None:
    provider = ScriptedProvider({"AAA": no_bars()}, knows_begin=False)
    provider.begins = lambda *_: None  # type: ignore[method-assign]  # it has no first bar

    result = Load(store, provider).run("AAA", start=day(0), end=day(60))

    assert (1, 0) == (result.symbols_loaded, result.total_rows_loaded)
    assert (days(0, 60),) == store.info("AAA", "1d").covered


# ----------------------------------------------------------------- progress


def test_progress_names_the_symbol_and_counts_rows(
    store: BarStore, provider: ScriptedProvider
) -> None:
    load = Load(store, provider)
    load.run("AAA", "BBB", start=day(0), end=day(60))

    seen = [
        (state.message, round(state.percentage or 0.0), state.items_processed)
        for state in load.bridge.states
    ]

    assert ("Loading AAA (1/2)", 25, 30) in seen
    assert ("Loading BBB (2/2)", 67, 70) in seen
    assert seen == sorted(seen, key=lambda state: state[1:])
    status = load.bridge.get_status()
    assert status is not None
    assert (100.0, "completed", 90) == (status.percentage, status.phase, status.items_processed)


def test_a_providers_estimate_counts(store: BarStore, provider: ScriptedProvider) -> None:
    provider.estimates["AAA"] = 200
    load = Load(store, provider)
    load.run("AAA", start=day(0), end=day(60))

    assert {5.0, 30.0} <= {state.percentage for state in load.bridge.states}


def test_of_several_fetches_the_time_tells_how_far_it_is(
    store: BarStore, provider: ScriptedProvider
) -> None:
    Load(store, provider).run("AAA", start=day(20), end=day(40))
    provider.estimates["AAA"] = 20
    load = Load(store, provider)
    load.run("AAA", start=day(0), end=day(60))

    assert [25.0, 50.0, 75.0, 100.0] == [
        state.percentage for state in load.bridge.states if state.items_processed
    ]


def test_notes_of_a_fetch_are_seen(store: BarStore, provider: ScriptedProvider) -> None:
    provider.notes["AAA"] = "waiting 12 s for IB pacing"
    load = Load(store, provider)
    load.run("AAA", start=day(0), end=day(60))

    assert "Loading AAA (1/1): waiting 12 s for IB pacing" in {
        state.message for state in load.bridge.states
    }


def test_fifty_symbols_are_fifty_metrics(store: BarStore) -> None:
    names = [f"S{number:02}" for number in range(50)]
    provider = ScriptedProvider({name: daily(0, 20) for name in names}, piece=timedelta(days=30))
    load = Load(store, provider)

    result = load.run(*names, start=day(0), end=day(20))
    metrics, _ = load.bridge.get_metrics()

    assert (50, 1000) == (result.symbols_loaded, result.total_rows_loaded)
    assert names == [metric.labels["symbol"] for metric in metrics]
    assert list(range(1, 51)) == [metric.step for metric in metrics]
    last = load.figures()[-1]
    assert (1000.0, 50.0) == (last["total_rows_loaded"], last["symbols_completed"])


# ----------------------------------------------------------------- cancellation


def test_a_cancelled_load_stops_after_the_piece_at_hand_and_keeps_it(
    store: BarStore, provider: ScriptedProvider
) -> None:
    load = Load(store, provider)

    def cancel(status: Progress) -> None:
        if status.items_processed == 20:
            load.cancel.request("not needed any more")

    load.bridge.when = cancel
    with pytest.raises(OperationCancelledError, match="not needed any more"):
        load.run("AAA", "BBB", start=day(0), end=day(60))

    assert (days(0, 30),) == store.info("AAA", "1d").covered
    assert () == store.covered("BBB", "1d")
    status = load.bridge.get_status()
    assert status is not None
    assert ("cancelled", 30) == (status.phase, status.items_processed)


def test_a_load_cancelled_as_it_says_what_validation_found_keeps_what_was_fetched(
    store: BarStore,
) -> None:
    load = Load(store, FaultyProvider({"AAA": daily(0, 20)}))

    def cancel(status: Progress) -> None:
        if status.phase == "validation":
            load.cancel.request("not needed any more")

    load.bridge.when = cancel
    with pytest.raises(OperationCancelledError, match="not needed any more"):
        load.run("AAA", start=day(0), end=day(20))

    assert (days(0, 10),) == store.info("AAA", "1d").covered
    assert 8 == store.info("AAA", "1d").row_count


@pytest.mark.parametrize("waits", ["waits", "head_waits"])
def test_a_wait_ends_at_once_if_the_load_is_cancelled(
    store: BarStore, provider: ScriptedProvider, waits: str
) -> None:
    provider.notes["AAA"] = "waiting 100 s for IB pacing"
    getattr(provider, waits)["AAA"] = 100.0
    load = Load(store, provider)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            load.run("AAA", start=day(0), end=day(60))
        except OperationCancelledError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: bool(load.bridge.states))
    load.cancel.request("enough")
    thread.join(20)

    assert not thread.is_alive()
    assert ["enough"] == [str(error) for error in raised]


def test_a_wait_that_is_over_goes_on(store: BarStore, provider: ScriptedProvider) -> None:
    provider.waits["AAA"] = 0.12

    assert 60 == Load(store, provider).run("AAA", start=day(0), end=day(60)).total_rows_loaded
