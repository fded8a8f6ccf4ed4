from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf

import pytest

from shared.operations.endings import NEVER_STARTED, OPERATION_LOST
from shared.operations.model import (
    FreshnessSource,
    OperationStatus,
    Owner,
    Progress,
)
from shared.operations.registry import HOST_OPERATION_ID, Registry, no_stub
from shared.operations.remote_source import RemoteSource
from shared.operations.store import ACTIVE, OperationFilter
from shared.rpc.errors import (
    FailedPreconditionError,
    HostUnreachableError,
    OperationActiveError,
    OperationNotFoundError,
    ResourceExhaustedError,
    StoreUnavailableError,
)
from tests.support.clock import FakeClock
from tests.unit.operations.fakes import (
    DAY,
    ME,
    RESULT,
    FakeLaunch,
    FlakyStore,
    in_threads,
    metric,
    new_operation,
    operation,
    record,
    steps,
)
from tests.unit.operations.lives import HOST, SIBLING, Life, recorded

S = OperationStatus
LATER = datetime(2027, 1, 1, tzinfo=UTC)
LOG = [metric(1), metric(2)]
DOWN = HostUnreachableError("Nobody answers.")


# ------------------------------------------------------------ work on hosts, after a restart


def test_a_hosts_work_is_taken_up_where_it_was_and_goes_on() -> None:
    life = Life()
    recorded(life.store, HOST, LOG, status=S.RUNNING)
    life.source.log = [*LOG, metric(3)]
    life.source.operation = operation(status=S.RUNNING)

    view = life.look()

    assert [1, 2, 3] == steps(view.metrics)
    assert [2] == [call.cursor for call in life.source.calls]
    assert [HOST] == life.asked_for


def test_how_it_ended_is_found_by_asking() -> None:
    life = Life()
    recorded(life.store, HOST, LOG, status=S.RUNNING)
    life.source.log = [*LOG, metric(3)]
    life.source.operation = operation(status=S.COMPLETED, end_time=DAY, result=RESULT)

    view = life.look()

    assert (S.COMPLETED, RESULT, [1, 2, 3]) == (
        view.operation.status,
        view.operation.result,
        steps(view.metrics),
    )
    assert [1, 2, 3] == steps(life.store.metrics("op", 0, 10))
    assert life.service._registry.get("op") is None


def test_while_its_host_is_away_it_is_as_old_as_what_was_stored() -> None:
    life = Life()
    known = life.clock.now() - timedelta(seconds=90)
    kept = recorded(life.store, HOST, LOG, status=S.RUNNING, progress=Progress(40.0))
    life.store.save(replace(kept, known_time=known))
    life.source.error = DOWN

    view = life.look()

    assert (S.RUNNING, Progress(40.0), [1, 2]) == (
        view.operation.status,
        view.operation.progress,
        steps(view.metrics),
    )
    assert pytest.approx(90.0) == view.freshness.age
    assert FreshnessSource.RECORD is view.freshness.source
    assert view.freshness.refresh_error is not None
    assert view.liveness is None, "nobody has seen its worker since the restart"


def test_a_strict_read_fails_while_its_host_is_away() -> None:
    life = Life()
    recorded(life.store, HOST, status=S.RUNNING)
    life.source.error = DOWN

    with pytest.raises(HostUnreachableError):
        life.force()


def test_a_host_that_lost_some_of_its_log_does_not_stall_it() -> None:
    life = Life()
    recorded(life.store, HOST, [*LOG, metric(3)], status=S.RUNNING, progress=Progress(60.0))
    life.source.log = LOG
    life.source.progress = Progress(40.0)
    life.source.operation = operation(status=S.FAILED, end_time=DAY, error=OPERATION_LOST)

    view = life.look()

    assert (S.FAILED, Progress(60.0), [1, 2, 3]) == (
        view.operation.status,
        view.operation.progress,
        steps(view.metrics),
    )


def test_it_is_listed_and_refreshed_like_any_other() -> None:
    life = Life()
    recorded(life.store, HOST, status=S.PENDING)
    life.source.operation = operation(status=S.RUNNING)

    page = life.service.list_operations(OperationFilter(), None, 10)

    assert [S.RUNNING] == [view.operation.status for view in page.views]
    assert 1 == life.store.count(OperationFilter(frozenset({S.RUNNING})))


