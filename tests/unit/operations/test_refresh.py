from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.operations.flights import FULL_TIMEOUT, PAGE
from shared.operations.live import LiveOperation
from shared.operations.model import Progress
from shared.operations.refresh import Refreshed
from shared.operations.source import BridgeSource
from shared.rpc.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KtrdrError,
)
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource, ReadCall
from tests.unit.operations.fakes import Worker, metric, record, steps
from tests.unit.operations.refreshing import Refreshing


@pytest.fixture
def source() -> FakeRemoteSource:
    return FakeRemoteSource()


@pytest.fixture
def its() -> Refreshing:
    return Refreshing()


def log_of(live: LiveOperation) -> list[int]:
    return steps(live.state(0, 10**6).metrics)


# -------------------------------------------------------------------- staleness


def test_what_is_young_enough_is_not_read(its: Refreshing, source: FakeRemoteSource) -> None:
    live = its.at(source)
    assert its.read(live) == Refreshed(cached=False)
    its.clock.advance(1.0)

    assert its.read(live) == Refreshed(cached=True)
    assert 1 == len(source.calls)


def test_what_is_too_old_is_read(its: Refreshing, source: FakeRemoteSource) -> None:
    live = its.at(source)
    its.read(live)
    its.clock.advance(1.001)

    assert its.read(live) == Refreshed(cached=False)
    assert 2 == len(source.calls)


def test_a_forced_read_reads_whatever_is_known(its: Refreshing, source: FakeRemoteSource) -> None:
    live = its.at(source)
    its.read(live)

    assert its.read(live, 0.0) == Refreshed(cached=False)
    assert 2 == len(source.calls)


