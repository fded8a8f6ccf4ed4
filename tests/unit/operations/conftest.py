"""What tests of stores may ask for: the same store in memory and in two databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from shared.operations.memory_store import MemoryOperationStore
from shared.operations.sql_store import SqlOperationStore
from shared.operations.store import OperationStore
from tests.support.postgres import PostgresServer
from tests.support.stores import postgres_database, sqlite_database

NewStore = Callable[[], OperationStore]
"""Makes a store that is empty."""


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database in a file, for all tests that need nothing of their own."""
    engine = sqlite_database(tmp_path_factory.mktemp("state") / "tests.db")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_tables(postgres: PostgresServer) -> Iterator[Engine]:
    """A database in a server, likewise."""
    engine = postgres_database(postgres)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session", params=["sqlite_file", "postgres_tables"])
def database(request: pytest.FixtureRequest) -> Engine:
    """Either of them."""
    engine: Engine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture(scope="session", params=[None, "sqlite_file", "postgres_tables"])
def new_store(request: pytest.FixtureRequest) -> NewStore:
    """What makes stores of every kind."""
    if request.param is None:
        return MemoryOperationStore
    engine: Engine = request.getfixturevalue(request.param)
    return lambda: SqlOperationStore(engine, uuid4().hex)  # a new service has no records


@pytest.fixture
def store(new_store: NewStore) -> OperationStore:
    """An empty store."""
    return new_store()
