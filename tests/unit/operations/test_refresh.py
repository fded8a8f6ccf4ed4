from __future__ import annotations

import logging
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.operations.live import LiveOperation
from shared.operations.model import Progress
from shared.operations.refresh import FULL_TIMEOUT, PAGE, Refreshed, Refresher
from shared.operations.source import BridgeSource
from shared.rpc.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KtrdrError,
    NotFoundError,
    RefreshBusyError,
)
from tests.support.clock import FakeClock
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource, ReadCall, timed_out
from tests.unit.operations.fakes import Background, Worker, metric, record, steps

TTL = 1.0


class Refreshing:
    """A refresher on a fake clock, with operations at sources."""

    def __init__(self, max_waiters: int = 4, ttl: float = TTL) -> None:
        self.clock = FakeClock()
        self.refresher = Refresher(self.clock, ttl=ttl, max_waiters_per_target=max_waiters)

    def at(self, source: FakeRemoteSource, operation_id: str = "op") -> LiveOperation:
        live = LiveOperation(record(operation_id), self.clock.monotonic())
        live.source = source
        return live

    def read(self, live: LiveOperation, staleness: float = TTL, within: float = inf) -> Refreshed:
        deadline = self.clock.monotonic() + within
        return self.refresher.refresh(live, staleness, deadline)

    def background(
        self, live: LiveOperation, staleness: float = TTL, within: float = inf
    ) -> Background:
        return Background(lambda: self.read(live, staleness, within))

    def in_flight(
        self, live: LiveOperation, source: FakeRemoteSource, staleness: float = TTL
    ) -> Background:
        """Begin a read that stands at the source until its gate opens."""
        source.gate.clear()
        reader = self.background(live, staleness)
        assert source.arrived.acquire(timeout=5)
        return reader

    def waiting_for(self, source: FakeRemoteSource) -> int:
        assert source.target is not None
        return self.refresher._waiting[source.target]

    def sharing(self, live: LiveOperation) -> int:
        """How many wait for the flight that another leads."""
        flight = live.flight
        return 0 if flight is None else len(flight.done._cond._waiters)  # type: ignore[attr-defined]  # no public way to see it


@pytest.fixture
def source() -> FakeRemoteSource:
    return FakeRemoteSource()


@pytest.fixture
def its() -> Refreshing:
    return Refreshing()


def log_of(live: LiveOperation) -> list[int]:
    return steps(live.state(0, 10**6, 0.0).metrics)


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


# ------------------------------------------------------------------------ pages


def test_a_flight_reads_pages_until_the_log_is_here(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    source.page, source.log = 4, [metric(step) for step in range(1, 11)]
    live = its.at(source)
    its.read(live)

    assert list(range(1, 11)) == log_of(live)
    assert [0, 4, 8] == [call.cursor for call in source.calls]
    assert its.clock.monotonic() == live.observed_at


def test_a_flight_ends_with_the_log_of_its_first_answer(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    """A writer that is quicker than the reader does not keep it."""
    source.page, source.log = 2, [metric(1), metric(2), metric(3)]
    source.after_read = lambda: source.log.extend(
        [metric(len(source.log) + 1 + index) for index in range(3)]
    )
    live = its.at(source)

    assert its.read(live) == Refreshed(cached=False)
    assert 2 == len(source.calls)
    assert list(range(1, 5)) == log_of(live)


def test_a_flight_that_runs_out_of_time_keeps_its_pages_and_blames_no_host(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    source.page, source.log = 1, [metric(step) for step in range(1, 6)]
    source.after_read = lambda: its.clock.advance(2.0)
    live, other = its.at(source), its.at(FakeRemoteSource(), "other")

    refreshed = its.read(live)

    assert isinstance(refreshed.error, HostTimeoutError)
    assert [1, 2, 3] == log_of(live)
    assert -inf == live.observed_at
    assert [5.0, 3.0, 1.0] == [call.timeout for call in source.calls]
    source.after_read = None
    assert its.read(other) == Refreshed(cached=False)
    assert its.read(live) == Refreshed(cached=False)
    assert [1, 2, 3, 4, 5] == log_of(live)


def test_an_owner_that_never_continues_the_log_is_asked_once(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    source.page, source.log = 0, [metric(1)]
    refreshed = its.read(its.at(source))

    assert isinstance(refreshed.error, HostUnreachableError)
    assert 1 == len(source.calls)


def test_an_owner_with_a_shorter_log_is_read_once(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    source.log = [metric(1), metric(2)]
    live = its.at(source)
    its.read(live)
    source.log = []
    source.calls.clear()

    assert its.read(live, 0.0) == Refreshed(cached=False)
    assert 1 == len(source.calls)
    assert [1, 2] == log_of(live)


def test_an_owner_that_restarts_between_pages_ends_the_flight(
    its: Refreshing, source: FakeRemoteSource
) -> None:
    source.page, source.log = 2, [metric(step) for step in range(1, 6)]
    source.after_read = lambda: source.log.__delitem__(slice(1, None))
    live = its.at(source)

    assert its.read(live) == Refreshed(cached=False)
    assert 2 == len(source.calls)
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
    assert not its.refresher._waiting


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
