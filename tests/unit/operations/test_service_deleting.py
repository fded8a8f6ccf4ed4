from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.operations.model import Metric, OperationRecord, OperationStatus
from shared.operations.settling import NEWS
from shared.operations.store import OperationFilter
from shared.operations.waiting import Waiter
from shared.rpc.errors import HostUnreachableError, OperationNotFoundError
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import DAY, RESULT, Background, Setup, metric, operation, record
from tests.unit.operations.lives import HOST, Life, recorded

S = OperationStatus
ANY = OperationFilter()
ENDED: dict[str, Any] = {"status": S.COMPLETED, "end_time": DAY}


def standing_in() -> Life:
    """A life that stands in for a host's running work, which it has read."""
    life = Life()
    recorded(life.store, HOST, status=S.RUNNING)
    life.source.operation = operation(status=S.RUNNING)
    life.look()
    return life


def delete_elsewhere(life: Life) -> None:
    """Let another process on the store end and delete it."""
    kept = life.store.get("op")
    assert kept is not None
    life.store.finish(OperationRecord(operation(**ENDED), kept.owner, kept.request_id, ""))
    assert life.store.delete("op")


@pytest.mark.parametrize("ended", [False, True])
def test_what_another_has_deleted_is_forgotten_by_who_next_stores_it(ended: bool) -> None:
    life = standing_in()
    delete_elsewhere(life)
    life.source.log = [metric(1)]
    if ended:
        life.source.operation = operation(**ENDED)
    life.clock.advance(NEWS)

    for look in (life.look, life.force):
        with pytest.raises(OperationNotFoundError):
            look()
    assert ((), 0) == (life.service.list_operations(ANY, None, 10).views, life.store.count(ANY))
    assert [] == life.service._registry.all()


def test_a_listing_leaves_out_what_was_deleted_while_it_read() -> None:
    life = standing_in()
    life.store.finish(record("other", **ENDED))
    life.source.after_read = lambda: delete_elsewhere(life)
    life.clock.advance(NEWS)
    life.source.log = [metric(1)]

    page = life.service.list_operations(ANY, None, 10)

    assert ["other"] == [view.operation.operation_id for view in page.views]
    assert (1, 0) == (page.total_count, page.active_count)
    assert life.store.get("op") is None


def test_a_wait_ends_when_what_it_is_for_was_deleted() -> None:
    setup = Setup(real_time=True)
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    live = setup.remote(source)

    def wait() -> object:
        return setup.service.wait_operation("op", 60.0, Waiter())

    waiting = [Background(wait), Background(wait)]
    eventually(lambda: bool(source.waits))
    setup.store.finish(live.record.of(replace(live.record.operation, **ENDED)))
    setup.store.delete("op")
    source.operation = operation(**ENDED)
    source.waits[0].end()

    for each in waiting:
        with pytest.raises(OperationNotFoundError):
            each.result()
    assert setup.store.get("op") is None


def test_what_was_started_anew_is_read_by_who_had_the_old_one() -> None:
    life = standing_in()
    delete_elsewhere(life)
    later = DAY + timedelta(seconds=1)
    recorded(life.store, HOST, status=S.PENDING, create_time=later)
    life.source.log = [metric(1)]
    life.clock.advance(NEWS)

    assert later == life.look().operation.create_time


def test_who_cannot_ask_the_owner_finds_what_was_started_anew() -> None:
    life = standing_in()
    delete_elsewhere(life)
    later = DAY + timedelta(seconds=1)
    recorded(life.store, HOST, status=S.PENDING, create_time=later)
    life.source.error = HostUnreachableError("Nobody answers.")
    life.clock.advance(60)

    assert later == life.look().operation.create_time


def test_what_is_deleted_the_moment_its_end_shows_is_gone() -> None:
    setup = Setup()
    setup.running()
    live = setup.service._registry._live["op"]
    shown: list[OperationStatus] = []

    def at_once() -> None:
        shown.append(setup.status())
        setup.service.delete_operation("op")
        with pytest.raises(OperationNotFoundError):
            setup.status()

    live.wake_waiters = at_once  # type: ignore[method-assign]  # a waiter that is quick
    setup.service.complete_operation("op", RESULT)

    assert [S.COMPLETED] == shown


def test_metrics_that_are_deleted_while_they_are_read_are_not_there() -> None:
    setup = Setup()
    setup.running().measure(1, 2)
    setup.service.complete_operation("op", RESULT)
    read = setup.store.metrics

    def forgotten(operation_id: str, cursor: int, limit: int) -> Sequence[Metric]:
        setup.store.delete(operation_id)
        return read(operation_id, cursor, limit)

    setup.store.metrics = forgotten  # type: ignore[method-assign]  # another caller is faster

    with pytest.raises(OperationNotFoundError):
        setup.service.get_operation("op", metrics_limit=10)


@pytest.mark.parametrize("write", ["save", "save_strictly"])
def test_a_write_that_waited_for_the_end_brings_nothing_back_that_was_deleted(write: str) -> None:
    setup = Setup()
    setup.running()
    live = setup.service._registry._live["op"]
    setup.service.complete_operation("op", RESULT)
    setup.service.delete_operation("op")

    getattr(setup.service._settler, write)(live)

    assert setup.store.get("op") is None
