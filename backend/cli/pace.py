"""How often to look, how long to bear an outage, and how to let time pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """The rhythm of a command that looks repeatedly."""

    pause: Callable[[float], None] = time.sleep
    """Lets so many seconds pass."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds from an arbitrary start."""
    interval: float = 0.5
    """Seconds between two looks."""
    patience: float = 30.0
    """Seconds without an answer after which a watch gives up."""
