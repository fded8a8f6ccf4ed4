"""What is wrong with a database, in words: the cause and the mend of what it raised."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a database did not do what it was asked for."""

    sentence: str
    """Cause and mend, without the last full stop."""
    away: bool = False
    """Nobody reaches it; so it makes no sense that others try as well."""
    busy: bool = False
    """Nobody can write for now; reading goes on."""


UNFIT = (ValueError, TypeError, KeyError, OverflowError)
"""What a row raises that does not fit a record, or a record that does not fit a row."""
_FULL = "the disk that holds {name} is full. Make room there"
_READ_ONLY = "{name} cannot be written to. Make the file and its folder writable"
_DAMAGED = "{name} is damaged. Restore a copy, or move it away to begin with an empty one"
_LOCKED = Fault("{name} is locked by another process. End what it does there", busy=True)
_SQLITE: Mapping[str, Fault] = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_CANTOPEN": Fault("{name} cannot be opened. See that it is there and its folder too"),
    "SQLITE_CORRUPT": Fault(_DAMAGED),
    "SQLITE_FULL": Fault(_FULL),
    "SQLITE_IOERR": Fault("the disk that holds {name} fails or is full. Mend it or make room"),
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_NOTADB": Fault(_DAMAGED),
    "SQLITE_PERM": Fault(_READ_ONLY),
    "SQLITE_READONLY": Fault(_READ_ONLY),
}
"""By SQLite's own names of results; https://sqlite.org/rescode.html."""
_POSTGRES: Mapping[str, Fault] = {
    "08": Fault("the connection to {name} broke. Bring it back", away=True),
    "25006": Fault("{name} is read-only. Name the primary, not a standby"),
    "28": Fault("{name} refused the user or the password. Put them right", away=True),
    "3D": Fault("{name} does not exist. Create it", away=True),
    "42501": Fault("{name} does not permit that to this user. Grant it"),
    "53100": Fault(_FULL),
    "53200": Fault("{name} is out of memory. Give it more"),
    "53300": Fault("{name} has no connection left. Raise its max_connections", away=True),
    "55P03": Fault("another transaction keeps {name} locked. End it"),
    "57014": Fault("{name} took too long. See what else it is doing"),
    "57P": Fault("{name} is being stopped or started. Bring it back", away=True),
    "58": Fault("the disk of {name} fails. Mend it"),
    "XX001": Fault(_DAMAGED),
    "XX002": Fault(_DAMAGED),
}
"""By SQLSTATE or its class; https://www.postgresql.org/docs/current/errcodes-appendix.html."""
_GONE = Fault("{name} cannot be reached or does not answer{words}. Bring it back", away=True)
_REFUSED = Fault("{name} refused the connection{words}. Put right what it says", away=True)
_UNKNOWN = Fault("{name} failed{words}")
_UNFIT = Fault("a record does not fit {name}{words}. See whether a newer ktrdr has written it")


def fault_of(error: Exception, name: str) -> Fault:
    """Explain what a database raised; `name` is how people know it."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig else error
    fault = _find(original)
    sentence = fault.sentence.format(name=name, words=_words(original))
    return Fault(sentence, fault.away, fault.busy)


def name_of(engine: Engine) -> str:
    """How people know a database: without a password."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return str(url.database)
    database = f"the database {url.database}" if url.database else "the database"
    port = f":{url.port}" if url.port else ""
    return f"{database} at {url.host or 'the local socket'}{port}"


def _find(error: BaseException) -> Fault:
    if isinstance(error, sqlite3.Error):
        return _by_prefix(_SQLITE, getattr(error, "sqlite_errorname", ""))
    state: str | None = getattr(error, "sqlstate", None)
    if state:
        return _by_prefix(_POSTGRES, state)
    if isinstance(error, UNFIT):
        return _UNFIT
    kinds = {each.__name__ for each in type(error).__mro__ if each.__module__[:7] == "psycopg"}
    if not kinds & {"OperationalError", "InterfaceError"}:
        return _UNKNOWN
    # What psycopg says by itself, or a server that has not accepted the connection.
    return _REFUSED if "FATAL:" in str(error) else _GONE


def _by_prefix(faults: Mapping[str, Fault], code: str) -> Fault:
    """The fault of a code: its own, or that of its class."""
    found = max((key for key in faults if code.startswith(key)), key=len, default="")
    return faults.get(found, _UNKNOWN)


def _words(error: BaseException) -> str:
    """What the database says itself: the end of its first line, in brackets."""
    line = str(error).strip().partition("\n")[0]
    said = line.rpartition("FATAL:")[2].rpartition("failed:")[2].strip()
    return f" ({said[:300]})" if said else ""
