from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from sqlalchemy import Engine, inspect

from shared.operations.migration import REVISIONS, NewerDatabaseError, migrate, migration_context
from shared.operations.model import OperationStatus
from shared.operations.postgres_database import postgres_engine
from shared.operations.sql_schema import METADATA
from shared.operations.sql_store import SqlOperationStore
from shared.operations.sqlite_database import sqlite_engine
from shared.operations.store import OperationFilter
from tests.support.postgres import PostgresServer
from tests.unit.operations.fakes import metric, record, steps

NEXT = '''
"""A revision that is yet to come."""
from alembic import op
import sqlalchemy as sa

revision, down_revision = "9999", "0003"

def upgrade() -> None:
    op.add_column("operations", sa.Column("mood", sa.Text))
    {then}
'''
START = """
import sys
from datetime import UTC, datetime
from shared.operations.database import open_store
from shared.operations.model import *
from shared.settings import load_settings, ProcessSettings
store = open_store(load_settings(ProcessSettings), "backend")
day = datetime(2026, 1, 1, tzinfo=UTC)
new = Operation(sys.argv[1], OperationType.TRAINING, OperationStatus.PENDING, day, day)
store.create(OperationRecord(new, Owner("me", "first", "a:1"), "request", "fingerprint"))
store.close()
print("ready")
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        (tmp_path / "empty.db").touch()
        return f"sqlite:///{tmp_path}/empty.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def engine(url: str) -> Engine:
    if url.startswith("sqlite"):
        return sqlite_engine(Path(url.removeprefix("sqlite:///")), 2)
    return postgres_engine(url, 2, "ktrdr test")


@pytest.fixture
def newer(tmp_path: Path) -> Callable[..., Path]:
    """The revisions there are, and one more that does what it is told at its end."""

    def make(then: str = "pass") -> Path:
        folder = tmp_path / f"revisions-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(REVISIONS, folder)
        (folder / "next.py").write_text(NEXT.replace("{then}", then), encoding="utf-8")
        return folder

    return make


def columns(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return {column["name"] for column in inspect(connection).get_columns("operations")}


def test_the_revisions_make_the_tables_that_the_code_knows(engine: Engine) -> None:
    migrate(engine)
    with engine.connect() as connection:
        assert [] == compare_metadata(migration_context(connection), METADATA)
    engine.dispose()


def test_what_is_up_to_date_is_left_alone(engine: Engine) -> None:
    migrate(engine)
    store = SqlOperationStore(engine, "backend")
    store.create(record("op"))
    migrate(engine)

    assert record("op") == store.get("op")
    engine.dispose()


def test_records_of_an_older_ktrdr_are_kept(engine: Engine, newer: Callable[..., Path]) -> None:
    migrate(engine)
    store = SqlOperationStore(engine, "backend")
    store.finish(record("op", status=OperationStatus.COMPLETED), [metric(1), metric(2)])
    assert "mood" not in columns(engine)
    migrate(engine, newer())

    assert "mood" in columns(engine)
    assert record("op", status=OperationStatus.COMPLETED) == store.get("op")
    assert [1, 2] == steps(store.metrics("op", 0, 10))
    engine.dispose()


def test_what_a_newer_ktrdr_has_written_is_refused(
    engine: Engine, newer: Callable[..., Path]
) -> None:
    migrate(engine, newer())

    with pytest.raises(NewerDatabaseError, match="9999"):
        migrate(engine)
    engine.dispose()


def test_a_migration_that_fails_leaves_everything_as_it_was(
    engine: Engine, newer: Callable[..., Path]
) -> None:
    migrate(engine)
    with pytest.raises(Exception, match="nonsense"):
        migrate(engine, newer("op.execute('nonsense')"))

    assert "mood" not in columns(engine)
    migrate(engine)
    assert None is SqlOperationStore(engine, "backend").get("op")
    engine.dispose()


@pytest.mark.slow
def test_several_processes_start_at_once_on_an_empty_database(
    url: str, engine: Engine, tmp_path: Path
) -> None:
    environment = {**os.environ, "KTRDR_STATE_URL": url, "KTRDR_HOME": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", START]
    processes = [
        subprocess.Popen(
            [*command, f"op-{number}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for number in range(4)
    ]
    said = [process.communicate(timeout=60) for process in processes]

    assert [("ready\n", "")] * 4 == said
    store = SqlOperationStore(engine, "backend")
    assert 4 == store.count(OperationFilter())
    engine.dispose()