def test_it_can_be_cancelled() -> None:
    life = Life()
    recorded(life.store, HOST, status=S.RUNNING)
    life.source.operation = operation(status=S.RUNNING)

    ended = life.service.cancel_operation("op", "enough").operation

    assert ["enough"] == [reason for reason, _ in life.source.cancels]
    assert S.CANCELLING is ended.status


def test_a_cancellation_that_was_told_before_is_not_told_again() -> None:
    life = Life()
    recorded(life.store, HOST, status=S.CANCELLING, cancel_time=DAY, cancel_reason="enough")
    life.source.operation = operation(status=S.CANCELLING)

    ended = life.service.cancel_operation("op", "again").operation

    assert [] == life.source.cancels
    assert "enough" == ended.cancel_reason


def test_the_same_request_finds_it() -> None:
    life = Life()
    recorded(life.store, HOST, status=S.RUNNING)
    launch = FakeLaunch(life.service)

    found = life.service.start_operation(new_operation(), launch).operation

    assert ("op", S.RUNNING, 0) == (found.operation_id, found.status, launch.reserved)


def test_many_who_ask_at_once_take_it_up_once() -> None:
    life = Life()
    recorded(life.store, HOST, LOG, status=S.RUNNING)
    life.source.log = LOG
    life.source.operation = operation(status=S.RUNNING)

    assert [] == in_threads(16, lambda _: life.look())

    assert 1 == len(life.service._registry.all())
    assert [1, 2] == steps(life.look().metrics)


def test_a_long_log_is_taken_up_whole() -> None:
    life = Life()
    log = [metric(step) for step in range(1, 20_002)]
    recorded(life.store, HOST, log, status=S.RUNNING)
    life.source.log = log
    life.source.operation = operation(status=S.RUNNING)

    assert 20_001 == life.look().operation.metrics_count


def test_what_the_host_was_never_told_has_not_run() -> None:
    assert NEVER_STARTED is _source(record(metadata={HOST_OPERATION_ID: "x"}))._if_unknown
    assert OPERATION_LOST is (
        _source(record(status=S.RUNNING, metadata={HOST_OPERATION_ID: "x"}))._if_unknown
    )
    heard_of = replace(record(metadata={HOST_OPERATION_ID: "x"}), known_time=DAY)
    assert OPERATION_LOST is _source(heard_of)._if_unknown
    assert _source(record())._if_unknown is None, "a neighbour's record is on this very store"


def test_what_another_process_may_just_be_telling_a_host_says_nothing_yet() -> None:
    told = replace(
        record(metadata={HOST_OPERATION_ID: "x"}, update_time=FakeClock().now()),
        told_by=SIBLING.instance_id,
    )
    until = FakeClock().monotonic() + 20.0
    assert until == _source(told)._told_until
    assert until == _source(told.of(replace(told.operation, update_time=LATER)))._told_until
    assert until - 20.0 > _source(told.of(replace(told.operation, update_time=DAY)))._told_until

    assert -inf == _source(replace(told, told_by=ME.instance_id))._told_until, "a life before"
    assert -inf == _source(replace(told, told_by=""))._told_until
    assert -inf == _source(replace(told, told_by=told.owner.instance_id))._told_until, "no host yet"
    assert -inf == _source(replace(told, known_time=DAY))._told_until, "it has been heard of"


def test_what_is_told_to_a_host_once_more_is_given_time_once_more() -> None:
    life = Life()
    kept = replace(recorded(life.store, HOST), told_by=SIBLING.instance_id)
    life.source.error = DOWN
    life.look()
    life.clock.advance(60)
    life.look()
    assert 1 == len(life.asked_for)
    life.store.save(kept.of(replace(kept.operation, update_time=life.clock.now())))
    life.clock.advance(2)
    life.look()

    found = life.look().operation

    assert 2 == len(life.asked_for)
    assert life.clock.now() - timedelta(seconds=2) == found.update_time


def _source(kept: object) -> RemoteSource:
    registry = Registry(FlakyStore(), ME, lambda _: Stub(), FakeClock())  # type: ignore[arg-type,return-value]  # never called
    return registry._source_of(kept)  # type: ignore[arg-type]  # a record


class Stub:
    """Somebody."""

    target = "host:50052"


def test_without_a_way_to_others_their_work_cannot_be_read() -> None:
    with pytest.raises(FailedPreconditionError, match="no way to host:50052"):
        no_stub("host:50052")


