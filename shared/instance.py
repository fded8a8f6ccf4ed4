"""Who a process is: the same instance over its restarts, a new incarnation at each start.

The id is kept in the process's state folder, and locked while the process runs:
two processes that are one instance would answer for each other's work. The lock
lies on the very file that holds the id, so that an id cannot be had without it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import uuid4

from shared.durable import sync_folder
from shared.settings import SettingsError, usable_folder

_VARIABLE = "KTRDR_HOME"
_KEPT = re.compile(r"([0-9a-f]{32})\n?")
_PID = re.compile(rb"([0-9]{1,10})\n")
_MOST = 200
"""Bytes read of a file; what is longer is no id anyway."""


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
    The claim ends with the block, and with the process however it ends.
    """
    usable_folder(state, _VARIABLE)
    path, pid = state / f"{name}.instance", state / f"{name}.pid"
    try:
        _make(path)
        file = os.open(path, os.O_RDWR)
    except OSError as error:
        raise SettingsError(
            f"{_VARIABLE}: {path} cannot be used ({error.strerror}); make it readable and "
            "writable, or name another folder"
        ) from error
    try:
        _lock(file, pid)
        instance = Instance(_identity(file, path), uuid4().hex)
        _note(pid)
        try:
            yield instance
        finally:
            with suppress(OSError):
                pid.unlink()  # before the lock is given up: the next holder's is not ours
    finally:
        os.close(file)  # gives the lock up


def _make(path: Path) -> None:
    """Make the file with a new id if there is none: whole, or not at all.

    Of several who try at once one makes it; a link, unlike a rename, replaces nothing.
    """
    if path.exists():
        return
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-") as unfinished:
        unfinished.write(f"{uuid4().hex}\n".encode())
        unfinished.flush()
        os.fsync(unfinished.fileno())
        with suppress(FileExistsError):
            os.link(unfinished.name, path)
            sync_folder(path.parent)


def _lock(file: int, pid: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingsError(
            f"{_VARIABLE}: another {pid.stem}{_holder(pid)} is using {pid.parent}; stop it, or set "
            f"{_VARIABLE} to another folder for this one"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"{_VARIABLE}: nothing can be locked in {pid.parent} ({error.strerror}); name a folder "
            "on a file system that has locks"
        ) from error


def _identity(file: int, path: Path) -> str:
    """Read the id; what is none is never replaced by a new one in silence."""
    kept = _KEPT.fullmatch(os.pread(file, _MOST, 0).decode("ascii", "replace"))
    if kept is None:
        raise SettingsError(
            f"{_VARIABLE}: {path} does not hold the id of an instance (32 hexadecimal digits). "
            "Restore it from a copy; or delete it to start as a new instance, which does not own "
            "what the old one has recorded"
        )
    return kept[1]


def _note(pid: Path) -> None:
    """Tell others who holds the claim; only a courtesy, so it may fail."""
    with suppress(OSError):
        pid.write_text(f"{os.getpid()}\n", encoding="ascii")


def _holder(pid: Path) -> str:
    """` (pid N)` as the holder noted it, or nothing."""
    with suppress(OSError):
        noted = _PID.fullmatch(pid.read_bytes()[:_MOST])
        return f" (pid {noted[1].decode()})" if noted else ""
    return ""
