from __future__ import annotations

import pytest

from shared.operations.service import OperationsLimits
from shared.operations.store import OperationFilter
from shared.rpc.errors import OperationNotFoundError
from tests.unit.operations.fakes import RESULT, FakeLaunch, new_operation
from tests.unit.operations.lives import Life

DAY = 86_400.0


def life_that_keeps(count: int, days: float = 30.0) -> Life:
    return Life(limits=OperationsLimits(keep_finished=count, keep_finished_days=days))


def run(life: Life, operation_id: str, starter: str = "") -> None:
    """Start and complete an operation, a minute after the last."""
    life.clock.advance(60)
    new = new_operation(operation_id)
    if starter:
        new = type(new)(
            new.operation_id, new.request_id, new.type, new.fingerprint, starter=starter
        )
    life.service.start_operation(new, FakeLaunch(life.service))
    assert life.service.begin_operation(operation_id)
    assert life.service.complete_operation(operation_id, RESULT)


def kept(life: Life) -> list[str]:
    page = life.store.page(OperationFilter(), None, 1000)
    return sorted(record.operation.operation_id for record in page)


def test_beyond_the_count_the_oldest_are_forgotten_when_another_starts() -> None:
    life = life_that_keeps(2)
    for name in "abcd":
        run(life, name)
    assert ["b", "c", "d"] == kept(life), "two that had ended when d started, and d"

    with pytest.raises(OperationNotFoundError):
        life.look("a")


def test_what_ended_too_long_ago_is_forgotten_whatever_the_count() -> None:
    life = life_that_keeps(100, days=2.0)
    run(life, "a")
    life.clock.advance(3 * DAY)
    run(life, "b")

    assert ["b"] == kept(life)


def test_what_is_open_is_never_forgotten() -> None:
    life = life_that_keeps(1, days=1.0)
    life.service.start_operation(new_operation("open"), FakeLaunch(life.service))
    life.clock.advance(9 * DAY)
    for name in "abc":
        run(life, name)

    assert ["b", "c", "open"] == kept(life)


def test_what_another_process_started_waits_until_that_has_read_how_it_ended() -> None:
    life = life_that_keeps(1)
    for name in "abc":
        run(life, name, starter="backend")
    assert ["a", "b", "c"] == kept(life)

    life.service.note_told("a", ["somebody", "else"])
    run(life, "d")
    assert ["a", "b", "c", "d"] == kept(life)

    life.service.note_told("a", ["gateway", "backend"])
    run(life, "e")
    assert ["b", "c", "d", "e"] == kept(life)


@pytest.mark.parametrize("fault", ["away", "gone"])
def test_an_end_that_cannot_be_noted_as_told_is_told_all_the_same(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    life = life_that_keeps(1)
    run(life, "a", starter="backend")
    setattr(life.store, fault, True)
    life.service.note_told("a", ["backend"])
    assert "Who knows how operation a ended is not noted" in caplog.text

    setattr(life.store, fault, False)
    run(life, "b")
    run(life, "c")
    assert ["a", "b", "c"] == kept(life)


def test_what_nobody_reads_is_forgotten_by_age() -> None:
    life = life_that_keeps(1, days=2.0)
    run(life, "a", starter="backend")
    life.clock.advance(3 * DAY)
    run(life, "b")

    assert ["b"] == kept(life)


def test_a_store_that_cannot_prune_fails_no_start(caplog: pytest.LogCaptureFixture) -> None:
    life = life_that_keeps(1)
    run(life, "a")

    def lose_the_store(*_: object) -> list[str]:
        life.store.away = True
        life.store._reach()
        return []

    life.store.prune = lose_the_store  # type: ignore[method-assign,assignment]  # gone just then
    with pytest.raises(OperationNotFoundError):
        life.look("b")
    new = new_operation("b")
    life.service.start_operation(new, FakeLaunch(life.service))

    assert "could not be pruned" in caplog.text


def test_one_start_forgets_only_so_many() -> None:
    life = life_that_keeps(500)
    for index in range(250):
        run(life, f"{index:03}")
    life.service._limits = OperationsLimits(keep_finished=1)

    run(life, "next")
    assert 151 == len(kept(life))
