from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from shared.operations.model import FreshnessSource, OperationStatus
from shared.operations.store import OperationFilter
from shared.rpc.errors import (
    CursorOutOfRangeError,
    FailedPreconditionError,
    HostUnreachableError,
    OperationCancelledError,
    OperationNotFoundError,
    RefreshBusyError,
    ResourceExhaustedError,
    StoreUnavailableError,
    UnavailableError,
)
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import (
    RESULT,
    Background,
    FakeLaunch,
    Setup,
    Worker,
    in_threads,
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


# -------------------------------------------------------------------- lifecycle


def test_work_that_returns_completes(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    worker = setup.pending()

    def work() -> object:
        worker.measure(1)
        assert S.RUNNING is setup.status()
        return RESULT

    with caplog.at_level(logging.INFO, "ktrdr.operations"):
        setup.service.run_operation("op", work)  # type: ignore[arg-type]  # it returns RESULT

    view = setup.service.get_operation("op", metrics_limit=10)
    assert (S.COMPLETED, RESULT, None, [1]) == (
        view.operation.status,
        view.operation.result,
        view.operation.error,
        steps(view.metrics),
    )
    assert view.operation.end_time is not None
    assert "Completed operation op with results" in caplog.messages


def test_work_that_raises_fails(setup: Setup) -> None:
    worker = setup.pending()

    def work() -> object:
        worker.measure(1, 2)
        raise ValueError("shapes differ")

    setup.service.run_operation("op", work)  # type: ignore[arg-type]  # it returns nothing

    view = setup.service.get_operation("op", metrics_limit=10)
    assert (S.FAILED, [1, 2]) == (view.operation.status, steps(view.metrics))
    assert view.operation.error is not None
    assert "WORKER_RAISED" == view.operation.error.reason


def test_a_domain_error_of_the_work_keeps_its_reason(setup: Setup) -> None:
    setup.running()
    setup.service.fail_operation("op", FailedPreconditionError("few", reason="TOO_FEW_BARS"))

    error = setup.service.get_operation("op").operation.error
    assert error is not None
    assert "TOO_FEW_BARS" == error.reason


def test_an_operation_begins_once(setup: Setup) -> None:
    setup.running()

    assert not setup.service.begin_operation("op")
    assert not setup.service.begin_operation("unknown")


def test_an_operation_ends_once(setup: Setup) -> None:
    setup.running()

    assert setup.service.complete_operation("op", RESULT)
    assert not setup.service.fail_operation("op", ValueError("late"))
    assert not setup.service.complete_operation("op", replace(RESULT, value=b"other"))
    assert RESULT == setup.service.get_operation("op").operation.result


def test_of_concurrent_endings_one_wins_and_is_what_all_see() -> None:
    for _ in range(20):
        setup = Setup()
        setup.running().measure(1)
        ways = (
            lambda setup=setup: setup.service.complete_operation("op", RESULT),
            lambda setup=setup: setup.service.fail_operation("op", ValueError("no")),
            lambda setup=setup: setup.service.fail_operation("op", OperationCancelledError("no")),
        )
        won: list[bool] = []
        assert [] == in_threads(3, lambda i, ways=ways, won=won: won.append(ways[i]()))  # type: ignore[misc]  # bound now
        assert [False, False, True] == sorted(won)
        assert setup.status().terminal
        assert 1 == setup.store.finishes
        assert {} == setup.service._live


@pytest.mark.parametrize("ending", ["complete", "fail", "cancel", "stop", "raise"])
def test_every_end_drains_the_bridge_first(setup: Setup, ending: str) -> None:
    worker = setup.running()
    setup.service.get_operation("op")
    worker.measure(*range(1, 2502))  # more than two pages
    worker.report(77, "the last word")
    if ending == "complete":
        setup.service.complete_operation("op", RESULT)
    elif ending == "cancel":
        setup.service.cancel_operation("op")
        setup.service.fail_operation("op", OperationCancelledError("asked"))
    elif ending == "stop":
        setup.service.refuse_starts()
        setup.service.end_unfinished()
    else:
        error = ValueError("no") if ending == "raise" else FailedPreconditionError("no")
        setup.service.fail_operation("op", error)

    view = setup.service.get_operation("op", metrics_limit=5000)
    assert view.operation.status.terminal
    assert list(range(1, 2502)) == steps(view.metrics)
    assert view.operation.progress is not None
    assert "the last word" == view.operation.progress.message


def test_a_bridge_that_cannot_be_read_does_not_keep_its_operation_open(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = setup.running()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(worker.bridge, "snapshot", broken)

    assert setup.service.complete_operation("op", RESULT)
    assert S.COMPLETED is setup.status()


def test_nothing_terminal_is_seen_before_it_is_stored(setup: Setup) -> None:
    worker = setup.running()
    worker.measure(1)
    setup.store.finish_gate.clear()
    ending = Background(lambda: setup.service.complete_operation("op", RESULT))
    assert setup.store.finishing.wait(5)

    view = setup.service.get_operation("op", max_staleness=0.0, metrics_limit=10)
    assert (S.RUNNING, [1]) == (view.operation.status, steps(view.metrics))
    setup.store.finish_gate.set()
    assert ending.result()
    assert S.COMPLETED is setup.status()


# ------------------------------------------------------------- a store that fails


def test_a_failed_terminal_write_leaves_it_open_and_the_next_query_tries_again(
    setup: Setup,
) -> None:
    worker = setup.running()
    worker.measure(1)
    setup.store.away = True
    assert not setup.service.complete_operation("op", RESULT)

    view = setup.service.get_operation("op", metrics_limit=10)
    assert (S.RUNNING, [1]) == (view.operation.status, steps(view.metrics))
    assert view.freshness.refresh_error is not None
    assert "STORE_UNAVAILABLE" == view.freshness.refresh_error.reason

    setup.store.away = False
    view = setup.service.get_operation("op", metrics_limit=10)
    assert (S.COMPLETED, RESULT, [1], None) == (
        view.operation.status,
        view.operation.result,
        steps(view.metrics),
        view.freshness.refresh_error,
    )


def test_a_listing_also_tries_a_failed_terminal_write_again(setup: Setup) -> None:
    setup.running()
    setup.store.away = True
    setup.service.complete_operation("op", RESULT)
    setup.store.away = False

    page = setup.service.list_operations(OperationFilter(), None, 10)

    assert [S.COMPLETED] == [view.operation.status for view in page.views]


def test_what_came_after_the_last_drain_is_not_added_by_a_retry(setup: Setup) -> None:
    worker = setup.running()
    worker.measure(1)
    setup.store.away = True
    setup.service.complete_operation("op", RESULT)
    worker.measure(2)
    setup.store.away = False

    assert [1] == steps(setup.service.get_operation("op", metrics_limit=10).metrics)


def test_a_transition_that_could_not_be_stored_is_said_until_one_could(setup: Setup) -> None:
    worker = setup.pending()
    setup.store.away = True
    assert setup.service.begin_operation("op")
    view = setup.service.get_operation("op")
    assert S.RUNNING is view.operation.status
    assert view.freshness.refresh_error is not None
    assert "STORE_UNAVAILABLE" == view.freshness.refresh_error.reason

    setup.store.away = False
    setup.service.cancel_operation("op")
    view = setup.service.get_operation("op")
    assert (S.CANCELLING, None) == (view.operation.status, view.freshness.refresh_error)
    assert worker.bridge.cancel.requested


def test_concurrent_queries_retry_a_terminal_write_without_waiting_for_each_other(
    setup: Setup,
) -> None:
    setup.running()
    setup.store.away = True
    setup.service.complete_operation("op", RESULT)
    setup.store.away = False
    setup.store.finishing.clear()
    setup.store.finish_gate.clear()
    first = Background(setup.status)
    assert setup.store.finishing.wait(5)

    assert S.RUNNING is setup.status()
    setup.store.finish_gate.set()
    assert S.COMPLETED is first.result()


def test_of_two_who_store_an_end_the_second_finds_it_stored(setup: Setup) -> None:
    setup.running()
    setup.store.away = True
    setup.service.complete_operation("op", RESULT)
    setup.store.away = False
    setup.store.finishing.clear()
    setup.store.finish_gate.clear()
    live = setup.service._live["op"]
    first = Background(setup.status)
    assert setup.store.finishing.wait(5)
    second = Background(lambda: setup.service._settle(live))
    setup.store.finish_gate.set()

    assert second.result()
    assert S.COMPLETED is first.result()
    assert 2 == setup.store.finishes  # the one that failed and the one that did not


# -------------------------------------------------------------------- cancelling


def test_a_running_operation_is_cancelling_until_its_worker_stops(setup: Setup) -> None:
    worker = setup.running()

    view = setup.service.cancel_operation("op", "too slow")

    assert (S.CANCELLING, "too slow") == (view.operation.status, view.operation.cancel_reason)
    assert view.operation.cancel_time is not None
    assert (True, "too slow") == (worker.bridge.cancel.requested, worker.bridge.cancel.reason)
    with pytest.raises(OperationCancelledError):
        worker.report(1, "")
    setup.service.fail_operation("op", OperationCancelledError("too slow"))
    assert S.CANCELLED is setup.status()


def test_a_pending_operation_is_cancelled_at_once(setup: Setup) -> None:
    worker = setup.pending()

    view = setup.service.cancel_operation("op", "changed my mind")

    assert (S.CANCELLED, "changed my mind") == (view.operation.status, view.operation.cancel_reason)
    assert worker.bridge.cancel.requested
    assert not setup.service.begin_operation("op")
    setup.service.run_operation("op", lambda: pytest.fail("it must not run"))


def test_an_operation_without_a_source_is_cancelled_at_once(setup: Setup) -> None:
    setup.unread()

    assert S.CANCELLED is setup.service.cancel_operation("op").operation.status


def test_a_second_cancellation_changes_nothing(setup: Setup) -> None:
    setup.running()
    first = setup.service.cancel_operation("op", "first")
    setup.clock.advance(0.5)
    second = setup.service.cancel_operation("op", "second")

    assert first.operation == second.operation


def test_cancelling_what_has_ended_changes_nothing(setup: Setup) -> None:
    setup.running()
    setup.service.complete_operation("op", RESULT)
    before = setup.service.get_operation("op")

    assert before == setup.service.cancel_operation("op", "late")


def test_a_result_while_cancelling_wins(setup: Setup) -> None:
    setup.running()
    setup.service.cancel_operation("op", "late")
    setup.service.complete_operation("op", RESULT)

    ended = setup.service.get_operation("op").operation
    assert (S.COMPLETED, RESULT, "late") == (ended.status, ended.result, ended.cancel_reason)


def test_any_exception_while_cancelling_ends_cancelled_with_its_cause(setup: Setup) -> None:
    setup.running()
    setup.service.cancel_operation("op")
    setup.service.fail_operation("op", ValueError("torn down"))

    ended = setup.service.get_operation("op").operation
    assert S.CANCELLED is ended.status
    assert ended.error is not None
    assert "WORKER_RAISED" == ended.error.metadata["cause_reason"]
    assert "torn down" in ended.error.metadata["cause_message"]


def test_a_cancellation_racing_with_begin_never_runs_what_it_ended() -> None:
    for _ in range(50):
        setup = Setup()
        setup.pending()
        began: list[bool] = []
        act = (
            lambda setup=setup: setup.service.cancel_operation("op"),
            lambda setup=setup, began=began: began.append(setup.service.begin_operation("op")),
        )
        assert [] == in_threads(2, lambda index, act=act: act[index]())  # type: ignore[misc]  # bound now
        assert setup.status() is (S.CANCELLING if began[0] else S.CANCELLED)


def test_a_cancellation_racing_with_an_end_leaves_one_end() -> None:
    for turn in range(50):
        setup = Setup()
        setup.running()
        error = ValueError("no") if turn % 2 else None

        def end(setup: Setup = setup, error: Exception | None = error) -> None:
            if error is None:
                setup.service.complete_operation("op", RESULT)
            else:
                setup.service.fail_operation("op", error)

        act = (end, lambda setup=setup: setup.service.cancel_operation("op"))
        assert [] == in_threads(2, lambda index, act=act: act[index]())  # type: ignore[misc]  # bound now
        assert setup.status() in ({S.COMPLETED} if error is None else {S.FAILED, S.CANCELLED})
        assert {} == setup.service._live


def test_an_owner_that_cannot_be_told_changes_nothing(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    setup.remote(source)
    setup.service.get_operation("op")
    source.cancel_error = HostUnreachableError("down")

    with pytest.raises(HostUnreachableError):
        setup.service.cancel_operation("op", "try")

    assert S.RUNNING is setup.status()
    source.cancel_error = None
    assert S.CANCELLING is setup.service.cancel_operation("op", "again").operation.status
    assert "again" == source.cancels[0][0]


def test_an_owner_is_told_within_the_callers_time(setup: Setup) -> None:
    source = FakeRemoteSource()
    setup.remote(source)
    setup.service.cancel_operation("op", deadline=setup.clock.monotonic() + 2)
    assert [("", 2.0)] == source.cancels

    late = FakeRemoteSource()
    setup.remote(late, "late")
    setup.service.cancel_operation("late", deadline=setup.clock.monotonic() - 1)
    assert [("", 0.0)] == late.cancels


def test_pending_work_elsewhere_is_cancelled_by_its_owner(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation())
    setup.remote(source)

    assert S.PENDING is setup.service.cancel_operation("op").operation.status
    source.operation = operation(status=S.CANCELLED)
    setup.clock.advance(2)
    assert S.CANCELLED is setup.status()


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


def test_an_error_of_the_store_is_only_the_stores(setup: Setup) -> None:
    setup.store.away = True
    with pytest.raises(StoreUnavailableError):
        setup.unread()
