from __future__ import annotations

from collections.abc import Sequence

import pytest

from shared.operations.model import Metric, OperationStatus
from shared.rpc.errors import OperationNotFoundError
from tests.unit.operations.fakes import RESULT, Setup

S = OperationStatus


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
