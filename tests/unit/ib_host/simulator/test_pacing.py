from __future__ import annotations

import pytest

from ib_host.simulator.pacing import UNPACED, MessageRate, PacedRequest, Pacing, PacingRules
from ib_host.simulator.refusals import Refusal
from tests.support.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def request(identity: object, group: object = None, weight: int = 1) -> PacedRequest:
    return PacedRequest(repr(identity), repr(identity if group is None else group), weight)


def is_admitted(pacing: Pacing, asked: PacedRequest) -> bool:
    try:
        pacing.admit(asked)
    except Refusal as refusal:
        if refusal.code != 162 or "pacing violation" not in refusal.text:
            raise
        return False
    return True


def test_the_same_request_is_refused_for_15_seconds(clock: FakeClock) -> None:
    pacing = Pacing(PacingRules(), clock)
    pacing.admit(request("a"))

    clock.advance(14.9)
    assert not is_admitted(pacing, request("a"))
    assert is_admitted(pacing, request("b"))
    clock.advance(0.1)
    assert is_admitted(pacing, request("a"))


def test_five_requests_for_a_contract_fit_into_two_seconds(clock: FakeClock) -> None:
    pacing = Pacing(PacingRules(), clock)

    admitted = [is_admitted(pacing, request(n, "IBM")) for n in range(6)]

    assert [True] * 5 + [False] == admitted
    assert is_admitted(pacing, request(6, "AAPL"))
    clock.advance(2.0)
    assert is_admitted(pacing, request(7, "IBM"))


def test_sixty_requests_fit_into_ten_minutes(clock: FakeClock) -> None:
    pacing = Pacing(PacingRules(), clock)
    for n in range(60):
        pacing.admit(request(n))
        clock.advance(1)

    assert not is_admitted(pacing, request(60))
    clock.advance(539)
    assert not is_admitted(pacing, request(60))
    clock.advance(1)
    assert is_admitted(pacing, request(60))
    assert not is_admitted(pacing, request(61))


def test_a_request_for_bid_and_ask_counts_twice(clock: FakeClock) -> None:
    pacing = Pacing(PacingRules(), clock)
    for n in range(30):
        pacing.admit(request(n, weight=2))

    assert not is_admitted(pacing, request(31))


def test_a_refused_request_does_not_count(clock: FakeClock) -> None:
    pacing = Pacing(PacingRules(), clock)
    pacing.admit(request("a"))
    clock.advance(10)
    assert not is_admitted(pacing, request("a"))

    clock.advance(5)

    assert is_admitted(pacing, request("a"))


def test_fifty_requests_may_be_open(clock: FakeClock) -> None:
    pacing = Pacing(PacingRules(), clock)
    for n in range(50):
        pacing.open(n)

    with pytest.raises(Refusal, check=lambda error: error.code == 322):
        pacing.open(50)
    pacing.close(7)
    pacing.open(50)

    assert 50 == pacing.open_count


def test_limits_can_be_lifted(clock: FakeClock) -> None:
    pacing = Pacing(UNPACED, clock)

    assert all(is_admitted(pacing, request("a")) for _ in range(200))


def test_fifty_messages_a_second_are_well_for_ever(clock: FakeClock) -> None:
    rate = MessageRate(PacingRules(), clock)
    for _ in range(1000):
        rate.count()
        clock.advance(1 / 50)

    rate.count()


def test_more_than_a_second_in_arrears_is_refused(clock: FakeClock) -> None:
    rate = MessageRate(PacingRules(), clock)
    for _ in range(100):
        rate.count()

    with pytest.raises(Refusal, check=lambda error: error.code == 100):
        rate.count()


def test_messages_need_no_limit(clock: FakeClock) -> None:
    rate = MessageRate(PacingRules(message_limit=None), clock)

    for _ in range(1000):
        rate.count()
