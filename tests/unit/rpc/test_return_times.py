from __future__ import annotations

import pytest

from shared.rpc.return_times import ReturnTimes
from tests.support.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_times_to_return_grow_with_the_number_that_was_turned_away(clock: FakeClock) -> None:
    times = ReturnTimes(clock)
    returns = [times.take() for _ in range(500)]

    assert 0.4 <= returns[0] <= 0.5
    assert min(returns[400:]) > max(returns[:20])


def test_a_few_who_are_turned_away_are_told_different_times(clock: FakeClock) -> None:
    times = ReturnTimes(clock)

    assert len({times.take() for _ in range(30)}) > 20


def test_those_at_the_bound_are_told_a_few_hundred_different_times(clock: FakeClock) -> None:
    """Each is encoded once and remembered; of milliseconds there were too many for that."""
    times = ReturnTimes(clock)
    returns = [times.take() for _ in range(20_000)]

    assert 100 < len(set(returns[5000:])) <= 601


def test_nobody_is_kept_away_longer_than_thirty_seconds(clock: FakeClock) -> None:
    times = ReturnTimes(clock)

    assert max(times.take() for _ in range(5000)) <= 30.0


def test_callers_at_the_bound_do_not_come_back_as_one(clock: FakeClock) -> None:
    times = ReturnTimes(clock)
    returns = [times.take() for _ in range(5000)]

    assert max(returns[-100:]) - min(returns[-100:]) > 1.0


def test_the_queue_of_returns_drains_with_time(clock: FakeClock) -> None:
    times = ReturnTimes(clock)
    for _ in range(1000):
        times.take()
    clock.advance(60)

    assert times.take() <= 0.5
