"""What every store of operations does alike, in memory and in databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.operations.memory_store import MemoryOperationStore
from shared.operations.migration import migrate
from shared.operations.model import OperationRecord, OperationStatus, OperationType
from shared.operations.sql_store import SqlOperationStore
from shared.operations.sqlite_database import sqlite_engine
from shared.operations.store import ACTIVE, OperationFilter, OperationStore, SortKey
from tests.unit.operations.fakes import DAY, metric, record, steps

NewStore = Callable[[], OperationStore]
"""Makes a store that is empty."""

S = OperationStatus
ANY = OperationFilter()


def made(minute: int, status: OperationStatus = S.PENDING, **fields: object) -> OperationRecord:
    return record(
        f"op-{minute}", status=status, create_time=DAY + timedelta(minutes=minute), **fields
    )


def key(kept: OperationRecord) -> SortKey:
    return kept.operation.create_time, kept.operation.operation_id


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def new_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewStore]:
    if request.param == "memory":
        yield MemoryOperationStore
        return
    engine = sqlite_engine(tmp_path_factory.mktemp("state") / "backend.db", 4)
    migrate(engine)
    yield lambda: SqlOperationStore(engine, uuid4().hex)  # a service of its own sees nothing
    engine.dispose()


@pytest.fixture
def store(new_store: NewStore) -> OperationStore:
    return new_store()


def test_a_created_record_is_found(store: OperationStore) -> None:
    assert made(1) == store.create(made(1))
    assert made(1) == store.get("op-1")
    assert store.get("op-2") is None


def test_a_taken_id_is_not_created_again(store: OperationStore) -> None:
    store.create(made(1))

    assert made(1) == store.create(made(1, S.RUNNING))
    assert 1 == store.count(ANY)


def test_a_save_replaces(store: OperationStore) -> None:
    store.create(made(1))
    store.save(made(1, S.RUNNING))

    assert made(1, S.RUNNING) == store.get("op-1")
    assert (0, 1) == (
        store.count(OperationFilter(frozenset({S.PENDING}))),
        store.count(OperationFilter(frozenset({S.RUNNING}))),
    )


def test_a_terminal_record_stays_as_it_is(store: OperationStore) -> None:
    store.create(made(1))
    store.finish(made(1, S.COMPLETED), [metric(1)])

    store.save(made(1, S.RUNNING))
    kept = store.finish(made(1, S.FAILED), [])

    assert made(1, S.COMPLETED) == kept == store.get("op-1")
    assert [1] == steps(store.metrics("op-1", 0, 10))


def test_a_discarded_record_is_gone(store: OperationStore) -> None:
    store.create(made(1))
    store.create(made(2))
    store.discard("op-1")
    store.discard("op-1")

    assert store.get("op-1") is None
    assert (1, [made(2)]) == (store.count(ANY), list(store.page(ANY, None, 10)))


def test_the_metrics_kept_are_a_copy(store: OperationStore) -> None:
    log = [metric(1)]
    store.create(made(1))
    store.finish(made(1, S.FAILED), log)
    log.append(metric(2))

    assert [1] == steps(store.metrics("op-1", 0, 10))


def test_metrics_come_in_slices(store: OperationStore) -> None:
    store.create(made(1))
    store.finish(made(1, S.FAILED), [metric(step) for step in range(1, 8)])

    assert [3, 4, 5] == steps(store.metrics("op-1", 2, 3))
    assert [] == steps(store.metrics("op-1", 7, 3))
    assert [] == steps(store.metrics("unknown", 0, 3))


def test_a_filter_wants_type_and_state() -> None:
    wanted = OperationFilter(frozenset({S.RUNNING}), frozenset({OperationType.TRAINING}))

    assert wanted.matches(OperationType.TRAINING, S.RUNNING)
    assert not wanted.matches(OperationType.DATA_LOADING, S.RUNNING)
    assert not wanted.matches(OperationType.TRAINING, S.FAILED)
    assert ANY.matches(OperationType.DATA_LOADING, S.FAILED)
    assert not ACTIVE.matches(OperationType.TRAINING, S.CANCELLED)


@given(
    minutes=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(S)), max_size=25),
    statuses=st.frozensets(st.sampled_from(S)),
    limit=st.integers(1, 5),
)
def test_pages_cover_what_matches_once_and_newest_first(
    new_store: NewStore,
    minutes: list[tuple[int, OperationStatus]],
    statuses: frozenset[OperationStatus],
    limit: int,
) -> None:
    store = new_store()
    for index, (minute, status) in enumerate(minutes):
        store.create(
            record(f"op-{index}", status=status, create_time=DAY + timedelta(minutes=minute))
        )
    wanted = OperationFilter(statuses)

    found: list[OperationRecord] = []
    while page := store.page(wanted, key(found[-1]) if found else None, limit):
        found.extend(page)

    expected = [
        store.get(f"op-{index}")
        for index, (_, status) in enumerate(minutes)
        if not statuses or status in statuses
    ]
    assert sorted(map(key, filter(None, expected)), reverse=True) == [key(each) for each in found]
    assert len(expected) == store.count(wanted)


def test_a_record_created_meanwhile_does_not_move_the_next_page(
    store: OperationStore,
) -> None:
    for minute in (1, 2, 3):
        store.create(made(minute))
    first = store.page(ANY, None, 2)
    store.create(made(4))

    second = store.page(ANY, key(first[-1]), 2)

    assert [made(3), made(2), made(1)] == [*first, *second]


def test_a_page_says_nothing_of_the_records_it_skips(store: OperationStore) -> None:
    store.create(made(1, S.FAILED))
    store.create(made(2, S.PENDING))

    assert [made(1, S.FAILED)] == list(store.page(OperationFilter(frozenset({S.FAILED})), None, 1))
    assert replace(made(1), operation=made(1, S.FAILED).operation) == store.get("op-1")
