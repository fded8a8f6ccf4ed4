"""What databases remember of what was forgotten."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import Engine, func, select

from shared.operations import sql_forgotten
from shared.operations.model import OperationStatus
from shared.operations.sql_records import record_to_row
from shared.operations.sql_schema import FORGOTTEN, OPERATIONS
from shared.operations.sql_store import SqlOperationStore
from tests.support.clock import FakeClock
from tests.unit.operations.fakes import DAY, record

S = OperationStatus
ODD = "op \\ \x00 \ud800"
"""An id as no database keeps it."""


def remembered(engine: Engine, service: str) -> int:
    count = select(func.count()).where(FORGOTTEN.c.service == service)
    with engine.connect() as connection:
        found: int = connection.execute(count).scalar_one()
    return found


def test_what_one_service_has_forgotten_another_keeps(database: Engine) -> None:
    mine, theirs = (SqlOperationStore(database, uuid4().hex) for _ in range(2))
    mine.finish(record(status=S.COMPLETED))
    mine.delete("op")

    assert mine.save(record()) is None
    assert record() == theirs.save(record())


def test_ids_are_remembered_whatever_is_in_them(database: Engine) -> None:
    store = SqlOperationStore(database, uuid4().hex)
    store.finish(record(ODD, status=S.COMPLETED))
    store.delete(ODD)

    assert (None, None) == (store.save(record(ODD)), store.get(ODD))


def test_only_so_many_are_remembered_and_services_do_not_share_them(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_forgotten, "REMEMBERED", 3)
    clock = FakeClock()
    names = uuid4().hex, uuid4().hex
    for name in names:
        store = SqlOperationStore(database, name, clock)
        for number in range(5):
            store.finish(record(f"op-{number}", status=S.COMPLETED))
            store.delete(f"op-{number}")
            clock.advance(1)

    assert [3, 3] == [remembered(database, name) for name in names]


def test_those_that_go_at_once_are_remembered_together(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_forgotten, "REMEMBERED", 3)
    name = uuid4().hex
    store = SqlOperationStore(database, name)
    for number in range(5):
        store.finish(record(f"op-{number}", status=S.COMPLETED))
    store.prune(0, DAY, 10)

    assert 5 == remembered(database, name)


def test_what_an_older_ktrdr_has_brought_back_goes_when_it_is_next_stored(
    database: Engine,
) -> None:
    """It does not look at what was forgotten, and may share the database for a while."""
    name = uuid4().hex
    store = SqlOperationStore(database, name)
    for write in (store.save, store.finish):
        store.finish(record(status=S.COMPLETED))
        store.delete("op")
        with database.connect() as connection:
            row = record_to_row(name, record(status=S.RUNNING))
            connection.execute(OPERATIONS.insert(), row)
        assert record(status=S.RUNNING) == store.get("op")

        assert (None, None) == (write(record(status=S.RUNNING)), store.get("op"))
