from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ib_host.pacing import (
    OPEN_PAUSE,
    UNLIMITED,
    PacedRequest,
    Pacing,
    PacingLimits,
    Window,
)
from ib_host.simulator.pacing import PacedRequest as JudgedRequest
from ib_host.simulator.pacing import Pacing as Judge
from ib_host.simulator.pacing import PacingRules
from shared.rpc.errors import OperationCancelledError
from tests.support.clock import FakeClock

EXACT = PacingLimits(margin=0.0)


class ClockWatch:
    """Waits by moving a clock; cancels when told to."""

    def __init__(self, clock: FakeClock, *, cancel_after: float = 1e9) -> None:
        self.clock = clock
        self.notes: list[str] = []
        self.waited = 0.0
        self._cancel_after = cancel_after

    def note(self, message: str) -> None:
        self.notes.append(message)

    def wait(self, seconds: float) -> None:
        self.waited += seconds
        self.clock.advance(seconds)
        if self.waited >= self._cancel_after:
            raise OperationCancelledError("enough")


def head(symbol: str = "IBM", *, weight: int = 1, number: int = 0) -> PacedRequest:
    """One for which the limits hold."""
    return PacedRequest((symbol, number), symbol, strict=True, weight=weight, is_open=False)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pacing(clock: FakeClock) -> Pacing:
    return Pacing(EXACT, clock)


@pytest.fixture
def narrow(clock: FakeClock) -> Pacing:
    """One that lets a single request be open."""
    return Pacing(replace(EXACT, open=1), clock)


def is_open(narrow: Pacing) -> bool:
    """Whether a request is, so that no other can be."""
    probe = PacedRequest("probe", "probe", strict=False)
    if narrow.reserve(probe) > 0:
        return True
    narrow.release(probe)
    return False


def test_the_first_request_goes_at_once(pacing: Pacing) -> None:
    assert 0 == pacing.reserve(head())


def test_the_same_request_waits_for_fifteen_seconds(pacing: Pacing, clock: FakeClock) -> None:
    pacing.reserve(head())
    clock.advance(3)

    assert 12 == pacing.reserve(head())
    clock.advance(12)
    assert 0 == pacing.reserve(head())


def test_the_sixth_request_for_one_contract_waits_for_two_seconds(
    pacing: Pacing, clock: FakeClock
) -> None:
    assert [0] * 5 == [pacing.reserve(head(number=number)) for number in range(5)]

    assert 2 == pacing.reserve(head(number=5))
    assert 0 == pacing.reserve(head("AAPL"))
    clock.advance(2)
    assert 0 == pacing.reserve(head(number=5))


@pytest.mark.parametrize(("weight", "fit"), [(1, 60), (2, 30)])
def test_sixty_requests_fit_into_ten_minutes_and_bid_ask_counts_twice(
    weight: int, fit: int
) -> None:
    clock = FakeClock()
    pacing = Pacing(EXACT, clock)
    for number in range(fit):
        assert 0 == pacing.reserve(head(str(number), weight=weight))
        clock.advance(1)

    assert 600 - fit == pacing.reserve(head("one more", weight=weight))
    clock.advance(600 - fit)
    assert 0 == pacing.reserve(head("one more", weight=weight))


def test_one_that_waits_does_not_count(pacing: Pacing, clock: FakeClock) -> None:
    pacing.reserve(head())
    for _ in range(100):
        pacing.reserve(head())
    clock.advance(15)
    assert 0 == pacing.reserve(head())


def test_bars_of_a_minute_and_more_know_no_such_limits(pacing: Pacing) -> None:
    bars = replace(head(), strict=False)
    assert {0.0} == {pacing.reserve(bars) for _ in range(40)}


def test_a_margin_allows_for_requests_of_different_speed(clock: FakeClock) -> None:
    pacing = Pacing(PacingLimits(margin=0.5), clock)
    pacing.reserve(head())
    clock.advance(15)

    assert 0.5 == pacing.reserve(head())


def test_messages_of_any_kind_are_limited_per_second(pacing: Pacing, clock: FakeClock) -> None:
    bars = replace(head(), strict=False)
    sent = sum(pacing.reserve(bars) == 0 for _ in range(100))

    assert 45 == sent
    assert 1 == pacing.reserve(bars)
    clock.advance(1)
    assert 0 == pacing.reserve(bars)


def test_what_has_to_be_cancelled_takes_two_messages(pacing: Pacing, clock: FakeClock) -> None:
    twice = replace(head(), strict=False, messages=2)
    assert 22 == sum(pacing.reserve(twice) == 0 for _ in range(100))
    assert 0 == pacing.reserve(replace(twice, messages=1))
    clock.advance(1)
    assert 0 == pacing.reserve(twice)


def test_open_requests_are_limited_until_one_ends(clock: FakeClock) -> None:
    pacing = Pacing(replace(UNLIMITED, open=2), clock)
    bars = replace(head(), strict=False, is_open=True)
    pacing.reserve(bars)
    pacing.reserve(bars)

    assert OPEN_PAUSE == pacing.reserve(bars)
    assert 0 == pacing.reserve(replace(bars, is_open=False))
    pacing.release(bars)
    assert 0 == pacing.reserve(bars)
    assert OPEN_PAUSE == pacing.reserve(bars)


