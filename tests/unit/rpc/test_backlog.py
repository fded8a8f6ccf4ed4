from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
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
    backlog = Backlog(5, Counts(100), clock=clock)
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


def test_grpc_is_asked_for_its_counts_at_most_a_hundred_times_a_second() -> None:
    assert 50 < looks_in_a_second(waiting=10) <= 100


def test_many_that_wait_are_taken_in_before_there_is_another_look() -> None:
    assert 20 < looks_in_a_second(waiting=45) <= 30


def test_however_many_wait_there_are_twenty_looks_a_second() -> None:
    assert 15 < looks_in_a_second(waiting=10_000) <= 25


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
    backlog = Backlog(5, Counts(100), clock=clock)
    mixed = ["start", "read", "start", "start"] * 5
    taken_in(backlog, clock, *mixed)
    assert ["start", "start", "start"] * 5 == [
        class_ for class_, late in zip(mixed, taken_in(backlog, clock, *mixed), strict=True) if late
    ]


@pytest.mark.parametrize(("waits", "late"), [(1, True), (5, False), (50, False)])
def test_while_many_are_of_a_spared_class_none_is_late(waits: int, late: bool) -> None:
    """Four readers beside a flood of waits do not come back: that would help nobody."""
    clock = FakeClock()
    backlog = Backlog(5, Counts(100), ["wait"], clock)
    calls = ["read"] * 12 + ["wait"] * waits
    taken_in(backlog, clock, *calls)
    told = taken_in(backlog, clock, *calls)
    assert [late] * 12 + [False] * waits == told


def test_classes_that_are_taken_in_alike_often_are_late_alike() -> None:
    clock = FakeClock()
    backlog = Backlog(5, Counts(100), clock=clock)
    taken_in(backlog, clock, *["start", "read"] * 10)
    assert [True] * 20 == taken_in(backlog, clock, *["start", "read"] * 10)


def test_nothing_is_late_once_few_wait() -> None:
    clock, counts = FakeClock(), Counts(100)
    backlog = Backlog(5, counts, clock=clock)
    taken_in(backlog, clock, *["read"] * 10)
    assert [True] * 10 == taken_in(backlog, clock, *["read"] * 10)
    counts.calls = 26  # and the 21st is taken in
    clock.advance(0.05)
    assert [False] == taken_in(backlog, clock, "read")


def test_what_has_ended_is_in_nobodys_hands() -> None:
    clock, counts = FakeClock(), Counts(0)
    backlog = Backlog(5, counts, clock=clock)
    taken_in(backlog, clock, *["read"] * 20)
    for _ in range(10):
        backlog.let_go()
        backlog.let_go_early()
    counts.calls = 100  # as many would be in our hands
    taken_in(backlog, clock, *["read"] * 90)
    assert [True] * 5 == taken_in(backlog, clock, *["read"] * 5)
