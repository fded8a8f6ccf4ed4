"""What is wrong with a database, in words: the cause and the mend of what it raised."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a database did not do what it was asked for."""

    sentence: str
    """Cause and mend."""
    away: bool = False
    """Nobody reaches it; so it makes no sense that others wait as well."""
    busy: bool = False
    """Nobody can write for now; reading goes on."""


_FULL = "the disk that holds {name} is full. Make room there"
_READ_ONLY = "{name} cannot be written to. Make the file and its folder writable"
_DAMAGED = "{name} is damaged. Restore a copy, or move it away to begin with an empty one"

_SQLITE: Mapping[str, Fault] = {
    "SQLITE_FULL": Fault(_FULL),
    "SQLITE_BUSY": Fault("{name} is locked by another process. End its transaction", busy=True),
    "SQLITE_LOCKED": Fault("{name} is locked by another process. End its transaction", busy=True),
    "SQLITE_READONLY": Fault(_READ_ONLY),
    "SQLITE_PERM": Fault(_READ_ONLY),
    "SQLITE_CANTOPEN": Fault("{name} cannot be opened. See that its folder is there and writable"),
    "SQLITE_IOERR": Fault("the disk that holds {name} fails or is full. Mend it or make room"),
    "SQLITE_CORRUPT": Fault(_DAMAGED),
    "SQLITE_NOTADB": Fault(_DAMAGED),
}
_POSTGRES: Mapping[str, Fault] = {
    "08": Fault("the connection to {name} broke. Bring it back", away=True),
    "25006": Fault("{name} is read-only. Name the primary, not a standby"),
    "28": Fault("{name} refused the user or the password. Put them right", away=True),
    "3D": Fault("{name} does not exist. Create it", away=True),
    "42501": Fault("{name} does not permit that to this user. Grant it"),
    "53100": Fault("the disk of {name} is full. Make room there"),
    "53200": Fault("{name} is out of memory. Give it more"),
    "53300": Fault("{name} has no connection left. Raise its max_connections", away=True),
    "55P03": Fault("another transaction holds what was to be written in {name}. End it"),
    "57014": Fault("{name} took too long. See what else it is doing"),
    "57P": Fault("{name} is being stopped or started. Bring it back", away=True),
    "58": Fault("the disk of {name} fails. Mend it"),
    "XX001": Fault(_DAMAGED),
    "XX002": Fault(_DAMAGED),
}
_GONE = Fault("{name} cannot be reached. Bring it back", away=True)
_UNKNOWN = Fault("{name} failed")


def fault_of(error: BaseException, name: str) -> Fault:
    """Explain what a database raised; `name` is how people know it, without a password."""
    found = _find(error)
    words = _own_words(error) if found is _UNKNOWN else ""
    return Fault(found.sentence.format(name=name) + words, found.away, found.busy)


def _find(error: BaseException) -> Fault:
    if isinstance(error, PoolTimeoutError):
        return Fault("every connection to {name} is in use. Come back in a moment")
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return _by_prefix(_SQLITE, getattr(original, "sqlite_errorname", ""))
    state: str | None = getattr(original, "sqlstate", None)
    if state:
        return _by_prefix(_POSTGRES, state)
    if isinstance(error, DBAPIError) and (error.connection_invalidated or error.statement is None):
        return _GONE
    return _UNKNOWN


def _by_prefix(faults: Mapping[str, Fault], code: str) -> Fault:
    """The fault of a code: its own, or that of its class."""
    found = [key for key in faults if code.startswith(key)]
    return faults[max(found, key=len)] if found else _UNKNOWN


def _own_words(error: BaseException) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    return f" ({' '.join(str(original).split())[:200]})"