def test_what_ib_refused_all_the_same_holds_everybody_back(
    pacing: Pacing, clock: FakeClock
) -> None:
    pacing.hold(15)
    pacing.hold(5)

    assert 15 == pacing.reserve(head())
    assert 0 == pacing.reserve(replace(head(), strict=False))
    clock.advance(15)
    assert 0 == pacing.reserve(head())


def test_a_turn_waits_visibly_and_ends_the_request(narrow: Pacing, clock: FakeClock) -> None:
    watch = ClockWatch(clock)
    request = replace(head(), is_open=True)
    with narrow.turn(request, watch):
        assert is_open(narrow)
    clock.advance(3)

    with narrow.turn(request, watch):
        assert 12 == watch.waited

    assert not is_open(narrow)
    assert "waiting 12 s for IB pacing" == watch.notes[0]
    assert ["waiting 1 s for IB pacing", "asking IB"] == watch.notes[-2:]


def test_what_could_not_be_sent_counts_no_longer(pacing: Pacing, clock: FakeClock) -> None:
    pacing.reserve(head())
    pacing.withdraw(head())
    assert 0 == pacing.reserve(head())

    clock.advance(3)
    pacing.withdraw(head("AAPL"))  # of which none was reserved
    assert 12 == pacing.reserve(head())


def test_a_turn_that_fails_is_open_no_longer(narrow: Pacing, clock: FakeClock) -> None:
    def fail() -> None:
        with narrow.turn(replace(head(), is_open=True), ClockWatch(clock)):
            raise ValueError("as it happens")

    with pytest.raises(ValueError, match="as it happens"):
        fail()
    assert not is_open(narrow)


def test_a_cancellation_at_the_end_of_a_wait_leaves_nothing_open(
    narrow: Pacing, clock: FakeClock
) -> None:
    class Cancelled(ClockWatch):
        def note(self, message: str) -> None:
            super().note(message)
            if message == "asking IB":
                raise OperationCancelledError("enough")

    request = PacedRequest("head", "IBM", strict=True)
    with narrow.turn(request, ClockWatch(clock)):
        pass
    with (
        pytest.raises(OperationCancelledError),
        narrow.turn(request, Cancelled(clock)),
    ):
        pass

    assert not is_open(narrow)


def test_a_cancellation_ends_the_wait_and_leaves_nothing_counted(
    narrow: Pacing, clock: FakeClock
) -> None:
    narrow.reserve(head())

    with (
        pytest.raises(OperationCancelledError),
        narrow.turn(replace(head(), is_open=True), ClockWatch(clock, cancel_after=3)),
    ):
        pytest.fail("the turn has not come")  # pragma: no cover

    assert not is_open(narrow)
    clock.advance(12)
    assert 0 == narrow.reserve(head())


asked = st.tuples(
    st.sampled_from(["IBM", "AAPL", "GOOG"]),
    st.integers(0, 3),
    st.integers(1, 2),
    st.sampled_from([0.0, 0.1, 0.5, 2.0, 7.0, 30.0]),
)


@given(st.lists(asked, max_size=120))
def test_whoever_keeps_the_limits_is_never_refused(
    requests: list[tuple[str, int, int, float]],
) -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    pacing = Pacing(replace(PacingLimits(), messages=None), clock)
    judge = Judge(PacingRules(), clock)

    for symbol, number, weight, pause in requests:
        request = head(symbol, number=number, weight=weight)
        with pacing.turn(request, watch):
            judge.admit(JudgedRequest(request.identity, request.series, weight))
        clock.advance(pause)


@pytest.mark.parametrize("limit", ["identical", "series", "total", "messages", "open"])
def test_every_limit_can_be_lifted(limit: str, clock: FakeClock) -> None:
    tight: dict[str, Callable[[], Window | int]] = {
        "identical": lambda: Window(1, 9),
        "series": lambda: Window(1, 9),
        "total": lambda: Window(1, 9),
        "messages": lambda: Window(1, 9),
        "open": lambda: 1,
    }
    request = replace(head(), is_open=True)
    limited = Pacing(PacingLimits(**{**NONE, limit: tight[limit]()}), clock)  # type: ignore[arg-type]
    free = Pacing(UNLIMITED, clock)

    assert [True, False] == [limited.reserve(request) == 0 for _ in range(2)]
    assert [0, 0] == [free.reserve(request) for _ in range(2)]


NONE: dict[str, None] = dict.fromkeys(["identical", "series", "total", "messages", "open"])


def test_waits_are_told_to_whoever_monitors_them(clock: FakeClock) -> None:
    class Notes:
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def paced(self, seconds: float, /) -> None:
            self.seconds.append(seconds)

    notes = Notes()
    pacing = Pacing(EXACT, clock, notes)
    for _ in range(2):
        with pacing.turn(head(), ClockWatch(clock)):
            pass
    assert [15.0] == notes.seconds
