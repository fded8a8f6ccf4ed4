"""What the operations service tells whoever monitors it, and what it says of slow queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf

import pytest

from shared.operations.model import FreshnessSource, OperationStatus, OperationType
from shared.operations.monitor import UNMONITORED
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.store import OperationFilter
from shared.rpc.errors import HostUnreachableError, UnavailableError
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import ME, RESULT, FakeLaunch, Setup, new_operation, operation

T, S = OperationType.TRAINING, OperationStatus


class Notes:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: Counter[object] = Counter()
        self.durations: list[tuple[FreshnessSource, float, bool]] = []
        self.sizes: list[int] = []

    def created(self, type_: OperationType, /) -> None:
        self.told["created", type_] += 1

    def ended(self, type_: OperationType, status: OperationStatus, /) -> None:
        self.told["ended", type_, status] += 1

    def hit(self, type_: OperationType, /) -> None:
        self.told["hit", type_] += 1

    def missed(self, type_: OperationType, /) -> None:
        self.told["missed", type_] += 1

    def refreshed(self, source: FreshnessSource, seconds: float, /, *, failed: bool) -> None:
        self.durations.append((source, seconds, failed))

    def pulled(self, size: Callable[[], int], /) -> None:
        self.sizes.append(size())


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def its(notes: Notes) -> Setup:
    setup = Setup()
    setup.service = OperationsService(
        setup.store, ME, limits=OperationsLimits(), clock=setup.clock, monitor=notes
    )
    return setup


def test_an_operation_is_created_once_however_often_it_is_started(its: Setup, notes: Notes) -> None:
    for _ in range(3):
        its.service.start_operation(new_operation(), FakeLaunch(its.service))
    assert 1 == notes.told["created", T]


def test_a_start_that_is_refused_creates_nothing(its: Setup, notes: Notes) -> None:
    its.store.away = True
    with pytest.raises(UnavailableError):
        its.service.start_operation(new_operation(), FakeLaunch(its.service))
    assert 0 == notes.told["created", T]


def test_each_ending_is_told_once(its: Setup, notes: Notes) -> None:
    its.running("a")
    its.service.complete_operation("a", RESULT)
    its.running("b")
    its.service.fail_operation("b", ValueError("x"))
    its.pending("c")
    its.service.cancel_operation("c")
    its.service.complete_operation("a", RESULT)
    assert {S.COMPLETED: 1, S.FAILED: 1, S.CANCELLED: 1} == {
        status: notes.told["ended", T, status] for status in S if status.terminal
    }


def test_an_ending_that_is_only_seen_is_told(its: Setup, notes: Notes) -> None:
    ended = operation(status=S.COMPLETED, end_time=datetime(2026, 1, 2, tzinfo=UTC), result=RESULT)
    its.remote(FakeRemoteSource(operation=ended))
    assert its.status() is S.COMPLETED
    assert 1 == notes.told["ended", T, S.COMPLETED]


def test_hits_and_misses_are_told_by_type(its: Setup, notes: Notes) -> None:
    its.running()
    notes.told.clear()
    for _ in range(3):
        its.status()
    its.service.get_operation("op", max_staleness=0.0)
    assert (2, 2) == (notes.told["hit", T], notes.told["missed", T])


def test_reads_that_wait_for_nothing_are_told_alike(its: Setup, notes: Notes) -> None:
    its.running()
    notes.told.clear()
    for staleness in (0.0, None, None, 0.0):
        assert its.service.get_at_once("op", max_staleness=staleness) is not None
    assert (2, 2) == (notes.told["hit", T], notes.told["missed", T])


def test_a_read_that_is_left_to_others_is_told_once(its: Setup, notes: Notes) -> None:
    its.running().report(50.0)  # which is to be stored
    notes.told.clear()
    assert None is its.service.get_at_once("op")
    its.status()
    assert 1 == notes.told["hit", T] + notes.told["missed", T]


def test_what_has_ended_is_neither_hit_nor_miss(its: Setup, notes: Notes) -> None:
    its.running()
    its.service.complete_operation("op", RESULT)
    notes.told.clear()
    its.status()
    assert {} == notes.told


def test_a_listing_counts_each_of_its_rows(its: Setup, notes: Notes) -> None:
    its.running("a")
    its.running("b")
    notes.told.clear()
    for _ in range(2):
        its.service.list_operations(OperationFilter(), None, 10, deadline=inf)
    assert (2, 2) == (notes.told["hit", T], notes.told["missed", T])


def test_a_read_is_told_with_its_time(its: Setup, notes: Notes) -> None:
    source = FakeRemoteSource(after_read=lambda: its.clock.advance(0.25))
    its.remote(source)
    its.status()
    source.error = HostUnreachableError("down")
    its.clock.advance(10)
    its.status()
    assert [(FreshnessSource.REMOTE, 0.25, False), (FreshnessSource.REMOTE, 0.0, True)] == (
        notes.durations
    )


def test_open_operations_are_counted_when_somebody_asks(its: Setup) -> None:
    its.running("a")
    its.pending("b")
    its.running("c")
    its.service.complete_operation("c", RESULT)
    assert {(T, S.RUNNING): 1, (T, S.PENDING): 1} == its.service.open_operations()


def test_targets_that_are_away_are_named_when_somebody_asks(its: Setup) -> None:
    its.remote(FakeRemoteSource(error=HostUnreachableError("down")))
    its.status()
    assert ("host:50052",) == its.service.unreachable()


def test_nobody_behind_the_port_does_no_work() -> None:
    def size() -> int:
        raise AssertionError

    UNMONITORED.pulled(size)


# ------------------------------------------------------------------- slow queries


@pytest.mark.parametrize(("seconds", "lines"), [(0.09, 0), (0.11, 1)])
def test_a_slow_query_is_logged_with_operation_source_and_duration(
    its: Setup, caplog: pytest.LogCaptureFixture, seconds: float, lines: int
) -> None:
    its.remote(FakeRemoteSource(after_read=lambda: its.clock.advance(seconds)))
    its.status()
    assert ["Slow query: op from remote took 0.110 s"] * lines == caplog.messages
    assert ["WARNING"] * lines == [each.levelname for each in caplog.records]


def test_a_slow_query_that_fails_is_logged_as_well(
    its: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    source = FakeRemoteSource(after_read=lambda: its.clock.advance(3.0), age=1.0)
    its.remote(source)
    with pytest.raises(UnavailableError):
        its.service.get_operation("op", max_staleness=0.5)
    assert ["Slow query: op from nowhere took 3.000 s"] == caplog.messages


def test_a_slow_listing_is_logged(its: Setup, caplog: pytest.LogCaptureFixture) -> None:
    its.remote(FakeRemoteSource(after_read=lambda: its.clock.advance(0.5)))
    its.service.list_operations(OperationFilter(), None, 10, deadline=inf)
    assert ["Slow query: a page of 1 operations from all sources took 0.500 s"] == caplog.messages
