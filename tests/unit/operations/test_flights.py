from __future__ import annotations

from math import inf

import pytest

from shared.operations.flight import Flight
from shared.operations.flights import FULL_TIMEOUT, PAGE, Flights
from shared.operations.live import LiveOperation
from shared.operations.model import OperationStatus
from shared.operations.outages import Outages
from shared.operations.refresh import Refreshed
from shared.operations.source import BridgeSource, OperationSource, PendingRead
from shared.rpc.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KtrdrError,
    NotFoundError,
)
from tests.support.clock import FakeClock
from tests.support.sources import FakeRemoteSource, ReadCall, timed_out
from tests.unit.operations.fakes import DAY, Worker, metric, operation, record, steps
from tests.unit.operations.refreshing import Refreshing


class Flying:
    """Flights of one operation at one source, on a fake clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.outages = Outages(self.clock, memory=1.0, max_waiters_per_target=4)
        self.flights = Flights(self.clock, self.outages)
        self.source = FakeRemoteSource()
        self.live = LiveOperation(record(), self.clock.monotonic())
        self.live.source = self.source

    def board(
        self, staleness: float = 1.0, source: OperationSource | None = None
    ) -> tuple[Flight, bool]:
        with self.live.lock:
            return self.flights.board(self.live, source or self.source, staleness)

    def fly(
        self,
        flight: Flight,
        *,
        left: float = FULL_TIMEOUT,
        timeout: float = FULL_TIMEOUT,
        first: PendingRead | None = None,
    ) -> KtrdrError | None:
        return self.flights.fly(
            self.live, self.source, flight, left=left, timeout=timeout, first=first
        )

    @property
    def remembered(self) -> KtrdrError | None:
        return self.outages.recall(self.live, self.source, -inf)

    @property
    def log(self) -> list[int]:
        return log_of(self.live)


@pytest.fixture
def its() -> Flying:
    return Flying()


def log_of(live: LiveOperation) -> list[int]:
    return steps(live.state(0, 10**6).metrics)


# -------------------------------------------------------------------- boarding


def test_the_first_leads_a_flight_and_the_others_share_it(its: Flying) -> None:
    flight, leads = its.board()

    assert (True, 1, 1) == (leads, flight.number, its.live.flights_begun)
    assert (flight, False) == its.board(0.0)


def test_a_flight_lets_the_owner_answer_from_its_cache_for_half_the_bound(its: Flying) -> None:
    flight, _ = its.board(3.0)

    assert (1.5, its.clock.monotonic()) == (flight.staleness, flight.sent_at)


def test_a_bridge_has_no_cache_to_answer_from(its: Flying) -> None:
    flight, _ = its.board(3.0, BridgeSource(Worker().bridge))

    assert 0.0 == flight.staleness


def test_after_a_flight_comes_the_next(its: Flying) -> None:
    first, _ = its.board()
    its.flights.end(its.live, first)
    second, leads = its.board()

    assert first.done.is_set()
    assert (True, 2) == (leads, second.number)


def test_a_flight_that_ended_long_ago_ends_no_other(its: Flying) -> None:
    first, _ = its.board()
    its.flights.end(its.live, first)
    second, _ = its.board()
    its.flights.end(its.live, first)

    assert second is its.live.flight
    assert not second.done.is_set()


# ---------------------------------------------------------------------- flying


def test_a_flight_brings_the_log_and_ends(its: Flying) -> None:
    its.source.log = [metric(1), metric(2)]
    flight, _ = its.board(0.0)

    assert its.fly(flight) is None
    assert ([1, 2], 1) == (its.log, its.live.landed)
    assert (None, True, None) == (its.live.flight, flight.done.is_set(), flight.error)


def test_a_read_that_was_begun_is_the_first_of_its_flight(its: Flying) -> None:
    its.source.log = [metric(1)]
    flight, _ = its.board()
    pending = its.flights.begin(its.live, its.source, flight, 3.0)
    sent_at = its.clock.monotonic()
    its.clock.advance(0.5)

    assert its.fly(flight, first=pending) is None
    assert [ReadCall(0, PAGE, 0.5, 3.0)] == its.source.begun
    assert ([], [1]) == (its.source.calls, its.log)
    assert sent_at == its.live.observed_at


def test_a_read_that_was_begun_is_read_on_if_the_log_is_longer(its: Flying) -> None:
    its.source.log, its.source.page = [metric(1), metric(2), metric(3)], 2
    flight, _ = its.board()
    pending = its.flights.begin(its.live, its.source, flight, 3.0)

    assert its.fly(flight, first=pending) is None
    assert ([2], [1, 2, 3]) == ([call.cursor for call in its.source.calls], its.log)


def test_a_flight_of_what_has_ended_meanwhile_lands(its: Flying) -> None:
    """Another has read it to its end; what is brought now is not taken."""
    ended = operation(status=OperationStatus.CANCELLED, end_time=DAY)
    its.source.operation = ended
    its.fly(its.board()[0])
    flight, _ = its.board()
    sealed = its.live.seal()
    assert sealed is not None
    its.source.log = [metric(1)]

    assert its.fly(flight) is None
    assert [] == its.log


def test_an_owner_that_cannot_be_reached_is_remembered(its: Flying) -> None:
    its.source.error = HostUnreachableError("down")
    flight, _ = its.board()

    assert its.source.error is its.fly(flight)
    assert (its.source.error, its.source.error) == (flight.error, its.remembered)
    assert flight.done.is_set()


def test_an_answer_forgives(its: Flying) -> None:
    its.source.error = HostUnreachableError("down")
    its.fly(its.board()[0])
    its.source.error = None
    its.fly(its.board()[0])

    assert its.remembered is None


@pytest.mark.parametrize(
    ("timeout", "left", "blamed"),
    [
        (FULL_TIMEOUT, FULL_TIMEOUT, True),
        (FULL_TIMEOUT, 2.5, True),
        (FULL_TIMEOUT, 2.4, False),
        (4.9, 4.9, False),
    ],
)
def test_a_timeout_blames_the_owner_only_after_it_had_its_time(
    its: Flying, timeout: float, left: float, blamed: bool
) -> None:
    its.source.error = timed_out()
    flight, _ = its.board()

    assert its.source.error is its.fly(flight, left=left, timeout=timeout)
    assert (its.source.error if blamed else None) is its.remembered
    assert (its.source.error if blamed else None) is flight.error
    assert flight.done.is_set()


def test_a_failure_of_a_read_that_was_begun_is_the_flights(its: Flying) -> None:
    its.source.error = NotFoundError("gone")
    flight, _ = its.board()
    pending = its.flights.begin(its.live, its.source, flight, 3.0)

    assert its.source.error is its.fly(flight, first=pending)
    assert its.source.error is its.remembered


def test_whatever_is_raised_ends_the_flight(its: Flying) -> None:
    its.source.error = ZeroDivisionError()
    flight, _ = its.board()
    with pytest.raises(ZeroDivisionError):
        its.fly(flight)

    assert (None, True) == (its.live.flight, flight.done.is_set())


# ----------------------------------------------------------------------- pages


@pytest.fixture
def source() -> FakeRemoteSource:
    return FakeRemoteSource()


@pytest.fixture
def refreshing() -> Refreshing:
    return Refreshing()


def test_a_flight_reads_pages_until_the_log_is_here(
    refreshing: Refreshing, source: FakeRemoteSource
) -> None:
    source.page, source.log = 4, [metric(step) for step in range(1, 11)]
    live = refreshing.at(source)
    refreshing.read(live)

    assert list(range(1, 11)) == log_of(live)
    assert [0, 4, 8] == [call.cursor for call in source.calls]
    assert refreshing.clock.monotonic() == live.observed_at


def test_a_flight_ends_with_the_log_of_its_first_answer(
    refreshing: Refreshing, source: FakeRemoteSource
) -> None:
    """A writer that is quicker than the reader does not keep it."""
    source.page, source.log = 2, [metric(1), metric(2), metric(3)]
    source.after_read = lambda: source.log.extend(
        [metric(len(source.log) + 1 + index) for index in range(3)]
    )
    live = refreshing.at(source)

    assert refreshing.read(live) == Refreshed(cached=False)
    assert 2 == len(source.calls)
    assert list(range(1, 5)) == log_of(live)


def test_a_flight_that_runs_out_of_time_keeps_its_pages_and_blames_no_host(
    refreshing: Refreshing, source: FakeRemoteSource
) -> None:
    source.page, source.log = 1, [metric(step) for step in range(1, 6)]
    source.after_read = lambda: refreshing.clock.advance(2.0)
    live, other = refreshing.at(source), refreshing.at(FakeRemoteSource(), "other")

    refreshed = refreshing.read(live)

    assert isinstance(refreshed.error, HostTimeoutError)
    assert [1, 2, 3] == log_of(live)
    assert -inf == live.observed_at
    assert [5.0, 3.0, 1.0] == [call.timeout for call in source.calls]
    source.after_read = None
    assert refreshing.read(other) == Refreshed(cached=False)
    assert refreshing.read(live) == Refreshed(cached=False)
    assert [1, 2, 3, 4, 5] == log_of(live)


def test_an_owner_that_never_continues_the_log_is_asked_once(
    refreshing: Refreshing, source: FakeRemoteSource
) -> None:
    source.page, source.log = 0, [metric(1)]
    refreshed = refreshing.read(refreshing.at(source))

    assert isinstance(refreshed.error, HostUnreachableError)
    assert 1 == len(source.calls)


def test_an_owner_with_a_shorter_log_is_read_once(
    refreshing: Refreshing, source: FakeRemoteSource
) -> None:
    source.log = [metric(1), metric(2)]
    live = refreshing.at(source)
    refreshing.read(live)
    source.log = []
    source.calls.clear()

    assert refreshing.read(live, 0.0) == Refreshed(cached=False)
    assert 1 == len(source.calls)
    assert [1, 2] == log_of(live)


def test_an_owner_that_restarts_between_pages_ends_the_flight(
    refreshing: Refreshing, source: FakeRemoteSource
) -> None:
    source.page, source.log = 2, [metric(step) for step in range(1, 6)]
    source.after_read = lambda: source.log.__delitem__(slice(1, None))
    live = refreshing.at(source)

    assert refreshing.read(live) == Refreshed(cached=False)
    assert 2 == len(source.calls)
    assert [1, 2] == log_of(live)
