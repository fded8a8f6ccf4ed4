"""A ktrdr process that kills itself at one call of its store.

`python -m tests.support.crashing backend 3 after` is `python -m backend`, until it
has written its third record. Everything else is the process's own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import count
from typing import Any

from shared.operations.sql_store import SqlOperationStore
from shared.settings import ProcessSettings

WRITES = ("create", "discard", "save", "finish", "mark_read", "delete", "prune")


class CrashingStore:
    """A store that ends its process before or after its `number`-th write."""

    def __init__(self, store: SqlOperationStore, number: int, when: str) -> None:
        self._store = store
        self._number = number
        self._when = when
        self._calls = count(1)

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._store, name)
        return self._crashing(method) if name in WRITES else method

    def _crashing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            here = next(self._calls) == self._number
            if here and self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = method(*arguments)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return call


def main(process: str, number: str, when: str) -> None:
    """Run the process as its own `main` does, but for the store."""
    root: Any = import_module(f"{process}.__main__")
    open_store = root.open_store

    def crashing(settings: ProcessSettings, service: str) -> CrashingStore:
        return CrashingStore(open_store(settings, service), int(number), when)

    root.open_store = crashing
    root.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
