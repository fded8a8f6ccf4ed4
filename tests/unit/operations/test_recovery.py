from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shared.operations.model import OperationRecord, OperationStatus, Owner, Progress
from shared.operations.recovery import end_orphans
from shared.operations.store import ACTIVE
from shared.rpc.errors import StoreUnavailableError
from tests.unit.operations.fakes import (
    DAY,
    FakeLaunch,
    FlakyStore,
    metric,
    new_operation,
    operation,
    record,
    steps,
)
from tests.unit.operations.lives import HOST, SIBLING, Life, recorded

S = OperationStatus
ME_BEFORE = Owner("me", "first", "me:50051")
LOG = [metric(1), metric(2)]


def test_what_ran_here_before_a_restart_is_failed_with_what_was_stored() -> None:
    life = Life()
    recorded(life.store, ME_BEFORE, LOG, status=S.RUNNING, progress=Progress(40.0, "Epoch 2/5"))

    life.service.recover()

    view = life.look()
    error = view.operation.error
    assert error is not None
    assert (S.FAILED, "PROCESS_RESTARTED", True) == (
        view.operation.status,
        error.reason,
        error.retryable,
    )
    assert (Progress(40.0, "Epoch 2/5"), 2, [1, 2]) == (
        view.operation.progress,
        view.operation.metrics_count,
        steps(view.metrics),
    )
    assert life.clock.now() == view.operation.end_time
    assert "2026-01-01 00:00:00" in error.message


def test_what_is_given_up_and_deleted_just_then_stays_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life()
    recorded(life.store, ME_BEFORE, LOG, status=S.RUNNING)
    finish = life.store.finish

    def first(*ending: Any) -> OperationRecord | None:
        finish(record(status=S.FAILED, end_time=DAY))
        life.store.delete("op")  # another process on the store is faster
        return finish(*ending)

    monkeypatch.setattr(life.store, "finish", first)
    life.service.recover()

    assert (None, []) == (life.store.get("op"), caplog.messages)


def test_what_had_not_begun_is_failed_as_well() -> None:
    life = Life()
    recorded(life.store, ME_BEFORE)

    life.service.recover()

    assert S.FAILED is life.look().operation.status


@pytest.mark.parametrize(
    ("elsewhere", "reason"), [(True, "NEVER_STARTED"), (False, "PROCESS_RESTARTED")]
)
def test_a_process_cut_off_in_a_start_says_whether_anything_can_have_run(
    *, elsewhere: bool, reason: str
) -> None:
    before = Life(incarnation="first")
    after = Life(before.store)
    launch = FakeLaunch(before.service, elsewhere, on_begin=after.service.recover)
    before.service.start_operation(new_operation(), launch)

    error = after.look().operation.error
    assert error is not None
    assert (reason, True) == (error.reason, error.retryable)


def test_what_was_being_cancelled_is_cancelled_and_says_why_it_stopped() -> None:
    life = Life()
    recorded(life.store, ME_BEFORE, status=S.CANCELLING, cancel_time=DAY, cancel_reason="enough")

    life.service.recover()

    ended = life.look().operation
    assert ended.error is not None
    assert (S.CANCELLED, "enough", "PROCESS_RESTARTED") == (
        ended.status,
        ended.cancel_reason,
        ended.error.metadata["cause_reason"],
    )


@pytest.mark.parametrize("owner", [HOST, SIBLING], ids=["host", "sibling"])
def test_what_others_run_is_left_alone(owner: Owner) -> None:
    life = Life()
    recorded(life.store, owner, status=S.RUNNING)

    life.service.recover()

    assert 1 == life.store.count(ACTIVE)


def test_what_has_ended_stays_as_it_is() -> None:
    life = Life()
    recorded(life.store, ME_BEFORE)
    life.store.finish(record(status=S.COMPLETED, end_time=DAY))

    life.service.recover()

    assert operation(status=S.COMPLETED, end_time=DAY) == life.look().operation


def test_many_pages_of_orphans_are_ended() -> None:
    store = FlakyStore()
    for index in range(1201):
        store.create(record(f"op-{index}", create_time=DAY + timedelta(seconds=index)))

    end_orphans(store, Owner("me", "second", "me:50051"), DAY)

    assert 0 == store.count(ACTIVE)


def test_a_store_that_is_away_stops_the_start() -> None:
    life = Life()
    recorded(life.store, ME_BEFORE)
    life.store.away = True

    with pytest.raises(StoreUnavailableError):
        life.service.recover()
