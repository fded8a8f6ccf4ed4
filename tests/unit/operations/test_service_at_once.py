"""Reads that wait for nothing: what they answer, and what they leave to others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.operations.bridge import BridgeSnapshot, ProgressBridge
from shared.operations.model import OperationStatus
from shared.operations.refresh import Refresher
from shared.operations.service import OperationsService
from shared.operations.views import OperationView
from shared.rpc.errors import StoreUnavailableError
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import (
    RESULT,
    FakeLaunch,
    Setup,
    Worker,
    in_threads,
    metric,
    new_operation,
    operation,
    steps,
)

RUNNING = operation(status=OperationStatus.RUNNING)


@pytest.fixture
def its() -> Setup:
    return Setup()


def at_once(its: Setup, staleness: float | None = None, limit: int = 0) -> OperationView | None:
    return its.service.get_at_once("op", max_staleness=staleness, metrics_limit=limit)


def stored(its: Setup) -> Worker:
    """Start one whose first metric has been read and stored, longer ago than the TTL."""
    worker = its.running()
    worker.measure(1)
    its.service.get_operation("op")
    its.clock.advance(1.5)
    return worker


@pytest.mark.parametrize("staleness", [None, 0.5])
def test_what_is_known_is_answered_as_any_read_answers_it(
    its: Setup, staleness: float | None
) -> None:
    source = FakeRemoteSource(operation=RUNNING, log=[metric(1)])
    its.remote(source)
    known = its.service.get_operation("op", metrics_limit=10)
    its.clock.advance(0.4)
    view = at_once(its, staleness, 10)
    assert view == its.service.get_operation("op", max_staleness=staleness, metrics_limit=10)
    assert view is not None
    assert known.metrics == view.metrics
    assert 0.4 == pytest.approx(view.freshness.age)
    assert 1 == len(source.calls)


@pytest.mark.parametrize("staleness", [None, 0.0])
def test_a_bridge_is_read(its: Setup, staleness: float | None) -> None:
    stored(its).measure(2)
    view = at_once(its, staleness, 10)
    assert view is not None
    assert ([1, 2], 0.0) == (steps(view.metrics), view.freshness.age)
    assert not view.freshness.cached


def nobody(its: Setup) -> None:
    """An operation that is not in memory."""
    its.running("another")


def elsewhere(its: Setup) -> None:
    """One whose owner has to be asked."""
    its.remote(FakeRemoteSource(operation=RUNNING, error=AssertionError("it was asked")))


def nowhere(its: Setup) -> None:
    """One that has no source yet."""
    its.unread()


def ended(its: Setup) -> None:
    """One that stands in the store."""
    its.running()
    its.service.complete_operation("op", RESULT)


def ending(its: Setup) -> None:
    """One whose end could not be stored."""
    its.running()
    its.store.away = True
    its.service.complete_operation("op", RESULT)


def of_its_own_kind(its: Setup) -> None:
    """One whose bridge is read in a way that might wait for something."""

    class Own(ProgressBridge):
        def snapshot(self, cursor: int = 0, limit: int | None = None) -> BridgeSnapshot:
            return super().snapshot(cursor, limit)

    its.service.start_operation(new_operation(), FakeLaunch(its.service, bridge=Own()))


def with_news_to_store(its: Setup) -> None:
    """One whose progress is to be stored by its next reader."""
    its.running().report(50)


def with_a_long_log(its: Setup) -> None:
    """One with more metrics than are made messages of in no time."""
    stored(its).measure(*range(2, 102))


def with_a_longer_log(its: Setup) -> None:
    """One with more metrics than are read at once."""
    stored(its).measure(*range(2, 1502))


@pytest.mark.parametrize(
    "begin",
    [
        nobody,
        elsewhere,
        nowhere,
        ended,
        ending,
        of_its_own_kind,
        with_news_to_store,
        with_a_long_log,
        with_a_longer_log,
    ],
)
def test_what_takes_time_is_left_to_a_read_that_may_wait(
    its: Setup, begin: Callable[[Setup], None]
) -> None:
    begin(its)
    saves, finishes = its.store.saves, its.store.finishes
    assert None is at_once(its, 0.0, 10_000)
    assert (saves, finishes) == (its.store.saves, its.store.finishes)


def test_what_was_left_to_others_is_whole_for_them(its: Setup) -> None:
    with_a_longer_log(its)
    assert None is at_once(its, limit=10_000)
    view = its.service.get_operation("op", metrics_limit=10_000)
    assert list(range(1, 1502)) == steps(view.metrics)


def test_nobody_is_waited_for_who_reads_already(its: Setup) -> None:
    its.running()
    live = its.service._registry.get("op")
    assert live is not None
    assert live.source is not None
    with live.lock:
        flight, _ = its.service._refresher.flights.board(live, live.source, 0.0)
    assert None is at_once(its)
    its.service._refresher.flights.end(live, flight)
    assert None is not at_once(its)


def test_an_operation_that_ends_meanwhile_is_left_to_others(
    its: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strict reader who came after the end must see it."""
    its.running()
    refresh = Refresher.refresh_at_once

    def and_end(refresher: Refresher, *arguments: object) -> object:
        refreshed = refresh(refresher, *arguments)  # type: ignore[arg-type]  # as they came
        its.service.complete_operation("op", RESULT)
        return refreshed

    monkeypatch.setattr(Refresher, "refresh_at_once", and_end)
    assert None is at_once(its, 0.0)


def test_many_at_once_read_what_one_would(its: Setup) -> None:
    its.running().measure(1)
    seen: list[list[int]] = []

    def read(_: int) -> None:
        view = at_once(its, 0.0, 10) or its.service.get_operation("op", metrics_limit=10)
        seen.append(steps(view.metrics))

    assert [] == in_threads(8, read)
    assert [[1]] * 8 == seen


def test_once_news_is_stored_nothing_has_to_be_waited_for(its: Setup) -> None:
    with_news_to_store(its)
    assert None is at_once(its)
    its.service.get_operation("op")
    assert None is not at_once(its)


def test_a_service_without_its_store_answers_what_is_in_memory(its: Setup) -> None:
    service: OperationsService = its.service
    its.running()
    its.store.gone = True
    assert None is not at_once(its)
    with pytest.raises(StoreUnavailableError):
        service.get_operation("another")
