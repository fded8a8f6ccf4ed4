from __future__ import annotations

import threading

import pytest

from shared.operations.starts import Starts
from shared.rpc.errors import RequestIdReusedError, ResourceExhaustedError
from tests.support.eventually import eventually
from tests.unit.operations.fakes import Background, in_threads, new_operation


def test_a_start_runs_once_and_then_its_id_is_free() -> None:
    starts, ran = Starts(), []
    starts.once(new_operation(), lambda: ran.append(1))
    starts.once(new_operation(), lambda: ran.append(2))

    assert [1, 2] == ran
    assert {} == starts._running


class SlowStart:
    """A start that the test lets end."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.running = threading.Event()
        self.let_end = threading.Event()
        self.times = 0
        self._error = error

    def __call__(self) -> None:
        self.times += 1
        self.running.set()
        assert self.let_end.wait(10)
        if self._error is not None:
            raise self._error


def test_concurrent_starts_share_one_run() -> None:
    starts, slow = Starts(), SlowStart()
    first = Background(lambda: starts.once(new_operation(), slow))
    assert slow.running.wait(5)
    others = [Background(lambda: starts.once(new_operation(), slow)) for _ in range(3)]
    slow.let_end.set()

    for each in (first, *others):
        each.result()
    # The others may have come after the end of the first, but never beside it.
    assert {} == starts._running


def test_concurrent_starts_share_one_refusal() -> None:
    starts, slow = Starts(), SlowStart(ResourceExhaustedError("full"))
    first = Background(lambda: starts.once(new_operation(), slow))
    assert slow.running.wait(5)
    outcome = starts._running["op"].outcome
    second = Background(lambda: starts.once(new_operation(), slow))
    eventually(lambda: len(outcome._condition._waiters) == 1)  # type: ignore[attr-defined]  # no public way to see it
    slow.let_end.set()

    for each in (first, second):
        with pytest.raises(ResourceExhaustedError):
            each.result()
    assert 1 == slow.times
    assert {} == starts._running


def test_a_different_request_does_not_share() -> None:
    starts, slow = Starts(), SlowStart()
    first = Background(lambda: starts.once(new_operation(), slow))
    assert slow.running.wait(5)

    with pytest.raises(RequestIdReusedError, match="request-op"):
        starts.once(new_operation(fingerprint="other"), slow)

    slow.let_end.set()
    first.result()
    assert 1 == slow.times


def test_other_operations_start_meanwhile() -> None:
    starts, slow = Starts(), SlowStart()
    first = Background(lambda: starts.once(new_operation("a"), slow))
    assert slow.running.wait(5)
    ran: list[str] = []
    starts.once(new_operation("b"), lambda: ran.append("b"))

    assert ["b"] == ran
    slow.let_end.set()
    first.result()


def test_runs_of_one_id_never_overlap() -> None:
    starts = Starts()
    inside: list[int] = []
    most: list[int] = []

    def run() -> None:
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    def start_often(_: int) -> None:
        for _ in range(50):
            starts.once(new_operation(), run)

    assert [] == in_threads(8, start_often)
    assert 1 == max(most)


def test_settled_waits_for_a_running_start_and_no_longer_than_told() -> None:
    starts, slow = Starts(), SlowStart()
    assert starts.settled("op", 0.0)
    first = Background(lambda: starts.once(new_operation(), slow))
    assert slow.running.wait(5)
    assert not starts.settled("op", 0.0)
    assert not starts.settled("op", -1.0)
    assert starts.settled("other", 0.0)

    waits = Background(lambda: starts.settled("op", 10.0))
    slow.let_end.set()
    first.result()
    assert waits.result()
