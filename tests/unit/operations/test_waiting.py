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


def test_those_without_a_slot_are_told_to_come_back_one_after_the_other(clock: FakeClock) -> None:
    room = WaitingRoom(0, clock)
    returns = [room.enter() or 0.0 for _ in range(500)]

    assert min(returns[400:]) > max(returns[:20])


def test_a_waiter_that_leaves_is_woken_and_gone() -> None:
    waiter = Waiter()
    waiter.leave()

    assert waiter.gone
    assert waiter.event.is_set()
