from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from statistics import median
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from shared.rpc import health
from shared.rpc.backlog import Backlog
from shared.rpc.interceptors import Handler, MethodInterceptor
from shared.rpc.server import ServerLimits
from tests.support.clock import FakeClock
from tests.support.eventually import eventually
from tests.support.raw_http2 import RawConnection, message
from tests.support.rpc import PROBE, TIMEOUT, Wire, probe, required, served, status_in

pytestmark = pytest.mark.usefixtures("way")

LIMITS = ServerLimits(read=800, backlog=5)
LONG = 60
"""Calls that are more than may wait, and fewer than there are places."""

STANDING = 600
"""Calls that cannot all be taken in before gRPC's counts have been looked at twice."""


def answer(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answer"


MANY = 2000
"""Calls that wait, of which none can be served for a while."""


class Counts:
    """Stands in for gRPC's."""

    def __init__(self, calls: int) -> None:
        self.calls, self.looks = calls, 0

    def __call__(self) -> int:
        self.looks += 1
        return self.calls


class Slow(MethodInterceptor):
    """Keeps the thread that takes calls in, from the first call of `Slow` until told."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def wrap(self, method: str, handler: Handler) -> Handler:
        if method.endswith("/Slow"):
            self.entered.set()
            assert self.go_on.wait(TIMEOUT)
        return handler


def has_time_to_return(failure: grpc.RpcError) -> bool:
    retry = required(status_in(failure), error_details_pb2.RetryInfo).retry_delay
    return bool(retry.ToMilliseconds() > 0)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def wire(slow: Slow) -> Iterator[Wire]:
    with served([probe({"Read": answer, "Slow": answer})], LIMITS, around=[slow]) as wire:
        yield wire


def test_calls_that_waited_to_be_taken_in_are_turned_away_until_few_wait(
    wire: Wire, slow: Slow
) -> None:
    late = wire.begin("Slow")
    assert slow.entered.wait(TIMEOUT)
    waited = [wire.begin("Read") for _ in range(STANDING)]
    checks = [wire.begin("Check", service=health.SERVICE_NAME) for _ in range(3)]
    slow.go_on.set()

    failures: list[Any] = [failure for call in waited if (failure := call.exception()) is not None]
    assert late.result() == b"answer"
    assert [None] * 3 == [check.exception() for check in checks]
    assert 0 < len(failures) < STANDING
    assert {grpc.StatusCode.RESOURCE_EXHAUSTED} == {failure.code() for failure in failures}
    assert all(has_time_to_return(failure) for failure in failures)
    eventually(lambda: wire.begin("Read").exception() is None)


def test_calls_under_way_are_no_backlog(wire: Wire) -> None:
    watch = wire.channel.unary_stream(
        f"/{health.SERVICE_NAME}/Watch",
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    watchers = []
    for _ in range(LONG):
        watchers.append(watch(b"", timeout=TIMEOUT))
        next(watchers[-1])  # one by one: health has few places, and each is free again now
    assert [b"answer"] * LONG == [wire.call("Read") for _ in range(LONG)]
    for watcher in watchers:
        watcher.cancel()
    assert [b"answer"] * LONG == [wire.call("Read") for _ in range(LONG)]


def test_answers_that_nobody_reads_are_no_backlog() -> None:
    answered = threading.Semaphore(0)

    def noted(request: Any, context: grpc.ServicerContext) -> bytes:
        answered.release()
        return b"answer"

    with (
        served([probe({"Read": answer, "Noted": noted})], LIMITS) as wire,
        RawConnection(wire.address, window=0) as raw,
    ):
        for _ in range(LONG):
            raw.send(raw.begin(f"/{PROBE}/Noted"), message(b"x"), last=True)
            assert answered.acquire(timeout=TIMEOUT)
        assert [b"answer"] * LONG == [wire.call("Read") for _ in range(LONG)]


def test_calls_that_were_refused_or_left_are_no_backlog() -> None:
    entered, go_on = threading.Semaphore(0), threading.Event()

    def held(request: Any, context: grpc.ServicerContext) -> bytes:
        entered.release()
        assert go_on.wait(TIMEOUT)
        return b"answer"

    limits = replace(LIMITS, read=LIMITS.backlog)
    with served([probe({"Read": answer, "Held": held})], limits) as wire:
        inside = [wire.begin("Held") for _ in range(limits.read)]
        for _ in inside:
            assert entered.acquire(timeout=TIMEOUT)
        refused = [wire.failure("Read").code() for _ in range(LONG)]
        for call in inside:
            call.cancel()
        go_on.set()
        eventually(lambda: wire.begin("Read").exception() is None)
        assert [b"answer"] * LONG == [wire.call("Read") for _ in range(LONG)]
    assert {grpc.StatusCode.RESOURCE_EXHAUSTED} == set(refused)


LOOKS = 0.02
"""Seconds after which gRPC's counts are looked at again."""


def taken_in(backlog: Backlog, clock: FakeClock, *classes: str) -> list[bool]:
    """Take in calls at one time after a look's; whether each is late."""
    clock.advance(LOOKS)
    return [backlog.take_in(class_) for class_ in classes]


def test_calls_are_late_once_too_many_have_waited_at_two_looks() -> None:
    clock = FakeClock()
    backlog = Backlog(5, Counts(MANY), clock=clock)
    assert [False] * 20 == taken_in(backlog, clock, *["read"] * 20)
    assert [True] * 20 == taken_in(backlog, clock, *["read"] * 20)


def looks_in_a_second(waiting: int) -> int:
    """How often gRPC is asked for its counts while so many wait and a call comes each millisecond.

    As many come as are taken in and refused.
    """
    clock, counts = FakeClock(), Counts(waiting)
    backlog = Backlog(5, counts, clock=clock)
    for _ in range(1000):
        counts.calls += 1
        backlog.take_in("read")
        clock.advance(0.001)
    return counts.looks


@pytest.mark.parametrize("waiting", [10, 45, 10_000])
def test_while_calls_are_turned_away_there_are_forty_looks_a_second(waiting: int) -> None:
    assert 35 < looks_in_a_second(waiting) <= 45


def test_while_as_many_wait_as_may_there_are_at_most_a_hundred_looks_a_second() -> None:
    assert 80 < looks_in_a_second(waiting=5) <= 100


def test_few_calls_are_taken_in_without_a_look() -> None:
    counts = Counts(100)
    backlog = Backlog(5, counts, clock=FakeClock())
    assert [False] * 4 == [backlog.take_in("read") for _ in range(4)]
    assert 0 == counts.looks


@pytest.mark.parametrize(("others", "looks"), [(0, 10), (4, 125)])
def test_while_few_wait_a_look_is_shared_by_a_hundred_calls(others: int, looks: int) -> None:
    """Also of callers that come one after the other: it cannot be seen whether others wait."""
    clock, counts = FakeClock(), Counts(0)
    backlog = Backlog(8, counts, clock=clock)
    for _ in range(1000):
        counts.calls = others + 1
        taken_in(backlog, clock, "read")
        backlog.let_go()
    assert looks == counts.looks


def test_a_class_that_is_taken_in_less_often_than_another_is_not_late() -> None:
    clock = FakeClock()
    backlog = Backlog(5, Counts(MANY), clock=clock)
    mixed = ["start", "read", "start", "start"] * 5
    taken_in(backlog, clock, *mixed)
    assert ["start", "start", "start"] * 5 == [
        class_ for class_, late in zip(mixed, taken_in(backlog, clock, *mixed), strict=True) if late
    ]


@pytest.mark.parametrize(("waits", "late"), [(1, True), (5, False), (50, False)])
def test_while_many_are_of_a_spared_class_none_is_late(waits: int, late: bool) -> None:
    """Four readers beside a flood of waits do not come back: that would help nobody."""
    clock = FakeClock()
    backlog = Backlog(5, Counts(MANY), ["wait"], clock)
    calls = ["read"] * 12 + ["wait"] * waits
    taken_in(backlog, clock, *calls)
    told = taken_in(backlog, clock, *calls)
    assert [late] * 12 + [False] * waits == told


def test_classes_that_are_taken_in_alike_often_are_late_alike() -> None:
    clock = FakeClock()
    backlog = Backlog(5, Counts(MANY), clock=clock)
    taken_in(backlog, clock, *["start", "read"] * 10)
    assert [True] * 20 == taken_in(backlog, clock, *["start", "read"] * 10)


def test_nothing_is_late_once_few_wait() -> None:
    clock, counts = FakeClock(), Counts(MANY)
    backlog = Backlog(5, counts, clock=clock)
    taken_in(backlog, clock, *["read"] * 10)
    assert [True] * 10 == taken_in(backlog, clock, *["read"] * 10)
    counts.calls = 26  # and the 21st is taken in
    clock.advance(0.05)
    assert [False] == taken_in(backlog, clock, "read")


def test_what_was_seen_a_while_ago_turns_nobody_away() -> None:
    """Who comes first after a flood is not refused for it, be it an hour later."""
    clock = FakeClock()
    backlog = Backlog(5, Counts(MANY), clock=clock)
    taken_in(backlog, clock, *["read"] * 10)
    assert [True] * 10 == taken_in(backlog, clock, *["read"] * 10)
    assert backlog.is_late("read")
    clock.advance(0.03)
    assert not backlog.is_late("read")


def test_what_has_ended_is_in_nobodys_hands() -> None:
    clock, counts = FakeClock(), Counts(0)
    backlog = Backlog(5, counts, clock=clock)
    taken_in(backlog, clock, *["read"] * 20)
    for _ in range(10):
        backlog.let_go()
        backlog.let_go_early()
    counts.calls = 100  # as many would be in our hands
    taken_in(backlog, clock, *["read"] * 90)
    counts.calls = 200
    assert [True] * 5 == taken_in(backlog, clock, *["read"] * 5)


class Server:
    """Serves a call in a millisecond; `refusing` is what it takes to refuse one, of that."""

    def __init__(self, refusing: float) -> None:
        self._clock, self._counts, self._refusing = FakeClock(), Counts(0), refusing
        draw = random.Random(7).random  # noqa: S311  # lots of a test
        self._backlog = Backlog(24, self._counts, clock=self._clock, draw=draw)
        self._queue: deque[float] = deque()
        """When the calls that wait came."""
        self._next = self._clock.monotonic()

    def go_on(self, seconds: float, a_second: float) -> list[float | None]:
        """Milliseconds that each call waited, None if it was refused; so many come a second."""
        told: list[float | None] = []
        end = self._clock.monotonic() + seconds
        while (now := self._clock.monotonic()) < end:
            while self._next <= now:
                self._queue.append(self._next)
                self._next += 1 / a_second
            if not self._queue:
                self._clock.advance(self._next - now)
                continue
            self._counts.calls = len(self._queue)
            is_late = self._backlog.take_in("read")
            self._backlog.let_go()
            told.append(None if is_late else 1000 * (now - self._queue.popleft()))
            if is_late:
                self._queue.popleft()
            self._clock.advance(0.001 * (self._refusing if is_late else 1.0))
        return told


def refused_in_a_row(told: list[float | None]) -> int:
    """The most calls that were refused one after the other."""
    return max(
        (len(list(run)) for late, run in groupby(told, lambda one: one is None) if late), default=0
    )


@pytest.mark.parametrize("refusing", [0.1, 0.25, 0.4])
def test_just_as_many_are_turned_away_as_it_takes_to_keep_up(refusing: float) -> None:
    """Of twice the calls that can be served; those that are have not waited for all the others."""
    server = Server(refusing)
    server.go_on(1, a_second=2000)
    told = server.go_on(4, a_second=2000)
    waited = [one for one in told if one is not None]
    assert (1000 * (1 - 2 * refusing) / (1 - refusing)) == pytest.approx(len(waited) / 4, rel=0.1)
    assert median(waited) < 24
    assert refused_in_a_row(told) < 100


def test_none_is_turned_away_once_all_can_be_served() -> None:
    server = Server(0.3)
    assert None in server.go_on(1, a_second=2000)
    server.go_on(0.2, a_second=800)
    assert None not in server.go_on(1, a_second=800)


def test_a_burst_that_is_over_soon_is_served() -> None:
    server = Server(0.3)
    server.go_on(0.5, a_second=100)
    server.go_on(0.02, a_second=2500)
    assert None not in server.go_on(0.5, a_second=100)
