from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import psycopg
import pytest

from shared.operations.migration import UnfitDatabaseError, migrate
from shared.operations.model import OperationStatus
from shared.operations.postgres_database import BoundedConnection, UnusableUrlError, postgres_engine
from shared.operations.sql_store import SqlOperationStore
from shared.operations.store import ACTIVE, OperationFilter
from shared.rpc.errors import StoreUnavailableError
from tests.support.eventually import eventually
from tests.support.postgres import PASSWORD, PostgresServer
from tests.support.relay import Relay
from tests.support.stores import postgres_database
from tests.unit.operations.fakes import LongLog, in_threads, metric, record, steps

S = OperationStatus
ANY = OperationFilter()


@pytest.fixture
def store(postgres: PostgresServer) -> Iterator[SqlOperationStore]:
    store = SqlOperationStore(postgres_database(postgres), "backend")
    yield store
    store.close()


def heals(store: SqlOperationStore) -> None:
    """Wait until the store answers again."""

    def answers() -> bool:
        try:
            store.count(ANY)
        except StoreUnavailableError:
            return False
        return True

    eventually(answers)


def test_a_stopped_server_is_named_with_the_mend_and_found_again(
    postgres: PostgresServer, store: SqlOperationStore
) -> None:
    store.create(record("op"))
    with postgres.stopped():
        with pytest.raises(StoreUnavailableError) as raised:
            store.finish(record("op", status=S.COMPLETED), [metric(1)])
        with pytest.raises(StoreUnavailableError):
            store.get("op")
    heals(store)

    assert raised.value.message.startswith("Operation op could not be stored: the database test_")
    assert "cannot be reached or does not answer" in raised.value.message
    assert record("op") == store.get("op")


def test_a_restart_between_two_calls_is_not_noticed(
    postgres: PostgresServer, store: SqlOperationStore
) -> None:
    store.create(record("op"))
    postgres.restart()

    assert record("op") == store.get("op")
    postgres.restart()
    assert record("op", status=S.FAILED) == store.finish(record("op", status=S.FAILED))