# ------------------------------------------------------------ two processes on one store


def test_what_a_neighbour_runs_is_read_from_it_and_stored_by_it() -> None:
    life = Life()
    kept = recorded(life.store, SIBLING, LOG, status=S.RUNNING)
    life.source.log = [*LOG, metric(3)]
    life.source.operation = operation(status=S.CANCELLING)

    view = life.look()
    life.clock.advance(60)
    life.look()

    assert (S.CANCELLING, [1, 2, 3]) == (view.operation.status, steps(view.metrics))
    assert kept == life.store.get("op")


def test_what_a_neighbour_recorded_before_it_went_away_is_found() -> None:
    life = Life()
    recorded(life.store, SIBLING, LOG, status=S.RUNNING)
    life.source.log = LOG
    life.source.operation = operation(status=S.RUNNING)
    life.look()
    life.store.finish(record(status=S.FAILED, end_time=DAY, metrics_count=3), [metric(3)], 2)
    life.source.error = DOWN
    life.clock.advance(60)

    view = life.look()

    assert (S.FAILED, [1, 2, 3]) == (view.operation.status, steps(view.metrics))
    assert view.freshness.refresh_error is None
    assert life.service._registry.get("op") is None


def test_an_end_that_a_neighbour_recorded_shows_when_nobody_here_is_storing() -> None:
    """Else it could be deleted the moment it shows, and stored once more."""
    life = Life()
    recorded(life.store, SIBLING, status=S.RUNNING)
    life.source.error = DOWN
    life.look()
    life.store.finish(record(status=S.FAILED, end_time=DAY))
    live = life.service._registry._live["op"]
    seen = []
    with live.store_lock:
        life.clock.advance(60)
        seen.append(life.look().operation.status)
    life.clock.advance(60)
    seen.append(life.look().operation.status)

    assert [S.RUNNING, S.FAILED] == seen


def test_what_a_neighbour_was_told_to_forget_is_gone() -> None:
    life = Life()
    kept = recorded(life.store, SIBLING, status=S.RUNNING)
    life.source.operation = operation(status=S.RUNNING)
    life.look()
    life.store.discard(kept)
    life.source.error = DOWN
    life.clock.advance(60)

    with pytest.raises(OperationNotFoundError):
        life.look()


def test_work_that_a_neighbour_handed_to_a_host_is_read_there() -> None:
    life = Life()
    kept = recorded(life.store, SIBLING, status=S.PENDING)
    life.source.error = DOWN
    life.look()
    moved = replace(
        kept,
        owner=HOST,
        operation=replace(kept.operation, metadata={HOST_OPERATION_ID: "host_training_op"}),
    )
    life.store.save(moved)
    life.clock.advance(60)
    life.look()
    life.source.error = None
    life.source.operation = operation(status=S.RUNNING)
    life.clock.advance(60)

    view = life.look()

    assert [SIBLING, HOST] == life.asked_for
    assert S.RUNNING is view.operation.status
    assert {HOST_OPERATION_ID: "host_training_op"} == view.operation.metadata


def test_the_store_is_looked_at_once_a_second_while_the_owner_is_away() -> None:
    life = Life()
    recorded(life.store, SIBLING, status=S.RUNNING)
    life.source.error = DOWN

    for _ in range(5):
        life.look()

    assert 3 == life.store.gets, "to find it, to see that it is open still, to look again"


def test_a_store_that_is_away_too_leaves_what_is_known() -> None:
    life = Life()
    recorded(life.store, SIBLING, LOG, status=S.RUNNING)
    life.source.error = DOWN
    life.look()
    life.store.gone = True
    life.clock.advance(60)

    assert S.RUNNING is life.look().operation.status


def test_of_two_who_start_the_same_request_one_does() -> None:
    life = Life()
    other = Life(life.store, instance="sibling", incarnation="first")
    launch = FakeLaunch(life.service)

    def meanwhile() -> None:
        other.service.start_operation(new_operation(), FakeLaunch(other.service))

    create = life.store.create

    def slow(kept: object) -> object:
        life.store.create = create  # type: ignore[method-assign]  # once
        meanwhile()
        return create(kept)  # type: ignore[arg-type]  # a record

    life.store.create = slow  # type: ignore[method-assign,assignment]  # the other is faster
    found = life.service.start_operation(new_operation(), launch).operation

    assert ("op", S.PENDING, [], 1) == (
        found.operation_id,
        found.status,
        launch.begun,
        launch.released,
    )
    kept = life.store.get("op")
    assert kept is not None
    assert "sibling" == kept.owner.instance_id


