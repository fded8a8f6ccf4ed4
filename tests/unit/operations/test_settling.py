from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from shared.operations.model import FreshnessSource, OperationStatus
from shared.operations.store import OperationFilter
from shared.rpc.errors import (
    FailedPreconditionError,
    OperationCancelledError,
    StoreUnavailableError,
)
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import (
    RESULT,
    Background,
    Setup,
    WantedLock,
    in_threads,
    operation,
    steps,
)

S = OperationStatus


@pytest.fixture
def setup() -> Setup:
    return Setup()


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
        assert {} == setup.service._registry._live


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

    view = setup.service.get_operation("op", metrics_limit=10)
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
    live = setup.service._registry._live["op"]
    first = Background(setup.status)
    assert setup.store.finishing.wait(5)
    second = Background(lambda: setup.service._settler.settle(live, wait=True))
    setup.store.finish_gate.set()

    assert second.result()
    assert S.COMPLETED is first.result()
    assert 2 == setup.store.finishes  # the one that failed and the one that did not


def test_a_strict_read_fails_while_an_end_cannot_be_stored_and_others_tell_the_age(
    setup: Setup,
) -> None:
    worker = setup.running()
    worker.report(100, "done")
    setup.store.away = True
    setup.service.complete_operation("op", RESULT)

    with pytest.raises(StoreUnavailableError):
        setup.service.get_operation("op", max_staleness=0.0)
    view = setup.service.get_operation("op")
    assert view.freshness.refresh_error is not None
    assert ("STORE_UNAVAILABLE", FreshnessSource.BRIDGE, 0.0) == (
        view.freshness.refresh_error.reason,
        view.freshness.source,
        view.freshness.age,
    )


def test_a_strict_read_waits_for_an_end_that_another_reader_is_storing(setup: Setup) -> None:
    setup.remote(FakeRemoteSource(operation=operation(status=S.COMPLETED, result=RESULT)))
    lock = WantedLock.of(setup.service._registry._live["op"])
    setup.store.finish_gate.clear()
    storing = Background(setup.status)
    assert setup.store.finishing.wait(10)

    told: list[OperationStatus] = []
    strict = Background(
        lambda: told.append(setup.service.get_operation("op", max_staleness=0.5).operation.status)
    )
    eventually(lambda: lock.wanted.is_set() or not strict.running)
    setup.store.finish_gate.set()
    strict.result()

    assert [S.COMPLETED, S.COMPLETED] == [storing.result(), *told]


def test_a_strict_read_fails_if_an_end_is_not_stored_in_time(setup: Setup) -> None:
    setup.remote(FakeRemoteSource(operation=operation(status=S.COMPLETED, result=RESULT)))
    setup.store.finish_gate.clear()
    storing = Background(setup.status)
    assert setup.store.finishing.wait(10)
    soon = setup.clock.monotonic() + 0.01

    with pytest.raises(StoreUnavailableError, match="is being stored"):
        setup.service.get_operation("op", max_staleness=0.5, deadline=soon)
    assert S.PENDING is setup.status(), "who sets no bound does not wait"
    setup.store.finish_gate.set()
    assert S.COMPLETED is storing.result()


def test_the_last_drain_logs_its_cursor_step(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    worker = setup.running()
    worker.measure(1, 2)
    with caplog.at_level(logging.DEBUG, "ktrdr.operations"):
        setup.service.complete_operation("op", RESULT)

    assert "Refreshed operation op from bridge (cursor 0 → 2)" in caplog.messages
