from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.rpc.call_threads import CallThreads, HandedCall
from tests.support.eventually import eventually

WITHIN = 10.0


@pytest.fixture
def threads() -> Iterator[CallThreads]:
    with CallThreads(2, "served") as threads:
        yield threads


def over(call: HandedCall) -> bool:
    """Whether it ends in time."""
    ended = threading.Event()
    call.add_done_callback(lambda _: ended.set())
    return ended.wait(WITHIN)


def names() -> list[str]:
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("served"))


def test_grpc_takes_them_for_a_pool(threads: CallThreads) -> None:
    assert isinstance(threads, ThreadPoolExecutor)


def test_a_call_is_served_with_its_arguments(threads: CallThreads) -> None:
    got: list[object] = []
    assert over(threads.submit(lambda *args, **kwargs: got.append((args, kwargs)), 1, 2, three=3))
    assert [((1, 2), {"three": 3})] == got


def test_there_are_as_many_threads_as_calls_up_to_a_number(threads: CallThreads) -> None:
    assert [] == names()
    for _ in range(5):  # one after the other
        assert over(threads.submit(lambda: None))
        eventually(lambda: threads.in_hand == 0)
    assert ["served_0"] == names()

    go_on = threading.Event()
    calls = [threads.submit(go_on.wait, WITHIN) for _ in range(4)]
    assert ["served_0", "served_1"] == names()
    assert 4 == threads.in_hand
    go_on.set()
    assert all(over(call) for call in calls)
    assert 0 == threads.in_hand


def test_a_call_that_fails_is_logged_and_the_next_is_served(
    threads: CallThreads, caplog: pytest.LogCaptureFixture
) -> None:
    def leave() -> None:
        raise SystemExit

    with caplog.at_level(logging.ERROR, "ktrdr.process"):
        assert over(threads.submit(leave))
    assert "Serving a call failed outside its servicer" in caplog.text
    assert over(threads.submit(lambda: None))
    assert ["served_0"] == names()


def test_nothing_of_a_call_is_kept_while_the_next_is_awaited(threads: CallThreads) -> None:
    class Request:
        def serve(self) -> None: ...

    request = Request()
    gone = weakref.ref(request)
    assert over(threads.submit(request.serve))
    del request
    eventually(lambda: gone() is None)


def test_who_asks_to_be_called_back_is_called_once_whenever_it_asks() -> None:
    told: list[str] = []
    call = HandedCall()
    call.add_done_callback(lambda _: told.append("before"))
    assert ([], False) == (told, call.done())
    call.end()
    call.add_done_callback(lambda _: told.append("after"))
    assert (["before", "after"], True) == (told, call.done())


def test_the_end_waits_for_all_that_is_in_hand() -> None:
    served: list[int] = []
    with CallThreads(1, "served") as one:
        for number in range(20):
            one.submit(served.append, number)
    assert list(range(20)) == served
    assert [] == names()


def test_after_the_end_nothing_is_taken(threads: CallThreads) -> None:
    threads.shutdown()
    with pytest.raises(RuntimeError):
        threads.submit(lambda: None)
    assert 0 == threads.in_hand


def test_what_nobody_has_begun_to_serve_can_be_dropped(threads: CallThreads) -> None:
    go_on = threading.Event()
    begun: list[threading.Event] = [threading.Event() for _ in range(2)]

    def wait(begin: threading.Event) -> None:
        begin.set()
        go_on.wait(WITHIN)

    served = [threads.submit(wait, event) for event in begun]
    assert all(event.wait(WITHIN) for event in begun)
    was_served = threading.Event()
    dropped = threads.submit(was_served.set)
    threads.shutdown(wait=False, cancel_futures=True)
    assert dropped.done()
    assert not any(call.done() for call in served)
    go_on.set()
    threads.shutdown()  # joins
    assert [] == names()
    assert not was_served.is_set()
