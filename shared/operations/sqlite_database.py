"""A database in a file: SQLite, with a write-ahead log, so that readers never wait."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

LOCK_TIMEOUT = 5.0
"""Seconds a write waits for another process's."""
_PRAGMAS = (
    "synchronous = FULL",  # what is committed survives the machine, not only the process
    "journal_size_limit = 67108864",  # bytes of the log that stay after a long write
)


def sqlite_engine(path: Path, connections: int, *, lock_timeout: float = LOCK_TIMEOUT) -> Engine:
    """Return an engine for a file that is there; nothing is opened yet.

    `connections` is how many are open at most.
    """
    path = path.absolute()

    def connect() -> sqlite3.Connection:
        # Never makes a file: one that has gone is missed, not replaced by an empty one.
        address = f"file:{quote(str(path))}?mode=rw"
        connection = sqlite3.connect(
            address, uri=True, timeout=lock_timeout, check_same_thread=False
        )
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()
        return connection

    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=connect,
        hide_parameters=True,  # an error is logged without people's data
        isolation_level="AUTOCOMMIT",  # transactions are begun and committed by name
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=lock_timeout,
    )
    event.listen(engine, "connect", lambda _, entry: entry.info.update(file=_file(path)))
    event.listen(engine, "checkout", lambda _, entry, __: _replace_stale(entry, path))
    return engine


def _replace_stale(entry: ConnectionPoolEntry, path: Path) -> None:
    """Have the pool open the file that is there now, if the one it has was moved away."""
    if entry.info.get("file") != _file(path):
        raise DisconnectionError


def _file(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
