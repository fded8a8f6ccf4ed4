from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from shared.rpc.backlog import Backlog
from shared.rpc.call_pool import CallPool, refusal
from shared.rpc.errors import ResourceExhaustedError
from tests.support.clock import FakeClock

LIMIT = 3


class Waiting:
    """Stands in for gRPC's counts."""

    calls = 0

    def __call__(self) -> int:
        return self.calls


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def backlog(waiting: Waiting, clock: FakeClock) -> Backlog:
    return Backlog(LIMIT, waiting, ["health"], clock)


@pytest.fixture
def pool(backlog: Backlog) -> Iterator[CallPool]:
    """One thread, and a place in the queue behind it."""
    with CallPool("read", 1, 2, 5.0, backlog) as pool:
        yield pool


class Call:
    """One that a pool was given, and how it is served."""

    def __init__(self, pool: CallPool, serve: Callable[[], object] = lambda: None) -> None:
        self._serve = serve
        self._error: ResourceExhaustedError | None = None
        self._over = threading.Event()
        self.handed = pool.submit(self._served)
        self.handed.add_done_callback(lambda _: self._over.set())

    def _served(self) -> None:
        self._error = refusal()
        if self._error is None:
            self._serve()

    @property
    def told(self) -> str:
        """What it was told when it was refused; empty if it was served."""
        assert self._over.wait(10.0)
        return self._error.message if self._error is not None else ""


def fail() -> None:
    raise ValueError


def test_what_finds_no_place_is_told_so_while_the_others_are_served(pool: CallPool) -> None:
    go_on = threading.Event()
    waits, queues = Call(pool, lambda: go_on.wait(10.0)), Call(pool)
    turned_away = [Call(pool) for _ in range(5)]
    assert all(call.handed.done() for call in turned_away)
    assert {"Too many read calls at once (limit 2); come back in a moment."} == {
        call.told for call in turned_away
    }
    assert not queues.handed.done()
    go_on.set()
    assert ("", "") == (waits.told, queues.told)


def test_that_calls_are_turned_away_is_logged_once_in_a_while(
    backlog: Backlog, caplog: pytest.LogCaptureFixture
) -> None:
    with CallPool("start", 1, 0, 5.0, backlog) as none:
        for _ in range(50):
            assert "Too many" in Call(none).told
    assert ["Turning start calls away: Too many start calls at once (limit 0)"] == caplog.messages


def test_a_place_is_free_again_however_a_call_ends(pool: CallPool) -> None:
    for _ in range(10):
        assert "" == Call(pool, fail).told
        assert "" == Call(pool).told


def test_a_call_that_comes_after_the_end_takes_no_place(pool: CallPool) -> None:
    pool.shutdown()
    with pytest.raises(RuntimeError):
        Call(pool)
    assert 0 == pool.in_hand


def test_a_thread_that_refused_serves_the_next(backlog: Backlog) -> None:
    with CallPool("read", 1, 0, 5.0, backlog) as none:
        assert "Too many" in Call(none).told
    assert None is refusal()


def test_a_refusal_that_fails_is_its_calls_alone(backlog: Backlog) -> None:
    """It happens on the thread that takes in all the others."""
    with CallPool("read", 1, 0, 5.0, backlog) as none:
        assert none.submit(fail).done()
        assert "Too many" in Call(none).told


def test_while_too_many_wait_to_be_taken_in_all_are_turned_away(
    pool: CallPool, waiting: Waiting, clock: FakeClock
) -> None:
    waiting.calls = 100
    assert [""] * 12 == [Call(pool).told for _ in range(12)]
    clock.advance(1.0)
    refused = [Call(pool) for _ in range(10)]
    assert all(call.handed.done() for call in refused)
    assert {
        "Calls come faster than they are taken in (more than 3 wait); come back in a moment."
    } == {call.told for call in refused}

    clock.advance(1.0)
    waiting.calls = 0
    assert "" == Call(pool).told


def test_health_is_answered_however_many_wait(
    waiting: Waiting, clock: FakeClock, backlog: Backlog
) -> None:
    waiting.calls = 100
    with CallPool("health", 1, 2, 5.0, backlog) as pool:
        for _ in range(10):
            clock.advance(1.0)
            assert [""] * 5 == [Call(pool).told for _ in range(5)]
