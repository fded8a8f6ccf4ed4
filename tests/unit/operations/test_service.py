from __future__ import annotations

import logging
from math import inf

import pytest

from shared.operations.live_state import LiveState
from shared.operations.model import FreshnessSource, OperationStatus
from shared.rpc.errors import (
    CursorOutOfRangeError,
    FailedPreconditionError,
    HostUnreachableError,
    OperationNotFoundError,
    RefreshBusyError,
    ResourceExhaustedError,
    StoreUnavailableError,
    UnavailableError,
)
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import (
    RESULT,
    FakeLaunch,
    Setup,
    Worker,
    metric,
    new_operation,
    operation,
    steps,
)

S = OperationStatus


@pytest.fixture
def setup() -> Setup:
    return Setup()


# ---------------------------------------------------------------------- reading


def test_register_local_bridge(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    with caplog.at_level(logging.INFO, "ktrdr.operations"):
        setup.service.start_operation(
            new_operation(), FakeLaunch(setup.service, bridge=worker.bridge)
        )
    worker.report(10, "registered")

    assert ["Registered local bridge for operation op"] == caplog.messages
    progress = setup.service.get_operation("op", max_staleness=0.0).operation.progress
    assert progress is not None
    assert "registered" == progress.message


def test_a_bridge_of_an_unknown_operation_is_refused(setup: Setup) -> None:
    with pytest.raises(OperationNotFoundError):
        setup.service.register_local_bridge("unknown", Worker().bridge)


def test_refresh_from_bridge_updates_operation(setup: Setup) -> None:
    worker = setup.running()
    worker.report(42, "half way", phase="training", current_step=3)
    worker.measure(1, 2)

    kept = setup.service.get_operation("op").operation

    assert kept.progress is not None
    assert (42, "half way", "training", 3, 2) == (
        kept.progress.percentage,
        kept.progress.message,
        kept.progress.phase,
        kept.progress.current_step,
        kept.metrics_count,
    )
    assert kept.progress.update_time == kept.update_time


def test_get_operation_pulls_from_bridge(setup: Setup) -> None:
    worker = setup.running()
    for percentage in (10, 20):
        worker.report(percentage, "")
        setup.clock.advance(2)
        view = setup.service.get_operation("op")
        assert view.operation.progress is not None
        assert percentage == view.operation.progress.percentage
        assert (FreshnessSource.BRIDGE, False, 0.0) == (
            view.freshness.source,
            view.freshness.cached,
            view.freshness.age,
        )
        assert view.liveness is not None
        assert view.liveness.worker_alive


def test_nothing_is_read_while_nobody_asks(setup: Setup) -> None:
    source = FakeRemoteSource()
    setup.remote(source)
    setup.clock.advance(3600)

    assert [] == source.calls


def test_immutable_operations_never_refresh(setup: Setup) -> None:
    worker = setup.running()
    worker.report(50, "before")
    worker.measure(1)
    setup.service.complete_operation("op", RESULT)
    before = setup.service.get_operation("op")
    worker.report(99, "after")
    worker.measure(2)
    setup.clock.advance(100)

    for staleness in (None, 0.0, 0.5):
        assert before == setup.service.get_operation("op", max_staleness=staleness)
    assert (1, FreshnessSource.RECORD) == (
        before.operation.metrics_count,
        before.freshness.source,
    )


def test_metrics_cursor_increments(setup: Setup) -> None:
    worker = setup.running()
    cursor, seen = 0, []
    for step in range(1, 6):
        worker.measure(2 * step - 1, 2 * step)
        setup.clock.advance(2)
        view = setup.service.get_metrics("op", cursor, 100)
        assert [2 * step - 1, 2 * step] == steps(view.metrics)
        cursor += len(view.metrics)
        seen.append(cursor)

    assert [2, 4, 6, 8, 10] == seen
    assert () == setup.service.get_metrics("op", cursor, 100).metrics


def test_cache_prevents_redundant_refresh(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    worker = setup.running()
    worker.report(10, "")
    setup.service.get_operation("op")
    worker.report(20, "")
    setup.clock.advance(0.5)
    with caplog.at_level(logging.DEBUG, "ktrdr.operations"):
        view = setup.service.get_operation("op")

    assert view.operation.progress is not None
    assert 10 == view.operation.progress.percentage
    assert (True, 0.5) == (view.freshness.cached, view.freshness.age)
    assert ["Cache hit for operation op (age=0.500s)"] == caplog.messages


def test_force_refresh_bypasses_cache(setup: Setup) -> None:
    worker = setup.running()
    worker.report(10, "")
    setup.service.get_operation("op")
    worker.report(20, "")

    view = setup.service.get_operation("op", max_staleness=0.0)

    assert view.operation.progress is not None
    assert (20, False) == (view.operation.progress.percentage, view.freshness.cached)


@pytest.mark.parametrize(("ttl", "later", "cached"), [(2.0, 1.9, True), (0.2, 0.3, False)])
def test_cache_respects_ttl(ttl: float, later: float, cached: bool) -> None:
    setup = Setup(cache_ttl=ttl)
    setup.running()
    setup.service.get_operation("op")
    setup.clock.advance(later)

    assert cached == setup.service.get_operation("op").freshness.cached


def test_without_a_cache_every_read_reads() -> None:
    setup = Setup(cache_ttl=0.0)
    setup.running()

    assert not setup.service.get_operation("op").freshness.cached
    assert not setup.service.get_operation("op").freshness.cached


def test_an_unknown_operation_is_not_found(setup: Setup) -> None:
    with pytest.raises(OperationNotFoundError):
        setup.service.get_operation("unknown")
    with pytest.raises(OperationNotFoundError):
        setup.service.get_metrics("unknown", 0, 10)
    with pytest.raises(OperationNotFoundError):
        setup.service.cancel_operation("unknown")


def test_a_cursor_past_the_end_is_confirmed_by_a_read_first(setup: Setup) -> None:
    worker = setup.running()
    setup.service.get_operation("op")
    worker.measure(1, 2)

    assert [] == steps(setup.service.get_metrics("op", 2, 10).metrics)
    with pytest.raises(CursorOutOfRangeError) as error:
        setup.service.get_metrics("op", 3, 10)
    assert {"cursor": "3", "metrics_count": "2"} == error.value.metadata


def test_a_cursor_past_the_end_of_what_has_ended_is_out_of_range(setup: Setup) -> None:
    setup.running().measure(1)
    setup.service.complete_operation("op", RESULT)

    assert [1] == steps(setup.service.get_metrics("op", 0, 10).metrics)
    with pytest.raises(CursorOutOfRangeError):
        setup.service.get_metrics("op", 2, 10)


def test_a_snapshot_takes_a_cursor_past_the_end(setup: Setup) -> None:
    setup.running().measure(1)

    view = setup.service.get_operation("op", metrics_cursor=9, metrics_limit=10)

    assert ((), 1) == (view.metrics, view.operation.metrics_count)


# -------------------------------------------------------------- strict and best


def test_a_host_that_is_down_is_said_in_the_answer(setup: Setup) -> None:
    setup.remote(FakeRemoteSource(error=HostUnreachableError("down")))

    view = setup.service.get_operation("op")

    assert view.freshness.refresh_error is not None
    assert "HOST_UNREACHABLE" == view.freshness.refresh_error.reason
    assert 10.0 == view.freshness.age


@pytest.mark.parametrize("staleness", [0.0, 0.5])
def test_a_strict_read_of_a_host_that_is_down_fails(setup: Setup, staleness: float) -> None:
    setup.remote(FakeRemoteSource(error=HostUnreachableError("down")))

    with pytest.raises(HostUnreachableError):
        setup.service.get_operation("op", max_staleness=staleness)


@pytest.mark.parametrize(
    "error", [ResourceExhaustedError("full", retry_after=3.0), FailedPreconditionError("loop")]
)
def test_a_strict_read_that_fails_is_unavailable_whatever_the_owner_says(
    setup: Setup, error: Exception
) -> None:
    setup.remote(FakeRemoteSource(error=error))

    with pytest.raises(UnavailableError) as raised:
        setup.service.get_operation("op", max_staleness=0.0)

    assert getattr(error, "reason", None) == raised.value.reason
    assert getattr(error, "retry_after", 1.0) == raised.value.retry_after


def test_a_strict_read_of_a_crowded_host_says_when_to_return() -> None:
    setup = Setup(refresh_waiters=0)
    setup.remote(FakeRemoteSource())

    with pytest.raises(RefreshBusyError) as busy:
        setup.service.get_operation("op", max_staleness=0.0)
    assert busy.value.retry_after > 0
    view = setup.service.get_operation("op")
    assert view.freshness.refresh_error is not None
    assert "REFRESH_BUSY" == view.freshness.refresh_error.reason


def test_a_strict_bound_is_met_by_what_is_young_enough(setup: Setup) -> None:
    source = FakeRemoteSource()
    setup.remote(source)
    setup.service.get_operation("op")
    source.error = HostUnreachableError("down")
    setup.clock.advance(0.4)

    assert setup.service.get_operation("op", max_staleness=0.5).freshness.cached


# ------------------------------------------------------------------ work elsewhere


def test_an_owners_end_is_taken_over_with_all_its_metrics(setup: Setup) -> None:
    source = FakeRemoteSource(
        operation=operation(status=S.COMPLETED, result=RESULT),
        log=[metric(step) for step in range(1, 2501)],
    )
    setup.remote(source)

    view = setup.service.get_operation("op", metrics_limit=5000)

    assert (S.COMPLETED, RESULT, 2500) == (
        view.operation.status,
        view.operation.result,
        len(view.metrics),
    )
    assert "op" == view.operation.operation_id
    setup.clock.advance(100)
    calls = len(source.calls)
    assert S.COMPLETED is setup.status()
    assert calls == len(source.calls)


def test_an_owner_that_fails_between_pages_keeps_the_operation_open(setup: Setup) -> None:
    done = operation(status=S.FAILED)
    source = FakeRemoteSource(operation=done, log=[metric(step) for step in range(1, 5)], page=2)
    setup.remote(source)
    source.script.extend([source.reading(0), HostUnreachableError("gone")])

    view = setup.service.get_operation("op", metrics_limit=10)
    assert (S.PENDING, [1, 2]) == (view.operation.status, steps(view.metrics))
    assert view.freshness.refresh_error is not None

    setup.clock.advance(2)
    view = setup.service.get_operation("op", metrics_limit=10)
    assert (S.FAILED, [1, 2, 3, 4]) == (view.operation.status, steps(view.metrics))


def test_an_owners_end_that_cannot_be_stored_stays_open(setup: Setup) -> None:
    setup.remote(FakeRemoteSource(operation=operation(status=S.COMPLETED, result=RESULT)))
    setup.store.away = True
    view = setup.service.get_operation("op")
    assert S.PENDING is view.operation.status
    assert view.freshness.refresh_error is not None
    assert "STORE_UNAVAILABLE" == view.freshness.refresh_error.reason

    setup.store.away = False
    setup.clock.advance(2)
    assert S.COMPLETED is setup.status()


def test_of_what_is_being_started_nobody_knows_more_than_its_record(setup: Setup) -> None:
    setup.unread()
    setup.clock.advance(10)

    view = setup.service.get_operation("op", max_staleness=0.5)

    assert (S.PENDING, FreshnessSource.RECORD) == (view.operation.status, view.freshness.source)
    assert [0.0, 0.0] == [view.freshness.age, view.freshness.path[0].age]


def test_an_error_of_the_store_is_only_the_stores(setup: Setup) -> None:
    setup.store.away = True
    with pytest.raises(StoreUnavailableError):
        setup.unread()


def test_an_age_is_never_negative_though_a_read_lands_while_one_is_answered(setup: Setup) -> None:
    setup.running()
    live = setup.service._registry._live["op"]
    copy = live.state

    def landing(cursor: int, limit: int) -> LiveState:
        setup.clock.advance(1.0)
        setup.service._reader.refresh(live, 0.0, inf)  # another caller's, as it were
        return copy(cursor, limit)

    live.state = landing  # type: ignore[method-assign]  # stands for another thread
    view = setup.service.get_operation("op")

    assert view.freshness.age >= 0
    assert all(hop.age >= 0 for hop in view.freshness.path)
