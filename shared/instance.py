"""Who a process is: the same instance over its restarts, a new incarnation at each start.

The id is kept in the process's state folder, and locked while the process runs:
two processes that are one instance would answer for each other's work.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from shared.settings import SettingsError

_KEPT = re.compile(r"([0-9a-f]{32})\n(?:pid [0-9]+\n)?")


@dataclass(frozen=True, slots=True)
class Instance:
    """One process in one of its lives."""

    id: str
    """Kept over restarts."""
    incarnation: str
    """New at each start."""


@contextmanager
def claimed_instance(state: Path, name: str) -> Iterator[Instance]:
    """Be the instance that `{state}/{name}.instance` names; made up at the first start.

    Raises SettingsError if another process is it, or if the file cannot be used.
    """
    path = state / f"{name}.instance"
    try:
        state.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SettingsError(
            f"KTRDR_HOME: {path} cannot be written to ({error.strerror}); name a folder that can"
        ) from error
    try:
        _lock(file, path)
        yield Instance(_identity(file, path), uuid4().hex)
    finally:
        os.close(file)  # gives the lock up


def _lock(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = re.search(rb"pid ([0-9]+)", os.pread(file, 200, 0))
        who = f"process {holder[1].decode()}" if holder else "another process"
        raise SettingsError(
            f"KTRDR_HOME: {who} uses {path.parent} already; stop it or name another folder"
        ) from error


def _identity(file: int, path: Path) -> str:
    """Read the id, or make one up for an empty file; note who holds it."""
    text = os.pread(file, 200, 0).decode("ascii", "replace")
    kept = _KEPT.fullmatch(text)
    if text and kept is None:
        raise SettingsError(
            f"KTRDR_HOME: {path} does not hold an instance id; delete it if no other process's "
            "operations name this one as their owner"
        )
    identity = kept[1] if kept is not None else uuid4().hex
    note = f"{identity}\npid {os.getpid()}\n".encode()
    os.pwrite(file, note, 0)
    os.ftruncate(file, len(note))
    os.fsync(file)
    return identity
