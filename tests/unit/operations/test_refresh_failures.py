from __future__ import annotations

from math import inf

import pytest

from shared.operations.live import LiveOperation
from shared.operations.refresh import Refreshed
from shared.rpc.errors import (
    HostTimeoutError,
    HostUnreachableError,
    NotFoundError,
    RefreshBusyError,
)
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource, timed_out
from tests.unit.operations.fakes import steps
from tests.unit.operations.refreshing import Refreshing


@pytest.fixture
def source() -> FakeRemoteSource:
    return FakeRemoteSource()


@pytest.fixture
def its() -> Refreshing:
    return Refreshing()


def log_of(live: LiveOperation) -> list[int]:
    return steps(live.state(0, 10**6).metrics)


# --------------------------------------------------------------------- failures


def test_a_failure_is_shared_by_those_who_wait(its: Refreshing, source: FakeRemoteSource) -> None:
    live = its.at(source)
    first = its.in_flight(live, source)
    second = its.background(live)
    eventually(lambda: its.waiting_for(source) == 2)
    source.error = HostUnreachableError("down")
    source.gate.set()

    assert [source.error] * 2 == [
        each.error for each in (first.result(), second.result()) if isinstance(each, Refreshed)
    ]
    assert 1 == len(source.calls)


def test_a_dead_host_costs_one_try_whatever_runs_there(its: Refreshing) -> None:
    sources = [FakeRemoteSource(error=HostUnreachableError("down")) for _ in range(5)]
    errors = [its.read(its.at(source, f"op-{index}")).error for index, source in enumerate(sources)]

    assert [sources[0].error] * 5 == errors
    assert 1 == sum(len(source.calls) for source in sources)


def test_another_host_is_not_blamed(its: Refreshing, source: FakeRemoteSource) -> None:
    source.error = HostUnreachableError("down")
    its.read(its.at(source))

    assert its.read(its.at(FakeRemoteSource(target="other:1"), "other")) == Refreshed(cached=False)


@pytest.mark.parametrize(("ttl", "seconds"), [(0.1, 1.0), (3.0, 3.0)])
def test_a_failure_is_remembered_for_the_ttl_but_at_least_a_second(
    ttl: float, seconds: float, source: FakeRemoteSource
) -> None:
    its = Refreshing(ttl=ttl)
    live = its.at(source)
    source.error = HostUnreachableError("down")
    its.read(live)
    source.error = None
    its.clock.advance(seconds - 0.01)
    assert its.read(live).error is not None
    its.clock.advance(0.01)

    assert its.read(live) == Refreshed(cached=False)


