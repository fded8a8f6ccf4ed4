"""Connections to the database: reading, writing as one, and its errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.clock import Clock
from shared.operations.breaker import Breaker
from shared.operations.database_faults import fault_of
from shared.rpc.errors import StoreUnavailableError

_BEGIN = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}
"""SQLite takes the write lock at once: who reads first and then writes may deadlock."""


class Connections:
    """Lends connections of an engine that commits by itself; raises StoreUnavailableError only."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self._begin = _BEGIN[engine.dialect.name]
        self._name = name_of(engine)
        self._reach = Breaker(clock)
        self._write = Breaker(clock)

    @contextmanager
    def reading(self, what: str) -> Iterator[Connection]:
        """Lend a connection to read; `what` cannot be done if that fails."""
        with self._lent(what) as connection:
            yield connection

    @contextmanager
    def writing(self, what: str) -> Iterator[Connection]:
        """Lend a connection to write: what is written is committed at the end, or not at all."""
        self._write.enter()
        with self._lent(what) as connection:
            connection.exec_driver_sql(self._begin)
            yield connection
            connection.exec_driver_sql("COMMIT")
        self._write.reset()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _lent(self, what: str) -> Iterator[Connection]:
        self._reach.enter()
        try:
            # On its way back, a connection rolls back what was not committed.
            with self.engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error, *_UNFIT) as error:
            raise self._unavailable(what, error) from error
        self._reach.reset()

    def _unavailable(self, what: str, error: Exception) -> StoreUnavailableError:
        fault = fault_of(error, self._name)
        unavailable = StoreUnavailableError(f"{what}: {fault.sentence}.")
        if fault.away:
            self._reach.trip(unavailable)
        if fault.busy:
            self._write.trip(unavailable)
        return unavailable


_UNFIT = (ValueError, TypeError, KeyError, OverflowError)
"""What a row raises that does not fit a record, or a record that does not fit a row."""


def name_of(engine: Engine) -> str:
    """How people know a database: without a password."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return url.database or "the database"
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL at {url.host or 'its socket'}{port}/{url.database or ''}"
