"""The provider against the simulator, by way of the real gateway, over a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ib_host.gateway.connection import GatewayAddress
from ib_host.gateway.gateway import Gateway, IbBars
from ib_host.ib_errors import IbConnectionError, IbError, IbUnreachableError
from ib_host.pacing import UNLIMITED, Pacing
from ib_host.provider import IbProvider, Patience
from ib_host.simulator.faults import (
    FAILURES,
    Cut,
    Drop,
    Effect,
    Fail,
    FarmDown,
    Fault,
    Hang,
    LinkLost,
    Moment,
)
from ib_host.simulator.pacing import UNPACED, PacingRules
from ib_host.simulator.server import TwsSimulator
from ib_host.simulator.source import FrameHistory
from shared.marketdata.bars import COLUMNS, between
from shared.marketdata.provider import BarProvider, Fetched, SeriesFailedError
from shared.marketdata.ranges import TimeRange
from shared.marketdata.sample import SampleBarSource
from shared.rpc.errors import OperationCancelledError, UnavailableError
from tests.support.clock import FakeClock
from tests.support.eventually import eventually
from tests.unit.ib_host.watching import Watch

HURRIED = Patience(outage=30.0, scale=0.01)


def day(year: int, month: int = 1, number: int = 1) -> datetime:
    return datetime(year, month, number, tzinfo=UTC)


EVER = TimeRange(day(1999), day(2014))


def made(first: datetime, count: int, freq: str) -> pd.DataFrame:
    """Bars whose prices need all their digits, with a gap of weeks."""
    random = np.random.default_rng(7)
    index = pd.date_range(first, periods=count, freq=freq, name="time")
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, count)))
    columns = {"open": close / 1.001, "high": close * 1.01, "low": close / 1.01, "close": close}
    frame = pd.DataFrame({**columns, "volume": random.integers(1, 1 << 50, count) / 8}, index=index)
    return frame.drop(frame.index[count // 3 : count // 2])


SOURCES = {
    "5m": made(day(2025, 3, 5), 5000, "5min"),  # over a change of clocks
    "1h": made(day(2024, 8, 5), 4000, "1h"),
    "4h": made(day(2023, 8, 5), 3000, "4h"),
    "1d": made(day(2020, 8, 5), 1200, "1D"),
}
MADE = FrameHistory({("XYZ", timeframe): frame for timeframe, frame in SOURCES.items()})


@contextmanager
def providing(
    simulator: TwsSimulator,
    *,
    pacing: Pacing | None = None,
    patience: Patience = HURRIED,
    answer_timeout: float = 30.0,
    regular_hours: bool = True,
) -> Iterator[IbProvider]:
    """A provider with a gateway of its own."""
    address = GatewayAddress("127.0.0.1", simulator.port, answer_timeout=answer_timeout)
    gateway = Gateway(address)
    try:
        yield IbProvider(
            gateway,
            pacing or Pacing(UNLIMITED),
            patience=patience,
            regular_hours=regular_hours,
        )
    finally:
        gateway.stop()


@pytest.fixture
def simulator() -> Iterator[TwsSimulator]:
    with TwsSimulator(rules=UNPACED) as simulator:
        yield simulator


@pytest.fixture
def provider(simulator: TwsSimulator) -> Iterator[IbProvider]:
    with providing(simulator) as provider:
        yield provider


def fetched(
    provider: BarProvider,
    symbol: str = "IBM",
    timeframe: str = "1d",
    wanted: TimeRange = EVER,
    watch: Watch | None = None,
) -> pd.DataFrame:
    """Fetch a range; check that its pieces cover it without a seam."""
    pieces: list[Fetched] = list(
        provider.fetch(symbol, timeframe, wanted, watch or Watch(really=True))
    )
    assert (wanted.start, wanted.end) == (pieces[0].covered.start, pieces[-1].covered.end)
    assert all(one.covered.end == other.covered.start for one, other in pairwise(pieces))
    return pd.concat([piece.frame for piece in pieces])


def same(expected: pd.DataFrame, actual: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        expected, actual, check_exact=True, check_freq=False, check_index_type=False
    )


def asked(simulator: TwsSimulator, moment: Moment) -> int:
    return sum(each.at is moment for each in simulator.requests)


# --------------------------------------------------------------------------- bars


@pytest.mark.parametrize("timeframe", ["1d", "1w"])
@pytest.mark.parametrize("symbol", ["IBM", "GOOG"])
def test_bars_are_those_of_the_source_bit_for_bit(
    provider: IbProvider, symbol: str, timeframe: str
) -> None:
    expected = SampleBarSource().read(symbol, timeframe, None, None)
    same(expected, fetched(provider, symbol, timeframe))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 5000), st.integers(1, 700))
def test_any_range_brings_the_bars_that_start_in_it(
    provider: IbProvider, first: int, length: int
) -> None:
    start = day(2000) + timedelta(days=first, hours=first % 24)
    wanted = TimeRange(start, start + timedelta(days=length, hours=length % 24))
    for timeframe in ("1d", "1w"):
        expected = SampleBarSource().read("IBM", timeframe, wanted.start, wanted.end)
        same(expected, fetched(provider, "IBM", timeframe, wanted))


@pytest.mark.parametrize("timeframe", SOURCES)
def test_intraday_bars_are_those_of_the_source_bit_for_bit(timeframe: str) -> None:
    source = SOURCES[timeframe]
    wanted = TimeRange(
        source.index[0].to_pydatetime() - timedelta(days=3),
        source.index[-1].to_pydatetime() - timedelta(days=1),
    )
    with (
        TwsSimulator(MADE, rules=UNPACED) as simulator,
        providing(simulator, regular_hours=False) as provider,
    ):
        bars = fetched(provider, "XYZ", timeframe, wanted)

    same(between(source, wanted.start, wanted.end), bars)


def test_only_regular_hours_are_asked_for_unless_said_otherwise(simulator: TwsSimulator) -> None:
    for regular in (True, False):
        with providing(simulator, regular_hours=regular) as provider:
            fetched(provider)
        data = {Moment.HEAD, Moment.BARS}
        assert {regular} == {
            each.regular_hours for each in simulator.requests[-5:] if each.at in data
        }


def test_currencies_are_midpoints_without_volume() -> None:
    source = FrameHistory({("EURUSD", "1d"): made(day(2020, 1, 6), 300, "1B")})
    with TwsSimulator(source, rules=UNPACED) as simulator, providing(simulator) as provider:
        bars = fetched(provider, "EURUSD", "1d", TimeRange(day(2019), day(2022)))

    assert {0.0} == set(bars["volume"])
    same(source.frame("EURUSD", "1d").drop(columns="volume"), bars.drop(columns="volume"))


def test_frames_are_in_canonical_form(provider: IbProvider) -> None:
    bars = fetched(provider)
    assert ([*COLUMNS], "time", "UTC") == (
        [*bars.columns],
        bars.index.name,
        str(pd.DatetimeIndex(bars.index).tz),
    )


def test_a_window_without_bars_is_covered_and_holds_none(provider: IbProvider) -> None:
    assert fetched(provider, wanted=TimeRange(day(2013, 4), day(2013, 6))).empty


# --------------------------------------------------------- where the bars begin


@pytest.mark.parametrize(
    ("timeframe", "expected"), [("1d", day(2000, 3, 1)), ("1w", day(2000, 2, 28))]
)
def test_the_head_timestamp_says_where_bars_begin(
    provider: IbProvider, timeframe: str, expected: datetime
) -> None:
    assert expected == provider.begins("IBM", timeframe)


def test_nothing_is_asked_for_before_the_head_timestamp(
    provider: IbProvider, simulator: TwsSimulator
) -> None:
    assert fetched(provider, wanted=TimeRange(day(1900), day(2000))).empty
    assert 0 == asked(simulator, Moment.BARS)
    fetched(provider, wanted=TimeRange(day(1900), day(2000, 4)))
    assert 1 == asked(simulator, Moment.BARS)


def test_contract_and_head_timestamp_are_asked_for_once(
    provider: IbProvider, simulator: TwsSimulator
) -> None:
    for timeframe in ("1d", "1w", "1d"):
        provider.begins("IBM", timeframe)
        fetched(provider, timeframe=timeframe)

    assert (1, 1) == (asked(simulator, Moment.DETAILS), asked(simulator, Moment.HEAD))


def test_without_a_head_timestamp_it_is_not_known_where_bars_begin(
    provider: IbProvider, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Fail(FAILURES["no-head"]), Moment.HEAD, times=0))

    assert provider.begins("IBM", "1d") is None
    wanted = TimeRange(day(2012), day(2013))
    same(
        SampleBarSource().read("IBM", "1d", wanted.start, wanted.end),
        fetched(provider, wanted=wanted),
    )
    assert provider.begins("IBM", "1w") is None
    assert 1 == asked(simulator, Moment.HEAD)


# ------------------------------------------------------------------------- faults

PASSING: Sequence[Effect] = (
    Drop(),
    Cut(),
    Hang(),
    LinkLost(1101, 0.02),
    LinkLost(1102, 0.02),
    FarmDown(0.02),
    *(
        Fail(FAILURES[name])
        for name in ("pacing", "timed-out", "query-cancelled", "hmds-down", "hmds-connecting")
    ),
    *(Fail(FAILURES[name]) for name in ("different-ip", "odd-162", "100", "322", "326", "366")),
    *(Fail(FAILURES[name]) for name in ("420", "10197")),
)


@settings(max_examples=40, deadline=None)
@given(
    timeframe=st.sampled_from(["1d", "1h", "5m"]),
    skip=st.integers(0, 8),
    effect=st.sampled_from(PASSING),
    times=st.integers(1, 2),
)
def test_a_fault_at_any_request_loses_no_bar_and_asks_for_none_twice(
    timeframe: str, skip: int, effect: Effect, times: int
) -> None:
    source = SOURCES[timeframe]
    wanted = TimeRange(source.index[0].to_pydatetime(), source.index[-1].to_pydatetime())
    hurried = Patience(outage=30.0, scale=0.0002)
    hangs = isinstance(effect, Hang)
    with (
        TwsSimulator(MADE, rules=UNPACED) as simulator,
        providing(
            simulator, regular_hours=False, answer_timeout=1.0 if hangs else 30.0, patience=hurried
        ) as provider,
    ):
        simulator.faults.add(Fault(effect, skip=skip, times=times))
        bars = fetched(provider, "XYZ", timeframe, wanted)
        answered = [
            each.end
            for each in simulator.requests
            if each.at is Moment.BARS and each.effect is None
        ]

    same(between(source, wanted.start, wanted.end), bars)
    # Those that came while the link or the farm was down are asked again. So is what is slow.
    if not isinstance(effect, LinkLost | FarmDown | Hang):
        assert len(answered) == len(set(answered))


@pytest.mark.parametrize(
    ("name", "reason", "told"),
    [
        ("200", "IB_NO_SUCH_CONTRACT", "IB knows no such contract"),
        ("354", "IB_NOT_PERMITTED", "Subscribe to them"),
        ("no-permission", "IB_NOT_PERMITTED", "Subscribe to them"),
        ("10299", "IB_REQUEST_REFUSED", "does not serve"),
    ],
)
def test_what_asking_again_does_not_help_fails_the_series_at_once(
    name: str, reason: str, told: str, provider: IbProvider, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Fail(FAILURES[name]), Moment.BARS))

    with pytest.raises(SeriesFailedError, match=told) as raised:
        fetched(provider)

    assert reason == raised.value.reason
    assert "IBM 1d from 2000-03-01" in raised.value.message
    assert 1 == asked(simulator, Moment.BARS)


def test_a_symbol_ib_does_not_know_fails_alone(provider: IbProvider) -> None:
    with pytest.raises(SeriesFailedError, match="IB knows no such contract"):
        provider.begins("XYZ", "1d")
    assert provider.begins("IBM", "1d") is not None


def test_an_error_nobody_knows_is_asked_again_a_few_times_only(
    provider: IbProvider, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Fail(FAILURES["odd-162"]), Moment.BARS, times=0))
    watch = Watch()

    with pytest.raises(SeriesFailedError, match="A text that nobody has seen before") as raised:
        fetched(provider, watch=watch)

    assert "IB_ERROR" == raised.value.reason
    assert 4 == asked(simulator, Moment.BARS)
    assert "A text that nobody has seen before (asked for IBM 1d from" in watch.notes[0]


def test_a_request_that_is_never_answered_fails_the_series(simulator: TwsSimulator) -> None:
    simulator.faults.add(Fault(Hang(), Moment.BARS, times=0))
    with (
        providing(simulator, answer_timeout=0.1) as provider,
        pytest.raises(SeriesFailedError, match=r"no answer within 0\.1 s") as raised,
    ):
        fetched(provider, watch=Watch())

    assert "IB_TIMED_OUT" == raised.value.reason


def test_a_pacing_violation_that_lasts_concerns_all_series(
    provider: IbProvider, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Fail(FAILURES["pacing"]), Moment.BARS, times=0))

    with pytest.raises(UnavailableError, match="limits on asking are reached") as raised:
        fetched(provider, watch=Watch())

    assert "IB_PACING" == raised.value.reason


def test_an_outage_is_waited_for_visibly_and_not_for_ever(simulator: TwsSimulator) -> None:
    simulator.stop()
    watch = Watch(really=True)
    with (
        providing(simulator, patience=Patience(outage=0.5, scale=0.1)) as provider,
        pytest.raises(UnavailableError, match="Start the IB gateway") as raised,
    ):
        fetched(provider, watch=watch)

    assert "IB_UNAVAILABLE" == raised.value.reason
    assert "does not accept connections (asked for the contract of IBM)" in watch.notes[0]
    simulator.start()


def test_a_gateway_that_comes_back_is_asked_where_it_was_lost(simulator: TwsSimulator) -> None:
    watch = Watch(really=True)
    watch.on_wait = lambda _: simulator.start()
    with providing(simulator) as provider:
        pieces = provider.fetch("IBM", "1d", EVER, watch)
        frames = [next(pieces).frame for _ in range(4)]
        simulator.stop()
        frames += [piece.frame for piece in pieces]

    same(SampleBarSource().read("IBM", "1d", None, None), pd.concat(frames))
    ends = [each.end for each in simulator.requests if each.at is Moment.BARS]
    assert len(ends) == len(set(ends))


# -------------------------------------------------------------- pacing and cancelling


def test_waits_for_ibs_pacing_are_visible_and_keep_it_content() -> None:
    clock = FakeClock()
    watch = Watch()
    with (
        TwsSimulator(rules=PacingRules(message_limit=None), clock=clock) as simulator,
        providing(simulator, pacing=Pacing(clock=clock)) as provider,
    ):
        watch.on_wait = clock.advance
        simulator.faults.add(Fault(Drop(), Moment.HEAD))

        assert provider.begins("IBM", "1d", watch) is not None

        assert 2 == asked(simulator, Moment.HEAD)
    assert "waiting 14 s for IB pacing" in watch.notes
    assert ["waiting 1 s for IB pacing", "asking IB"] == watch.notes[-3:-1]
    assert "asking IB for the first bar of IBM again" == watch.notes[-1]


def test_a_request_that_could_not_be_sent_does_not_wait_for_ibs_pacing() -> None:
    clock, watch = FakeClock(), Watch()
    watch.on_wait = clock.advance
    gateway = ScriptedGateway()
    answers: list[Exception] = [
        IbUnreachableError("it is not up"),
        IbConnectionError("it was lost"),
    ]

    def head(*_: Any, **__: Any) -> datetime:
        if answers:
            raise answers.pop(0)
        return day(2000)

    gateway.head = head  # type: ignore[method-assign]
    provider = IbProvider(gateway, Pacing(clock=clock), clock=clock)

    assert day(2000) == provider.begins("IBM", "1d", watch)

    asked = [note for note in watch.notes if "waiting" in note or "again" in note]
    assert "waiting 1 s: it is not up (asked for the first bar of IBM)" == asked[0]
    assert "asking IB for the first bar of IBM again" == asked[1]
    assert any("for IB pacing" in note for note in asked[2:])


def test_a_load_that_waits_for_its_turn_can_be_cancelled(simulator: TwsSimulator) -> None:
    watch = Watch(really=True)
    with providing(simulator, pacing=Pacing()) as provider, ThreadPoolExecutor() as pool:
        simulator.faults.add(Fault(Drop(), Moment.HEAD))
        load = pool.submit(provider.begins, "IBM", "1d", watch)
        eventually(lambda: any("for IB pacing" in note for note in watch.notes))

        watch.cancelled.set()

        with pytest.raises(OperationCancelledError):
            load.result(10)
    assert 1 == asked(simulator, Moment.HEAD)


def test_a_load_that_waits_for_an_answer_can_be_cancelled(
    provider: IbProvider, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Hang(), Moment.BARS))
    watch = Watch(really=True)
    with ThreadPoolExecutor() as pool:
        load = pool.submit(fetched, provider, watch=watch)
        eventually(lambda: simulator.open_requests == 1)

        watch.cancelled.set()

        with pytest.raises(OperationCancelledError):
            load.result(10)
    eventually(lambda: simulator.open_requests == 0)


def test_fifty_symbols_are_loaded_at_once_within_the_limits() -> None:
    frame = made(day(2024), 250, "1D")
    symbols = [f"S{number}" for number in range(50)]
    source = FrameHistory({(symbol, "1d"): frame for symbol in symbols})
    wanted = TimeRange(day(2024), day(2025))
    with (
        TwsSimulator(source) as simulator,
        providing(simulator, pacing=Pacing()) as provider,
        ThreadPoolExecutor(4) as pool,
    ):
        loads = [pool.submit(fetched, provider, symbol, "1d", wanted) for symbol in symbols]
        for load in loads:
            same(frame, load.result(60))
        assert {None} == {each.effect for each in simulator.requests}
        eventually(lambda: simulator.open_requests == 0)


# ------------------------------------------------------------------------ the rest


def test_what_cannot_be_asked_for_is_seen_without_asking(
    provider: IbProvider, simulator: TwsSimulator
) -> None:
    violations = provider.check(["IBM", "ibm", "EURUSD", "?"], "7d")

    assert ["symbols[1]", "symbols[3]", "timeframe"] == [each.field for each in violations]
    assert "There are: 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w." in violations[-1].description
    assert [] == provider.check(["IBM"], "1d")
    assert () == simulator.requests


@pytest.mark.parametrize(("symbol", "timeframe"), [("ibm", "1d"), ("IBM", "7d")])
def test_what_cannot_be_asked_for_fails_when_it_is(
    provider: IbProvider, symbol: str, timeframe: str
) -> None:
    with pytest.raises(SeriesFailedError) as raised:
        provider.begins(symbol, timeframe)
    assert "NO_SUCH_SERIES" == raised.value.reason


class ScriptedGateway:
    """Answers without IB."""

    def __init__(self, answer: IbBars | None = None, error: Exception | None = None) -> None:
        self.answer, self.error = answer, error
        self.asked = threading.Semaphore(0)

    def contract_ids(self, *_: Any) -> Sequence[int]:
        return [7]

    def head(self, *_: Any, **__: Any) -> datetime:
        return day(2000)

    def bars(self, *_: Any, **__: Any) -> IbBars:
        self.asked.release()
        if self.error is not None:
            raise self.error
        assert self.answer is not None
        return self.answer


def scripted(gateway: ScriptedGateway, **how: Any) -> IbProvider:
    return IbProvider(gateway, Pacing(UNLIMITED), **how)


def test_an_answer_that_makes_no_sense_fails_the_series() -> None:
    provider = scripted(ScriptedGateway(IbBars([date(2012, 1, 3)], [(1.0, 1.0, 1.0, 1.0, 5.0)])))

    with pytest.raises(SeriesFailedError, match=r"without time .* Load again") as raised:
        fetched(provider, timeframe="5m", wanted=TimeRange(day(2012), day(2012, 2)))

    assert "IB_MALFORMED" == raised.value.reason


def test_more_than_one_contract_is_none() -> None:
    gateway = ScriptedGateway()
    gateway.contract_ids = lambda *_: [7, 8]  # type: ignore[method-assign]

    with pytest.raises(SeriesFailedError, match="2 contracts fit"):
        scripted(gateway).begins("IBM", "1d")


def test_an_outage_is_measured_from_its_begin_by_the_clock() -> None:
    clock, watch = FakeClock(), Watch()
    gateway = ScriptedGateway(error=IbConnectionError("the link is down"))
    provider = scripted(gateway, patience=Patience(outage=60.0), clock=clock)
    watch.on_wait = clock.advance

    with pytest.raises(UnavailableError, match="the link is down"):
        fetched(provider, watch=watch)

    assert 60 <= watch.waited <= 70


def test_waits_between_tries_grow_and_can_be_seen() -> None:
    watch = Watch()
    refusal = FAILURES["timed-out"]
    gateway = ScriptedGateway(error=IbError(refusal.code, refusal.text))

    with pytest.raises(SeriesFailedError):
        fetched(scripted(gateway), watch=watch)

    assert 5 + 15 + 45 == watch.waited
    assert watch.notes[0].startswith("waiting 5 s: Historical Market Data Service error message:")