def test_a_miss_asks_the_owner_for_half_its_bound(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    its.read(live, 3.0)
    its.read(live, 0.0)

    assert [ReadCall(0, PAGE, 1.5, FULL_TIMEOUT), ReadCall(0, PAGE, 0.0, FULL_TIMEOUT)] == (
        source.calls
    )


def test_the_age_counts_from_when_the_request_was_sent(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    source.age = 0.25
    sent_at = its.clock.monotonic()
    source.after_read = lambda: its.clock.advance(0.5)

    its.read(live)

    assert sent_at - 0.25 == live.observed_at


def test_the_age_of_an_answer_that_was_asked_for_later_counts_from_then(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    """As after a start that had to be repeated first."""
    live = its.at(source)
    source.script.append(source.reading(0)._replace(age=0.25, asked_after=2.0))
    sent_at = its.clock.monotonic()
    source.after_read = lambda: its.clock.advance(2.5)

    assert None is its.read(live).error
    assert sent_at + 2.0 - 0.25 == live.observed_at


@given(
    age=st.floats(0, 3),
    transit=st.floats(0, 3),
    staleness=st.floats(0.01, 3),
    known=st.none() | st.floats(0, 3),
)
def test_an_answer_is_within_its_bound_or_says_why_not(
    age: float, transit: float, staleness: float, known: float | None
) -> None:
    its, source = Refreshing(), FakeRemoteSource()
    live = its.at(source)
    if known is not None:
        its.read(live)
        its.clock.advance(known)
    source.age = age
    source.after_read = lambda: its.clock.advance(transit)

    refreshed = its.read(live, staleness)

    within = its.clock.monotonic() - live.observed_at <= staleness + 1e-9
    assert within or isinstance(refreshed.error, HostTimeoutError)


def test_those_who_shared_a_slow_flight_are_told_that_it_was(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    first = its.in_flight(live, source)
    second = its.background(live)
    eventually(lambda: its.waiting_for(source) == 2)
    its.clock.advance(1.5)
    source.gate.set()

    for each in (first, second):
        refreshed = each.result()
        assert isinstance(refreshed, Refreshed)
        assert isinstance(refreshed.error, HostTimeoutError)
    assert 1 == len(source.calls)


def test_what_has_no_source_yet_is_as_known(its: Refreshing) -> None:
    live = LiveOperation(record(), 0.0)

    assert its.read(live, 0.0) == Refreshed(cached=True)


def test_a_bridge_is_read_without_a_bound_on_readers() -> None:
    its, worker = Refreshing(max_waiters=0), Worker()
    live = LiveOperation(record(), 0.0)
    live.source = BridgeSource(worker.bridge)
    worker.measure(1, 2)

    assert its.read(live, 0.0, within=0.0) == Refreshed(cached=False)
    assert [1, 2] == log_of(live)


# ---------------------------------------------------------------- single flight


def test_callers_share_the_flight(its: Refreshing, source: FakeRemoteSource) -> None:
    live = its.at(source)
    first = its.in_flight(live, source)
    others = [its.background(live) for _ in range(3)]
    eventually(lambda: its.waiting_for(source) == 4)
    source.gate.set()

    assert [Refreshed(cached=False)] * 4 == [each.result() for each in (first, *others)]
    assert 1 == len(source.calls)
    assert (None, 0) == (live.flight, its.waiting_for(source))


def test_forced_callers_that_come_during_a_flight_share_one_next_flight(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    first = its.in_flight(live, source)
    source.log.append(metric(1))
    forced = [its.background(live, 0.0) for _ in range(3)]
    eventually(lambda: its.waiting_for(source) == 4)
    source.gate.set()

    assert [Refreshed(cached=False)] * 4 == [each.result() for each in (first, *forced)]
    assert [0.5, 0.0] == [call.max_staleness for call in source.calls]


def test_a_forced_caller_is_not_served_by_a_flight_that_may_bring_a_cached_answer(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    """It asked before the flight was sent, but the owner may answer from its cache."""
    live = its.at(source)
    live.flights_begun = 1
    source.age = 0.4
    asked_after = live.flights_begun
    its.read(live, 1.0)

    assert live.landed <= asked_after


def test_a_flight_of_a_bridge_serves_forced_callers_too(its: Refreshing) -> None:
    live = LiveOperation(record(), 0.0)
    live.source = BridgeSource(Worker().bridge)
    its.read(live, 1.0)

    assert 1 == live.landed


def test_a_forced_caller_does_not_take_the_failure_of_a_flight_from_before_it_asked(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    first = its.in_flight(live, source)
    its.clock.advance(0.1)
    forced = its.background(live, 0.0)
    eventually(lambda: its.waiting_for(source) == 2)
    source.script.append(HostUnreachableError("down"))
    source.gate.set()

    failed = first.result()
    assert isinstance(failed, Refreshed)
    assert isinstance(failed.error, HostUnreachableError)
    assert Refreshed(cached=False) == forced.result()


def test_forced_callers_share_the_failure_of_their_flight(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    first = its.in_flight(live, source)
    forced = [its.background(live, 0.0) for _ in range(3)]
    eventually(lambda: its.waiting_for(source) == 4)
    source.script.append(source.reading(0))
    source.after_read = source.gate.clear
    source.gate.set()
    assert Refreshed(cached=False) == first.result()
    source.error = HostUnreachableError("down")
    eventually(lambda: its.sharing(live) == 2)
    source.gate.set()

    for each in forced:
        failed = each.result()
        assert isinstance(failed, Refreshed)
        assert source.error is failed.error
    assert 2 == len(source.calls)


def test_a_caller_out_of_time_leaves_the_flight_alone(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    first = its.in_flight(live, source)
    hurried = its.read(live, within=0.06)

    assert isinstance(hurried.error, HostTimeoutError)
    source.gate.set()
    assert Refreshed(cached=False) == first.result()
    assert its.read(live) == Refreshed(cached=True)


def test_an_error_that_was_not_foreseen_ends_the_flight(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    live = its.at(source)
    source.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        its.read(live)
    assert (None, 0) == (live.flight, its.waiting_for(source))

    source.error = None
    assert its.read(live) == Refreshed(cached=False)


# ------------------------------------------------------------------------- logs


def test_a_refresh_logs_its_cursor_step_and_a_hit_its_age(
    its: Refreshing, source: FakeRemoteSource, caplog: pytest.LogCaptureFixture
) -> None:
    live = its.at(source)
    source.log, source.progress = [metric(1), metric(2)], Progress(1)
    with caplog.at_level(logging.DEBUG, "ktrdr.operations"):
        its.read(live)
        its.clock.advance(0.25)
        its.read(live)

    assert [
        "Refreshed operation op from remote (cursor 0 → 2)",
        "Cache hit for operation op (age=0.250s)",
    ] == caplog.messages


def test_what_was_never_read_is_no_cache_hit(
    its: Refreshing, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "ktrdr.operations"):
        its.read(LiveOperation(record(), 0.0))

    assert [] == caplog.messages


def test_a_failure_is_a_domain_error(its: Refreshing, source: FakeRemoteSource) -> None:
    source.error = KtrdrError("odd")

    assert source.error is its.read(its.at(source)).error