@pytest.mark.slow
def test_a_frozen_server_is_an_error_and_not_a_hang(
    postgres: PostgresServer, store: SqlOperationStore
) -> None:
    store.create(record("op"))
    with postgres.frozen():
        start = monotonic()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.get("op")
        first = monotonic()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.save(record("op", status=S.RUNNING))
        second = monotonic()
    heals(store)

    assert 1.5 < first - start < 4.5
    assert second - first < 0.5  # known a moment before
    assert record("op") == store.get("op")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of silence is too long."""
    monkeypatch.setattr(BoundedConnection, "silence", 0.5)


@pytest.mark.usefixtures("impatient")
def test_of_many_who_ask_a_frozen_server_nobody_waits_longer_than_one(
    postgres: PostgresServer, store: SqlOperationStore
) -> None:
    store.create(record("op"))
    waited: list[float] = []

    def ask(_: int) -> None:
        start = monotonic()
        try:
            store.get("op")
        except StoreUnavailableError:
            waited.append(monotonic() - start)

    with postgres.frozen():
        assert [] == in_threads(24, ask)
    heals(store)

    assert 24 == len(waited)
    assert max(waited) < 4  # for a new connection a server has two seconds


@pytest.mark.usefixtures("impatient")
def test_a_server_that_freezes_while_it_writes_is_given_up(
    postgres: PostgresServer, store: SqlOperationStore
) -> None:
    """And writes nothing of it once it is back."""
    store.create(record("op"))
    with ExitStack() as until_then:
        log = LongLog(20_000, lambda: until_then.enter_context(postgres.frozen()))
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.finish(record("op", status=S.COMPLETED), log)
    heals(store)

    assert record("op") == store.get("op")
    assert () == store.metrics("op", 0, 10)


def test_a_commit_whose_answer_was_lost_is_found_when_it_is_repeated(
    postgres: PostgresServer,
) -> None:
    database = postgres_database(postgres)
    relay = Relay(f"127.0.0.1:{postgres.port}")
    url = postgres.url(str(database.url.database)).replace(f":{postgres.port}", "")
    port = relay.address.rpartition(":")[2]
    store = SqlOperationStore(postgres_engine(f"{url}?port={port}", 4, "ktrdr test"), "backend")
    store.create(record("op"))

    relay.before(b"C\x00\x00\x00\x0bCOMMIT", relay.cut)  # the server's word that it has
    with pytest.raises(StoreUnavailableError):
        store.finish(record("op", status=S.COMPLETED), [metric(1), metric(2)])
    relay.restore()
    heals(store)

    found = store.get("op")
    again = store.finish(record("op", status=S.COMPLETED), [metric(1), metric(2)])
    assert record("op", status=S.COMPLETED) == found == again
    assert [1, 2] == steps(store.metrics("op", 0, 10))
    store.close()
    relay.close()
    database.dispose()


def test_a_locked_row_is_not_waited_for_for_long(
    postgres: PostgresServer, store: SqlOperationStore
) -> None:
    store.create(record("op"))
    with psycopg.connect(url_of(postgres, store)) as other:
        other.execute("SELECT * FROM operations FOR UPDATE")
        with pytest.raises(StoreUnavailableError, match=r"another transaction keeps .* locked"):
            store.save(record("op", status=S.RUNNING))
        assert record("op") == store.get("op")  # who reads is not kept

    assert record("op", status=S.RUNNING) == store.save(record("op", status=S.RUNNING))


def test_a_standby_is_named_as_one(postgres: PostgresServer, store: SqlOperationStore) -> None:
    name = str(store._connections.engine.url.database)
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store._connections.engine.dispose()  # later connections are told

    with pytest.raises(StoreUnavailableError, match=r"is read-only\. Name the primary"):
        store.create(record("op"))
    assert store.get("op") is None


def test_the_order_is_that_of_code_points_whatever_the_locale(postgres: PostgresServer) -> None:
    if postgres.version < 15:
        pytest.skip("PostgreSQL before 15 cannot make a database with a locale of ICU's")
    options = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'"
    engine = postgres_database(postgres, options=options)
    store = SqlOperationStore(engine, "backend")
    for operation_id in ("b", "a", "B", "a-1", "a1", "é", "z"):
        store.create(record(operation_id))

    expected = ["é", "z", "b", "a1", "a-1", "a", "B"]
    assert expected == [each.operation.operation_id for each in store.page(ANY, None, 10)]
    assert expected == [each.operation.operation_id for each in store.page(ACTIVE, None, 10)]
    engine.dispose()


def test_a_database_in_another_encoding_is_refused(postgres: PostgresServer) -> None:
    url = postgres.new_database("TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    engine = postgres_engine(url, 2, "ktrdr test")

    with pytest.raises(UnfitDatabaseError, match=r"is encoded in LATIN1\. Create one with"):
        migrate(engine)
    engine.dispose()


def test_the_server_sees_who_is_connected_and_nobody_sees_the_password(
    postgres: PostgresServer, store: SqlOperationStore
) -> None:
    with store._connections.reading("Nothing could be read") as connection:
        shown = connection.exec_driver_sql("SHOW application_name").scalar_one()

    assert "ktrdr test" == shown
    assert PASSWORD not in repr(store._connections.engine.url)
    assert store._connections.engine.url.password is None


def test_what_the_url_says_comes_before_our_own(postgres: PostgresServer) -> None:
    url = f"{postgres.url()}?connect_timeout=9&options=-c%20search_path%3Dmine"
    engine = postgres_engine(url, 2, "ktrdr test")
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        timeout = driver.info.get_parameters()["connect_timeout"]
        path = connection.exec_driver_sql("SHOW search_path").scalar_one()
        bound = connection.exec_driver_sql("SHOW statement_timeout").scalar_one()
    engine.dispose()

    assert ("9", "mine", "2800ms") == (timeout, path, bound)


@pytest.mark.parametrize("url", ["postgresql://h:p@x:y@z/%ZZ", "postgresql://h?nonsense=1"])
def test_what_libpq_cannot_read_is_no_url(url: str) -> None:
    with pytest.raises(UnusableUrlError):
        postgres_engine(url, 2, "ktrdr test")


def url_of(postgres: PostgresServer, store: SqlOperationStore) -> str:
    return postgres.url(str(store._connections.engine.url.database))
