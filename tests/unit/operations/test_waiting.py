from __future__ import annotations

import pytest

from shared.operations.waiting import Waiter, WaitingRoom
from tests.support.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_slots_are_handed_out_until_there_are_none(clock: FakeClock) -> None:
    room = WaitingRoom(2, clock)

    assert [None, None] == [room.enter(), room.enter()]
    assert room.enter() is not None


def test_a_slot_given_back_is_free(clock: FakeClock) -> None:
    room = WaitingRoom(1, clock)
    room.enter()
    room.leave()

    assert room.enter() is None


def test_return_times_grow_with_the_number_that_waits(clock: FakeClock) -> None:
    room = WaitingRoom(0, clock)
    returns = [room.enter() or 0.0 for _ in range(500)]

    assert 0.4 <= returns[0] <= 0.5
    assert min(returns[400:]) > max(returns[:20])


def test_nobody_is_kept_away_longer_than_thirty_seconds(clock: FakeClock) -> None:
    room = WaitingRoom(0, clock)

    assert max(room.enter() or 0.0 for _ in range(5000)) <= 30.0


def test_callers_at_the_bound_do_not_come_back_as_one(clock: FakeClock) -> None:
    room = WaitingRoom(0, clock)
    returns = [room.enter() or 0.0 for _ in range(5000)]

    assert max(returns[-100:]) - min(returns[-100:]) > 1.0


def test_the_queue_of_returns_drains_with_time(clock: FakeClock) -> None:
    room = WaitingRoom(0, clock)
    for _ in range(1000):
        room.enter()
    clock.advance(60)

    assert (room.enter() or 0.0) <= 0.5


def test_a_waiter_that_leaves_is_woken_and_gone() -> None:
    waiter = Waiter()
    waiter.leave()

    assert waiter.gone
    assert waiter.event.is_set()
