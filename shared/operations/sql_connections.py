"""Connections to the database: reading, writing as one, and its errors in words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.clock import Clock
from shared.operations.breaker import Breaker
from shared.operations.database_faults import UNFIT, fault_of, name_of
from shared.rpc.errors import StoreUnavailableError

BEGIN = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}
"""SQLite takes the write lock at once: who reads first and then writes may deadlock."""
PATIENCE = 5.0
"""Seconds a caller waits for a connection that others use."""


class Connections:
    """Lends connections of an engine that commits by itself; raises StoreUnavailableError only.

    Of its pool, one part is for writing, so that long writes and those that
    wait for them keep nobody from reading.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self._begin = BEGIN[engine.dialect.name]
        self._name = name_of(engine)
        self._errors = (SQLAlchemyError, engine.dialect.loaded_dbapi.Error, *UNFIT)
        # SQLite has one writer at a time; the others wait here, in turn.
        connections: int = engine.pool.size()  # type: ignore[attr-defined]  # it is a QueuePool
        writers = 1 if engine.dialect.name == "sqlite" else connections // 2
        self._writers = threading.BoundedSemaphore(writers)
        self._readers = threading.BoundedSemaphore(connections - writers)
        self._reach = Breaker(clock)
        self._write = Breaker(clock)

    @contextmanager
    def reading(self, what: str) -> Iterator[Connection]:
        """Lend a connection to read; `what` cannot be done if that fails."""
        with self._lent(what, self._readers, self._reach) as connection:
            yield connection
        self._reach.reset()

    @contextmanager
    def writing(self, what: str) -> Iterator[Connection]:
        """Lend a connection to write: what is written is committed at the end, or not at all."""
        with self._lent(what, self._writers, self._reach, self._write) as connection:
            connection.exec_driver_sql(self._begin)
            yield connection
            connection.exec_driver_sql("COMMIT")
        self._reach.reset()
        self._write.reset()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _lent(
        self, what: str, places: threading.BoundedSemaphore, *breakers: Breaker
    ) -> Iterator[Connection]:
        for breaker in breakers:
            breaker.check()  # before a place is waited for, which those who try may have
        if not places.acquire(timeout=PATIENCE):
            raise StoreUnavailableError(f"{what}: {self._name} is busy with others' requests.")
        try:
            for breaker in breakers:
                breaker.enter()
            # On its way back, a connection rolls back what was not committed.
            with self.engine.connect() as connection:
                try:
                    yield connection
                except self.engine.dialect.loaded_dbapi.Error:
                    connection.invalidate()  # SQLAlchemy has not seen it, so it does not know
                    raise
        except self._errors as error:
            raise self._unavailable(what, error) from error
        finally:
            places.release()

    def _unavailable(self, what: str, error: Exception) -> StoreUnavailableError:
        fault = fault_of(error, self._name)
        unavailable = StoreUnavailableError(f"{what}: {fault.sentence}.")
        if fault.away:
            self._reach.trip(unavailable)
        if fault.busy:
            self._write.trip(unavailable)
        return unavailable
