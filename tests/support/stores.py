"""Databases that stores of tests are kept in."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, event

from shared.operations.migration import migrate
from shared.operations.postgres_database import postgres_engine
from shared.operations.sqlite_database import sqlite_engine
from tests.support.postgres import PostgresServer


def sqlite_database(path: Path, *, connections: int = 4, lock_timeout: float = 5.0) -> Engine:
    """Make a database in a file, up to date; it does not wait for the disk."""
    path.touch()
    engine = sqlite_engine(path, connections, lock_timeout=lock_timeout)
    event.listen(engine, "connect", lambda db, _: db.execute("PRAGMA synchronous = OFF"))
    migrate(engine)
    return engine


def postgres_database(server: PostgresServer, *, connections: int = 4, options: str = "") -> Engine:
    """Make a database in a server, up to date."""
    engine = postgres_engine(server.new_database(options), connections, "ktrdr test")
    migrate(engine)
    return engine
