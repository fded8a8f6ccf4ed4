from __future__ import annotations

from shared.operations.latch import Latch
from tests.support.eventually import eventually
from tests.unit.operations.fakes import Background


def test_waiting_ends_with_the_time() -> None:
    latch = Latch()

    assert not latch.wait(0.0)
    assert (0, False) == (latch.waiting, latch.is_set())


def test_once_set_nobody_waits() -> None:
    latch = Latch()
    latch.set()
    latch.set()

    assert latch.wait(0.0)
    assert latch.is_set()


def test_setting_it_lets_everybody_go_on() -> None:
    latch = Latch()
    waiters = [Background(lambda: latch.wait(10.0)) for _ in range(3)]
    eventually(lambda: latch.waiting == 3)
    latch.set()

    assert [True] * 3 == [waiter.result() for waiter in waiters]
    assert 0 == latch.waiting
