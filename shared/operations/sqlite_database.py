"""A database in a file: SQLite, with a write-ahead log, so that readers never wait."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

LOCK_TIMEOUT = 5.0
"""Seconds a write waits for those of others."""


def sqlite_engine(path: Path, connections: int, *, lock_timeout: float = LOCK_TIMEOUT) -> Engine:
    """Return an engine for a file, which is made if there is none; nothing is opened yet.

    `connections` is how many are open at most.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        isolation_level="AUTOCOMMIT",  # transactions are begun and committed by name
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=lock_timeout,
        connect_args={"timeout": lock_timeout, "check_same_thread": False},
    )
    event.listen(engine, "connect", _set_up)
    return engine


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        "journal_mode = WAL",
        # What is committed survives the machine, not only the process.
        "synchronous = FULL",
        "cache_size = -8000",
    ):
        connection.execute(f"PRAGMA {pragma}").close()
