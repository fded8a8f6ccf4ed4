"""What a run of the command left behind, and the time it ran in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of the command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)

    @property
    def complaint(self) -> str:
        """What was said on stderr, without boxes and line breaks."""
        return " ".join(self.stderr.replace("│", " ").split())


@dataclass
class FakeTime:
    """Time that passes only in pauses, and what happens in them."""

    pauses: list[float] = field(default_factory=list)
    during: dict[int, Callable[[], None]] = field(default_factory=dict)
    """What happens in the n-th pause, from 1."""

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(seconds)
        self.during.get(len(self.pauses), lambda: None)()

    def monotonic(self) -> float:
        """The time that has passed."""
        return sum(self.pauses)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        raise KeyboardInterrupt


Run = Callable[..., Outcome]
