"""A program of ours as a process of its own: started, ready for calls, ended.

For the demo, and for tests and measurements that want real processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN = 60.0
STOPPED_WITHIN = 20.0
_OTHER_SETTINGS = {"OPERATIONS_CACHE_TTL", "TRAINING_HOST_SERVICE_URL", "IB_HOST_SERVICE_URL"}


class ProgramError(Exception):
    """A program did not get ready; the text says where it has said why."""


class Program:
    """A process of ours that is ready for calls; who has started it ends it, or uses `with`."""

    def __init__(
        self,
        name: str,
        home: Path,
        log: Path,
        settings: Mapping[str, str],
        *,
        command: Sequence[str] = (),
        own_session: bool = False,
    ) -> None:
        """Run `python -m {name}`, or `command` in its place, on a free port unless told otherwise.

        Its files are in `home`; what it logs is added to `log`. In a session of its
        own it does not get Ctrl-C. Raises ProgramError if it does not get ready.
        """
        self.log = log
        at = {"KTRDR_HOME": str(home), f"KTRDR_{name.upper()}_ADDRESS": "127.0.0.1:0"}
        with log.open("a") as stream:
            self.process = subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, "-m", *(command or (name,))],
                cwd=ROOT,
                env={**clean_environment(), **at, **settings},
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                start_new_session=own_session,
            )
        try:
            self.address = self._ready(name)
        except BaseException:  # nobody else knows of it yet
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _ready(self, name: str) -> str:
        """Wait for the line that says where it listens."""
        impatience = threading.Timer(READY_WITHIN, self.process.kill)
        impatience.start()
        try:
            line = self.process.stdout.readline() if self.process.stdout else ""
        finally:
            impatience.cancel()
            impatience.join()
        ready = f"{name} ready on "
        if not line.startswith(ready):
            raise ProgramError(f"{name} did not start; {self.log} says why.")
        return line.removeprefix(ready).strip()

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Stop it in order, if it has not ended, and give everything back."""
        self._stop()

    def _stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of another ktrdr."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KTRDR_") and name not in _OTHER_SETTINGS
    }
