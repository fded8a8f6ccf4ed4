from __future__ import annotations

import json
import sqlite3

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import OperationalError

from shared.operations.database_faults import Fault, fault_of


def sqlite_error(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError("some words")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (sqlite_error("SQLITE_FULL"), "the disk that holds X is full"),
        (sqlite_error("SQLITE_IOERR_FSYNC"), "the disk that holds X fails"),
        (sqlite_error("SQLITE_READONLY_DIRECTORY"), "X cannot be written to"),
        (sqlite_error("SQLITE_CORRUPT_INDEX"), "X is damaged"),
        (sqlite_error("SQLITE_NOLFS"), "X failed (some words)"),
        (errors.DiskFull("some words"), "the disk that holds X is full"),
        (errors.ReadOnlySqlTransaction("some words"), "X is read-only"),
        (errors.DeadlockDetected("some words"), "X failed (some words)"),
        (errors.UndefinedTable("some\nwords"), "X failed (some)"),
        (psycopg.DataError("some words"), "X failed (some words)"),
        (ValueError("some words"), "a record does not fit X (some words)"),
        (OverflowError("some words"), "a record does not fit X (some words)"),
        (json.JSONDecodeError("some words", "{", 1), "a record does not fit X (some words: line"),
    ],
)
def test_a_cause_is_put_in_words(error: Exception, sentence: str) -> None:
    for raised in (error, OperationalError("SELECT 1", {}, error)):
        found = fault_of(raised, "X")
        assert found.sentence.startswith(sentence)
        assert not found.away
        assert not found.busy


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("connection failed: no route to host"),
        psycopg.InterfaceError("the connection is closed"),
        errors.ConnectionTimeout("connection timeout expired"),
        errors.InvalidPassword("not this one"),
        errors.AdminShutdown("terminating connection due to administrator command"),
        errors.CannotConnectNow("the database system is starting up"),
        errors.TooManyConnections("too many"),
        errors.ConnectionFailure("gone"),
    ],
)
def test_what_nobody_reaches_is_away(error: Exception) -> None:
    assert fault_of(error, "X").away


def test_a_locked_file_is_busy_for_writers_alone() -> None:
    assert Fault(
        "X is locked by another process. End what it does there", away=False, busy=True
    ) == fault_of(sqlite_error("SQLITE_BUSY_SNAPSHOT"), "X")


@pytest.mark.parametrize("words", ["{name}", "{0} and }{", "%s"])
def test_words_of_a_database_are_only_words(words: str) -> None:
    assert f"X failed ({words})" == fault_of(psycopg.DataError(words), "X").sentence
