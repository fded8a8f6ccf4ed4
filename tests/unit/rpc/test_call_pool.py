from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from shared.rpc.call_pool import CallPool, refused_by
from tests.support.eventually import eventually


@pytest.fixture
def refusals() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as refusals:
        yield refusals


@pytest.fixture
def pool(refusals: ThreadPoolExecutor) -> Iterator[CallPool]:
    """One thread, and a place in the queue behind it."""
    with CallPool("read", 1, 2, 5.0, refusals) as pool:
        yield pool


def test_what_finds_no_place_is_told_so_while_the_others_are_served(pool: CallPool) -> None:
    go_on = threading.Event()
    served: list[Future[object]] = []
    served += [pool.submit(go_on.wait, 10.0), pool.submit(refused_by)]
    assert [pool] * 5 == [pool.submit(refused_by).result(10.0) for _ in range(5)]
    assert not served[1].done()
    go_on.set()
    assert [True, None] == [call.result(10.0) for call in served]


def test_a_place_is_free_again_however_a_call_ends(pool: CallPool) -> None:
    def fail() -> None:
        raise ValueError

    for _ in range(10):
        assert isinstance(pool.submit(fail).exception(10.0), ValueError)
        eventually(lambda: pool._taken == 0)
        assert None is pool.submit(refused_by).result(10.0)


def test_a_call_that_comes_after_the_end_takes_no_place(pool: CallPool) -> None:
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(refused_by)
    assert 0 == pool._taken


def test_a_thread_that_refused_serves_the_next(refusals: ThreadPoolExecutor) -> None:
    with CallPool("read", 1, 0, 5.0, refusals) as none:
        assert none is none.submit(refused_by).result(10.0)
    assert None is refusals.submit(refused_by).result(10.0)
