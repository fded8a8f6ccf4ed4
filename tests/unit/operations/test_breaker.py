from __future__ import annotations

import pytest

from shared.operations.breaker import Breaker
from shared.rpc.errors import StoreUnavailableError
from tests.support.clock import FakeClock

AWAY = StoreUnavailableError("The store is away. Bring it back.")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(clock, pause=1.0)


def refused(breaker: Breaker) -> bool:
    try:
        breaker.check()
        breaker.enter()
    except StoreUnavailableError as error:
        return error.message == AWAY.message
    return False


def test_everybody_enters_while_nothing_is_wrong(breaker: Breaker) -> None:
    assert [False] * 3 == [refused(breaker) for _ in range(3)]


def test_nobody_enters_for_a_while_after_a_failure(breaker: Breaker, clock: FakeClock) -> None:
    breaker.trip(AWAY)
    clock.advance(0.9)

    assert refused(breaker)


def test_then_one_tries_at_a_time(breaker: Breaker, clock: FakeClock) -> None:
    breaker.trip(AWAY)
    clock.advance(1.0)
    assert [False, True, True] == [refused(breaker) for _ in range(3)]
    clock.advance(1.0)  # the one who tried has not come back
    assert [False, True] == [refused(breaker) for _ in range(2)]


def test_a_try_that_fails_keeps_it_closed(breaker: Breaker, clock: FakeClock) -> None:
    breaker.trip(AWAY)
    clock.advance(5.0)
    assert not refused(breaker)
    breaker.trip(AWAY)

    assert refused(breaker)


def test_a_try_that_succeeds_lets_everybody_in(breaker: Breaker, clock: FakeClock) -> None:
    breaker.trip(AWAY)
    clock.advance(1.0)
    assert not refused(breaker)
    breaker.reset()

    assert [False] * 3 == [refused(breaker) for _ in range(3)]