def test_a_forced_read_ignores_failures_from_before_it_asked(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    source.error = HostUnreachableError("down")
    its.read(live)
    its.clock.advance(0.1)
    source.error = None

    assert its.read(live, 0.0) == Refreshed(cached=False)


def test_a_host_that_answers_again_is_forgiven_at_once(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live, other = its.at(source), its.at(FakeRemoteSource(), "other")
    source.error = HostUnreachableError("down")
    its.read(live)
    its.clock.advance(0.1)
    source.error = None
    its.read(live, 0.0)

    assert its.read(other) == Refreshed(cached=False)


def test_what_is_fresh_stays_so_when_the_host_fails_meanwhile(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    """One who waited for a flight that landed is not told of another's failure."""
    live, other = its.at(source), its.at(FakeRemoteSource(), "other")
    failing = other.source
    assert isinstance(failing, FakeRemoteSource)
    failing.error = HostUnreachableError("down")
    first = its.in_flight(live, source)
    second = its.background(live)
    eventually(lambda: its.waiting_for(source) == 2)
    flight = live.flight
    assert flight is not None
    # The failure comes after the flight has landed, before the second looks.
    with live.lock:
        source.gate.set()
        failure = its.background(other)
        failure.result()

    assert Refreshed(cached=False) == first.result()
    assert Refreshed(cached=False) == second.result()


def test_other_errors_are_of_the_operation_alone(its: Refreshing, source: FakeRemoteSource) -> None:
    live, other = its.at(source), its.at(FakeRemoteSource(), "other")
    source.error = NotFoundError("gone", reason="WRONG_HOST")
    its.read(live)

    assert source.error is its.read(live).error
    assert 1 == len(source.calls)
    assert its.read(other) == Refreshed(cached=False)


def test_a_short_deadline_is_no_failure_of_the_host(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    source.error = timed_out()
    assert source.error is its.read(live, within=1.0).error
    source.error = None

    assert its.read(live) == Refreshed(cached=False)


def test_a_flight_begun_late_is_no_failure_of_the_host(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    """A patient caller that spent its time waiting leads with what is left of it."""
    live = its.at(source)
    hurried = its.in_flight(live, source, 0.5)
    patient = its.background(live, 0.0)
    eventually(lambda: its.waiting_for(source) == 2)
    source.script.extend([source.reading(0), timed_out()])
    its.clock.advance(4.9)
    source.gate.set()

    hurried.result()
    refreshed = patient.result()
    assert isinstance(refreshed, Refreshed)
    assert isinstance(refreshed.error, HostTimeoutError)
    assert pytest.approx(0.1) == source.calls[-1].timeout
    assert its.read(its.at(FakeRemoteSource(), "other")) == Refreshed(cached=False)


def test_a_full_timeout_is_a_failure_of_the_host(its: Refreshing, source: FakeRemoteSource) -> None:
    source.error = timed_out()
    its.read(its.at(source))

    assert source.error is its.read(its.at(FakeRemoteSource(), "other")).error


def test_after_a_short_flight_one_who_waits_becomes_the_reader(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    source.gate.clear()
    hurried = its.background(live, within=1.0)
    assert source.arrived.acquire(timeout=5)
    patient = its.background(live)
    eventually(lambda: its.waiting_for(source) == 2)
    source.script.append(timed_out())
    source.gate.set()

    refreshed = hurried.result()
    assert isinstance(refreshed, Refreshed)
    assert isinstance(refreshed.error, HostTimeoutError)
    assert Refreshed(cached=False) == patient.result()
    assert 2 == len(source.calls)


@pytest.mark.parametrize(
    ("remaining", "timeout"),
    [(inf, 5.0), (100.0, 5.0), (5.0, 4.5), (1.0, 0.9), (0.2, 0.15), (0.1, 0.05)],
)
def test_a_read_leaves_the_caller_time_to_be_answered(
    its: Refreshing, source: FakeRemoteSource, remaining: float, timeout: float
) -> None:
    its.read(its.at(source), within=remaining)

    assert pytest.approx(timeout) == source.calls[0].timeout


@pytest.mark.parametrize("remaining", [0.05, 0.0, -1.0])
def test_a_caller_without_time_does_not_bother_the_host(
    its: Refreshing, source: FakeRemoteSource, remaining: float
) -> None:
    refreshed = its.read(its.at(source), within=remaining)

    assert isinstance(refreshed.error, HostTimeoutError)
    assert [] == source.calls


# --------------------------------------------------------------------- crowding


def test_so_many_may_wait_for_a_target_and_no_more() -> None:
    its, source = Refreshing(max_waiters=2), FakeRemoteSource()
    live, other = its.at(source), its.at(FakeRemoteSource(), "other")
    first = its.in_flight(live, source)
    second = its.background(live)
    eventually(lambda: its.waiting_for(source) == 2)

    for crowded in (its.read(live), its.read(other, 0.0)):
        assert isinstance(crowded.error, RefreshBusyError)
        assert crowded.cached
    assert its.read(its.at(FakeRemoteSource(target="idle:1"), "idle")) == Refreshed(cached=False)

    source.gate.set()
    first.result()
    second.result()
    assert its.read(other) == Refreshed(cached=False)
    assert not its.refresher.outages._waiting


def test_what_is_cached_needs_no_place() -> None:
    its, source = Refreshing(max_waiters=1), FakeRemoteSource()
    live, other = its.at(source), its.at(FakeRemoteSource(), "other")
    its.read(other)
    first = its.in_flight(live, source)

    assert its.read(other) == Refreshed(cached=True)
    source.gate.set()
    first.result()


def test_one_stalled_operation_does_not_hold_up_another_of_its_host(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    first = its.in_flight(its.at(source), source)

    assert its.read(its.at(FakeRemoteSource(), "other")) == Refreshed(cached=False)
    source.gate.set()
    first.result()
