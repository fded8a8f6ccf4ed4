"""A database of a PostgreSQL server, that may be away, restarted or frozen at any time.

A server that answers nothing is an error after a few seconds, never a hang: the
server bounds its statements and its waits for locks, the connection bounds the
silence, since a frozen server keeps no bound itself.
"""

from __future__ import annotations

import select
from collections.abc import Generator, Mapping
from time import monotonic
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import QueuePool

SILENCE = 3.0
"""Seconds a server may take for an answer, before the connection is given up."""
_TIMEOUTS: Mapping[str, int] = {
    "connect_timeout": 2,  # seconds; libpq takes whole ones, from 2 on
    "tcp_user_timeout": 3000,  # milliseconds
    "keepalives_idle": 10,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
_OPTIONS = (
    "-c statement_timeout=2800 -c lock_timeout=2500 -c idle_in_transaction_session_timeout=60000"
)


class UnusableUrlError(Exception):
    """Not a URL as libpq reads it."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is given up if the server says nothing for too long."""

    silence = SILENCE
    """Seconds until it is."""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for what `gen` waits for; OperationalError if the server is silent for too long."""
        try:
            return super().wait(_bounded(gen, self.silence), *args, **kwargs)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:  # not the server's words: what it may still say is nobody's
                self.pgconn.finish()
            raise

    @property
    def stale(self) -> bool:
        """Whether it is of no use: something is to be read though nothing was asked."""
        if self.closed:
            return True
        waiting = select.poll()
        waiting.register(self.pgconn.socket, select.POLLIN)
        return bool(waiting.poll(0))


def _bounded(gen: Generator[Any, Any, Any], silence: float) -> Generator[Any, Any, Any]:
    """What `gen` yields and returns, for as long as there is an answer now and then.

    psycopg sends what is ready, or every tenth of a second that nothing is.
    """
    heard = monotonic()
    try:
        ready = yield next(gen)
        while True:
            if ready:
                heard = monotonic()
            elif monotonic() - heard > silence:
                raise psycopg.OperationalError(f"no answer for {silence:g} s")
            ready = yield gen.send(ready)
    except StopIteration as done:
        return done.value


def postgres_engine(url: str, connections: int, name: str) -> Engine:
    """Return an engine for the database a libpq URL names; nothing is opened yet.

    `connections` is how many are open at most, `name` what the server sees of
    us. Raises UnusableUrlError.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise UnusableUrlError from error
    options = f"{_OPTIONS} {given.pop('options', '') or ''}".strip()
    parameters = {**_TIMEOUTS, "application_name": name, **given, "options": options}
    address = make_conninfo("", **parameters)
    engine = create_engine(
        _shown(given),
        creator=lambda: BoundedConnection.connect(address),
        hide_parameters=True,  # an error is logged without people's data
        isolation_level="AUTOCOMMIT",  # transactions are begun and committed by name
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=SILENCE,
        use_native_hstore=False,
    )
    event.listen(engine, "checkout", _replace_stale)
    return engine


def _replace_stale(connection: BoundedConnection, *_: object) -> None:
    """Have the pool make a new connection in place of one that broke in it.

    A look at the socket costs nothing beside a ping, which would have to wait
    for a frozen server.
    """
    if connection.stale:
        raise DisconnectionError


def _shown(given: Mapping[str, Any]) -> URL:
    """What the engine knows of the address: for people, so without a password."""
    return URL.create(
        "postgresql+psycopg",
        host=given.get("host") or given.get("hostaddr"),
        port=int(given["port"]) if str(given.get("port", "")).isdecimal() else None,
        database=given.get("dbname"),
    )
