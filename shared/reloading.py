"""Values read from files, and read again once the files have changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from shared.clock import Clock, SystemClock
from shared.rpc.errors import KtrdrError

logger = logging.getLogger("ktrdr.security")

INTERVAL = 1.0
"""Seconds between two looks at the files."""

T = TypeVar("T")


class Reloading(Generic[T]):
    """What some files say: as they are or, while they are broken, as they were.

    Nobody watches them: whoever asks looks, at most once per INTERVAL. Safe to use
    from several threads without a lock: each field is replaced as a whole, and
    two who look at the same time read the same.
    """

    def __init__(
        self, paths: Sequence[Path], read: Callable[[], T], clock: Clock | None = None
    ) -> None:
        """`read` raises a KtrdrError, here as well, if the files cannot be used."""
        self._paths = tuple(paths)
        self._read = read
        self._clock = clock or SystemClock()
        self._state = _state(self._paths)  # first: what changes meanwhile is seen later
        self._value = read()
        self._look_at = self._clock.monotonic() + INTERVAL

    @property
    def latest(self) -> T:
        """The value as it was read last, without a look at the files."""
        return self._value

    def get(self) -> T:
        """Return the value; costs a look at a clock, once per INTERVAL at the files."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._look_at = now + INTERVAL
            self._look()
        return self._value

    def _look(self) -> None:
        """Read the files again if they have changed; broken ones are told once."""
        state = _state(self._paths)
        if state == self._state:
            return
        try:
            value = self._read()
        except KtrdrError as error:
            logger.error("Still using what was read before: %s", error.message)  # noqa: TRY400  # no defect of ours
        else:
            if _state(self._paths) != state:
                return  # being written: the next look gets all of it
            self._value = value
            logger.info("Read again: %s", ", ".join(str(path) for path in self._paths))
        self._state = state


def _state(paths: Sequence[Path]) -> tuple[tuple[int, ...] | None, ...]:
    """What differs once a file is written, replaced, removed, or may be read by others."""
    return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
