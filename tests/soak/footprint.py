"""Footprints: what processes take up, read from /proc where there is one."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from tests.soak.fleet import Member
from tests.soak.invariants import Footprint, grew

_EVERY = 1.0
"""Seconds between two looks while it is warm."""
_AT_REST_WITHIN = 30.0
"""Seconds that processes have at the end to give back what they have in use."""


def footprint_of(pid: int) -> Footprint | None:
    """What a process takes up now; None if it has gone or the system does not tell."""
    folder = Path("/proc") / str(pid)
    try:
        status = (folder / "status").read_text()
        libraries = set(re.findall(r"\S+\.so\S*$", (folder / "maps").read_text(), re.MULTILINE))
        files = len(list((folder / "fd").iterdir()))
    except OSError:
        return None
    figures = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE))
    if len(figures) < 2:
        return None  # it is ending
    memory = int(figures["VmRSS"]) >> 10
    return Footprint(memory, int(figures["Threads"]), files, len(libraries))


class Scales:
    """Weighs processes: the largest they were when warm, and at rest in the end.

    Only what runs the same code is compared: one that has not trained yet
    has not loaded torch.
    """

    def __init__(self, members: Iterable[Member]) -> None:
        self._members = list(members)
        self._warm: dict[tuple[int, int], Footprint] = {}
        """By process id and how many libraries it had loaded."""
        self.sizes: dict[str, tuple[Footprint, Footprint]] = {}
        """Of each process that was weighed twice: warm, and at the end."""

    def watch(self, after: float, seconds: float, enough: threading.Event) -> None:
        """Weigh again and again for so many seconds, after others of them."""
        if enough.wait(after):
            return
        until = monotonic() + seconds
        while monotonic() < until and not enough.wait(_EVERY):
            for pid in [member.pid for member in self._members]:
                now = footprint_of(pid)
                if now is not None:
                    key = pid, now.libraries
                    self._warm[key] = _largest(now, self._warm.get(key, now))

    def weigh(self) -> dict[str, list[str]]:
        """Weigh those that still live, once they are at rest; what has grown, by name.

        That none could be compared is as bad, unless the system does not tell.
        """
        until = monotonic() + _AT_REST_WITHIN
        while any((grown := self._grown()).values()) and monotonic() < until:
            threading.Event().wait(_EVERY)
        if not grown and footprint_of(os.getpid()) is not None:
            return {"all": ["none was weighed both warm and at the end"]}
        return grown

    def _grown(self) -> dict[str, list[str]]:
        grown = {}
        for member in self._members:
            now = footprint_of(member.pid)
            warm = None if now is None else self._warm.get((member.pid, now.libraries))
            if warm is not None and now is not None:
                self.sizes[member.name] = (warm, now)
                grown[member.name] = grew(warm, now)
        return grown


def _largest(one: Footprint, other: Footprint) -> Footprint:
    return Footprint(
        max(one.memory, other.memory),
        max(one.threads, other.threads),
        max(one.files, other.files),
        one.libraries,
    )
