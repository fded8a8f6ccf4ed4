from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from shared.rpc.said_lately import SaidLately
from tests.support.clock import FakeClock


def test_the_same_is_said_once_a_minute() -> None:
    clock = FakeClock()
    said = SaidLately(clock)
    assert [True, False, True] == [said.is_due("a"), said.is_due("a"), said.is_due("b")]
    clock.advance(59.0)
    assert not said.is_due("a")
    clock.advance(1.0)
    assert [True, False] == [said.is_due("a"), said.is_due("a")]


def test_so_much_is_said_in_a_minute_and_no_more() -> None:
    clock = FakeClock()
    said = SaidLately(clock)
    assert 200 == sum(said.is_due(f"{number}") for number in range(1000))
    clock.advance(60.0)
    assert said.is_due("another")
    assert 199 == sum(said.is_due(f"{number}") for number in range(1000))


def test_of_several_threads_one_says_it() -> None:
    said = SaidLately()
    with ThreadPoolExecutor(8) as pool:
        for number in range(50):
            assert 1 == sum(pool.map(said.is_due, [f"{number}"] * 8))
