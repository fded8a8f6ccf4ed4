"""What stores in databases do besides what every store does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, event, update

from shared.operations import sql_metrics, sql_retention
from shared.operations.model import OperationStatus, OperationType
from shared.operations.sql_pages import page_parameters, page_query
from shared.operations.sql_schema import OPERATIONS
from shared.operations.sql_store import SqlOperationStore
from shared.operations.store import ACTIVE, OperationFilter
from shared.rpc.errors import StoreUnavailableError
from tests.support.stores import sqlite_database
from tests.unit.operations.fakes import DAY, in_threads, metric, record, steps

S = OperationStatus
ANY = OperationFilter()


@pytest.fixture
def store(database: Engine) -> SqlOperationStore:
    return SqlOperationStore(database, uuid4().hex)


def test_services_see_only_their_own(database: Engine) -> None:
    backend = SqlOperationStore(database, uuid4().hex)
    host = SqlOperationStore(database, uuid4().hex)
    backend.finish(record("op", status=S.COMPLETED), [metric(1)])

    assert (None, (), []) == (host.get("op"), host.metrics("op", 0, 9), host.page(ANY, None, 9))
    assert (0, False, []) == (host.count(ANY), host.delete("op"), list(host.prune(0, DAY, 9)))
    host.finish(record("op", status=S.FAILED), [metric(2), metric(3)])
    host.discard(record("op"))
    host.delete("op")
    assert record("op", status=S.COMPLETED) == backend.get("op")
    assert [1] == steps(backend.metrics("op", 0, 9))


def test_records_outlive_the_process(tmp_path: Path) -> None:
    for expected in (None, record("op")):
        engine = sqlite_database(tmp_path / "backend.db")
        store = SqlOperationStore(engine, "backend")
        assert expected == store.get("op")
        store.create(record("op"))
        store.close()


def test_one_of_many_creates_an_operation_and_all_learn_which(store: SqlOperationStore) -> None:
    kept: list[str] = []

    def create(number: int) -> None:
        mine = record("op", metadata={"by": str(number)})
        kept.append(store.create(mine).operation.metadata["by"])

    assert [] == in_threads(8, create)
    assert 1 == len(set(kept))
    assert 8 == len(kept)


def test_one_of_many_endings_stands_and_all_learn_which(store: SqlOperationStore) -> None:
    kept: list[str] = []
    store.create(record("op"))

    def finish(number: int) -> None:
        mine = record("op", status=S.FAILED, metadata={"by": str(number)})
        log = [metric(step + 1 + 100 * number) for step in range(50)]
        ended = store.finish(mine, log)
        assert ended is not None
        kept.append(ended.operation.metadata["by"])

    assert [] == in_threads(8, finish)
    assert 1 == len(set(kept))
    first = 100 * int(kept[0]) + 1
    assert list(range(first, first + 50)) == steps(store.metrics("op", 0, 100))


def test_logs_that_two_processes_store_at_once_are_kept_once(store: SqlOperationStore) -> None:
    """As two backends do, who both ask its owner."""
    log = [metric(step) for step in range(1, 301)]

    def save(_: int) -> None:
        for end in range(10, 301, 10):
            store.save(record("op", status=S.RUNNING), log[:end])

    assert [] == in_threads(4, save)
    assert log == list(store.metrics("op", 0, 1000))


def test_to_note_again_that_an_end_is_known_writes_nothing(tmp_path: Path) -> None:
    engine = sqlite_database(tmp_path / "backend.db")
    store = SqlOperationStore(engine, "backend")
    store.finish(record("op", status=S.COMPLETED))
    store.mark_read("op")
    event.listen(engine, "checkout", lambda db, *_: db.execute("PRAGMA query_only = ON"))

    store.mark_read("op")
    store.mark_read("unknown")
    assert [] == list(store.prune(1, DAY, 10))
    with pytest.raises(StoreUnavailableError):
        store.create(record("other"))
    store.close()


def test_operations_with_many_metrics_are_pruned_a_few_at_a_time(
    store: SqlOperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_retention, "_METRICS_AT_ONCE", 10)
    monkeypatch.setattr(sql_metrics, "_DELETED_AT_ONCE", 3)
    for number, length in enumerate((4, 6, 1, 50, 1)):
        ended = DAY + timedelta(minutes=number)
        log = [metric(step + 1) for step in range(length)]
        kept = record(f"op-{number}", status=S.FAILED, end_time=ended, metrics_count=length)
        store.finish(kept, log)

    pruned = [list(store.prune(0, DAY, 10)) for _ in range(4)]
    assert [["op-0", "op-1"], ["op-2"], ["op-3"], ["op-4"]] == pruned
    assert [()] * 5 == [store.metrics(f"op-{number}", 0, 99) for number in range(5)]


def test_a_row_that_makes_no_record_is_named(database: Engine, store: SqlOperationStore) -> None:
    """Such as one that a newer ktrdr has written meanwhile."""
    store.create(record("op"))
    with database.connect() as connection:
        mine = OPERATIONS.c.service == store._service
        connection.execute(update(OPERATIONS).where(mine).values(type="DREAMING"))

    with pytest.raises(StoreUnavailableError, match=r"Operation op could not be read: .*DREAMING"):
        store.get("op")


def test_a_record_that_makes_no_row_is_refused_and_nothing_is_kept(
    store: SqlOperationStore,
) -> None:
    with pytest.raises(StoreUnavailableError, match="Operation op could not be stored"):
        store.save(record("op"), [metric(1), metric(2**70)])

    assert None is store.get("op")


def test_a_record_that_was_damaged_is_named_as_such(database: Engine) -> None:
    store = SqlOperationStore(database, uuid4().hex)
    store.create(record("op"))
    with database.connect() as db:
        db.execute(
            update(OPERATIONS)
            .where(OPERATIONS.c.service == store._service)
            .values({"metadata": '{"half'})
        )

    with pytest.raises(StoreUnavailableError, match=r"a record does not fit .*newer ktrdr"):
        store.get("op")


WRITES: Mapping[str, Callable[[SqlOperationStore], object]] = {
    "create": lambda store: store.create(record("new")),
    "save": lambda store: store.save(record("op", status=S.RUNNING), [metric(2), metric(3)], 1),
    "finish": lambda store: store.finish(record("op", status=S.FAILED), [metric(2)], 1),
    "discard": lambda store: store.discard(record("op")),
    "delete": lambda store: store.delete("old"),
    "mark_read": lambda store: store.mark_read("old"),
    "prune": lambda store: store.prune(0, DAY, 10),
}


def everything(store: SqlOperationStore) -> object:
    return [
        (kept, store.metrics(kept.operation.operation_id, 0, 10))
        for kept in store.page(ANY, None, 10)
    ]


@contextmanager
def broken(database: Engine, at: int) -> Iterator[None]:
    """Have the database break at a statement, counted from 1."""
    error = database.dialect.loaded_dbapi.OperationalError("broken on purpose")
    statements = count(1)

    def fail(*_: object) -> None:
        if next(statements) == at:
            raise error

    event.listen(database, "before_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(database, "before_cursor_execute", fail)


def written(store: SqlOperationStore, write: str) -> bool:
    """Whether the store did what it was asked for."""
    try:
        WRITES[write](store)
    except StoreUnavailableError:
        return False
    return True


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_breaks_at_any_statement_is_undone_and_can_be_repeated(
    database: Engine, write: str
) -> None:
    """The end of a transaction is a statement like others."""

    def prepared() -> SqlOperationStore:
        store = SqlOperationStore(database, uuid4().hex)
        store.save(record("op"), [metric(1)])
        store.finish(record("old", status=S.COMPLETED), [metric(1), metric(2)])
        return store

    expected = prepared()
    assert written(expected, write)
    for statement in count(1):
        store = prepared()
        before = everything(store)
        with broken(database, at=statement):
            done = written(store, write)
        again = SqlOperationStore(database, store._service)  # waits for no breaker
        if done:
            assert everything(expected) == everything(again)
            break
        assert before == everything(again)
        assert written(again, write)
        assert everything(expected) == everything(again)
    assert statement > 3


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "wanted",
    [
        ANY,
        ACTIVE,
        OperationFilter(frozenset({S.FAILED})),
        OperationFilter(types=frozenset({OperationType.TRAINING})),
        OperationFilter(ACTIVE.statuses, frozenset({OperationType.TRAINING})),
    ],
    ids=["any", "active", "failed", "trainings", "active trainings"],
)
def test_no_page_looks_at_all_records(
    tmp_path: Path, wanted: OperationFilter, *, first: bool
) -> None:
    engine = sqlite_database(tmp_path / "backend.db")
    parameters = page_parameters("backend", None if first else (DAY, "op"), 10)
    with engine.connect() as connection:
        plan = explained(connection, wanted, parameters, first=first)
    engine.dispose()

    looks = [step for step in plan if "operations" in step.split()]
    assert looks
    assert [] == [step for step in looks if not step.startswith("SEARCH operations USING ")]
    searches = [step for step in looks if "operations_by_class" in step]
    assert all("(service=? AND type=? AND status=?" in step for step in searches)
    assert bool(searches) == (wanted != ANY)


def explained(
    connection: Connection, wanted: OperationFilter, parameters: object, *, first: bool
) -> list[str]:
    """The steps by which SQLite finds a page."""
    compiled = page_query(wanted, first=first).compile(connection.engine)
    values = compiled.construct_params(dict(parameters))  # type: ignore[call-overload]
    row = tuple(values[name] for name in compiled.positiontup or ())
    return [step[3] for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", row)]