# ------------------------------------------------------------ leftovers, deleting


def test_a_refused_start_that_could_not_be_forgotten_is_forgotten_later() -> None:
    life = Life()
    refused = ResourceExhaustedError("Full.")

    def away() -> None:
        life.store.away = True

    with pytest.raises(ResourceExhaustedError):
        life.service.start_operation(
            new_operation(), FakeLaunch(life.service, on_begin=away, begin_error=refused)
        )
    assert 1 == life.store.count(ACTIVE)
    life.store.away = False

    assert () == life.service.list_operations(ACTIVE, None, 10).views
    assert 0 == life.store.count(ACTIVE)


def test_a_leftover_that_has_been_started_anew_meanwhile_stays() -> None:
    life = Life()
    leftover = record(create_time=DAY - timedelta(seconds=1))
    anew = recorded(life.store, SIBLING, status=S.RUNNING)

    assert life.service._registry.take_up(leftover) is None
    assert anew == life.store.get("op")


def test_what_has_ended_can_be_deleted_and_nothing_else() -> None:
    life = Life()
    life.service.start_operation(new_operation(), FakeLaunch(life.service))

    with pytest.raises(OperationActiveError, match="Cancel it first"):
        life.service.delete_operation("op")
    life.service.cancel_operation("op")
    life.service.delete_operation("op")

    with pytest.raises(OperationNotFoundError):
        life.service.delete_operation("op")


def test_a_store_that_is_away_does_not_make_operations_unknown() -> None:
    life = Life()
    recorded(life.store, HOST, status=S.RUNNING)
    life.store.gone = True

    with pytest.raises(StoreUnavailableError):
        life.look()


def test_an_owner_is_an_instance_whatever_its_address() -> None:
    life = Life()
    recorded(life.store, Owner("me", "second", "elsewhere:1"))

    with pytest.raises(OperationNotFoundError):
        life.look()


def test_what_is_taken_up_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    life = Life()
    recorded(life.store, HOST, status=S.RUNNING)
    with caplog.at_level(logging.INFO, "ktrdr.operations"):
        life.look()
        life.look()

    assert ["Took up operation op, which is at host:50052"] == caplog.messages


def test_a_record_that_has_been_overtaken_is_not_taken_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    life = Life()
    page = recorded(life.store, HOST, LOG, status=S.RUNNING)
    ended = life.store.finish(record(status=S.COMPLETED, end_time=DAY, result=RESULT))

    with caplog.at_level(logging.INFO, "ktrdr.operations"):
        assert ended is life.service._registry.take_up(page)
        life.store.delete("op")
        assert life.service._registry.take_up(page) is None
    assert [] == life.service._registry.all()
    assert "" == caplog.text


def test_what_is_listed_while_it_ends_is_not_open_again() -> None:
    life = Life()
    recorded(life.store, HOST, status=S.RUNNING)
    life.source.error = DOWN
    page = life.store.page

    def overtaken(*asked: object) -> object:
        rows = page(*asked)  # type: ignore[arg-type]  # passed on
        life.store.finish(record(status=S.COMPLETED, end_time=DAY, result=RESULT))
        return rows

    life.store.page = overtaken  # type: ignore[method-assign,assignment]  # a page, as before

    (row,) = life.service.list_operations(OperationFilter(), None, 10).views

    assert (S.COMPLETED, None) == (row.operation.status, row.freshness.refresh_error)


def test_metrics_that_were_kept_after_the_record_was_read_are_left_for_later() -> None:
    life = Life()
    page = recorded(life.store, SIBLING, LOG, status=S.RUNNING)
    life.store.save(
        replace(page, operation=replace(page.operation, metrics_count=3)), [metric(3)], 2
    )
    life.service._registry.take_up(page)
    life.source.error = DOWN

    view = life.look()

    assert (2, [1, 2]) == (view.operation.metrics_count, steps(view.metrics))
    life.source.error = None
    life.source.log = [*LOG, metric(3)]
    life.source.operation = operation(status=S.RUNNING)
    life.clock.advance(60)
    assert [3] == steps(life.look(cursor=2).metrics)
