from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

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


def told(call: Future[ResourceExhaustedError | None]) -> str:
    """What a call for `refusal` was told; empty if it was served."""
    error = call.result(10.0)
    return error.message if error is not None else ""


def test_what_finds_no_place_is_told_so_while_the_others_are_served(pool: CallPool) -> None:
    go_on = threading.Event()
    waits, queues = pool.submit(go_on.wait, 10.0), pool.submit(refusal)
    turned_away = [pool.submit(refusal) for _ in range(5)]
    assert all(call.done() for call in turned_away)
    assert {"Too many read calls at once (limit 2); come back in a moment."} == {
        told(call) for call in turned_away
    }
    assert not queues.done()
    go_on.set()
    assert (True, "") == (waits.result(10.0), told(queues))


def test_that_calls_are_turned_away_is_logged_once_in_a_while(
    backlog: Backlog, caplog: pytest.LogCaptureFixture
) -> None:
    with CallPool("start", 1, 0, 5.0, backlog) as none:
        for _ in range(50):
            assert "Too many" in told(none.submit(refusal))
    assert ["Turning start calls away: Too many start calls at once (limit 0)"] == caplog.messages


def test_a_place_is_free_again_however_a_call_ends(pool: CallPool) -> None:
    def fail() -> None:
        raise ValueError

    for _ in range(10):
        assert isinstance(pool.submit(fail).exception(10.0), ValueError)
        assert "" == told(pool.submit(refusal))


def test_a_call_that_comes_after_the_end_takes_no_place(pool: CallPool) -> None:
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(refusal)
    assert 0 == pool._taken


def test_a_thread_that_refused_serves_the_next(backlog: Backlog) -> None:
    with CallPool("read", 1, 0, 5.0, backlog) as none:
        assert "Too many" in told(none.submit(refusal))
    assert None is refusal()


def test_a_refusal_that_fails_is_its_calls_alone(backlog: Backlog) -> None:
    """It happens on the thread that takes in all the others."""

    def fail() -> None:
        raise ValueError

    with CallPool("read", 1, 0, 5.0, backlog) as none:
        assert isinstance(none.submit(fail).exception(10.0), ValueError)
        assert "Too many" in told(none.submit(refusal))


def test_while_too_many_wait_to_be_taken_in_all_are_turned_away(
    pool: CallPool, waiting: Waiting, clock: FakeClock
) -> None:
    waiting.calls = 2000
    assert [""] * 12 == [told(pool.submit(refusal)) for _ in range(12)]
    clock.advance(1.0)
    refused = [pool.submit(refusal) for _ in range(10)]
    assert all(call.done() for call in refused)
    assert {"Calls come faster than they are taken in (3 may wait); come back in a moment."} == {
        told(call) for call in refused
    }

    clock.advance(1.0)
    waiting.calls = 0
    assert "" == told(pool.submit(refusal))


def test_health_is_answered_however_many_wait(
    waiting: Waiting, clock: FakeClock, backlog: Backlog
) -> None:
    waiting.calls = 100
    with CallPool("health", 1, 2, 5.0, backlog) as pool:
        for _ in range(10):
            clock.advance(1.0)
            assert [""] * 5 == [told(pool.submit(refusal)) for _ in range(5)]
