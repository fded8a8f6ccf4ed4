"""A flight: one read of a source that is on its way."""

from __future__ import annotations

from shared.operations.latch import Latch
from shared.rpc.errors import KtrdrError


class Flight:
    """One read of a source; whoever needs what it brings waits for `done`."""

    __slots__ = ("done", "error", "number", "sent_at", "staleness")

    def __init__(self, number: int, sent_at: float, staleness: float) -> None:
        self.number = number
        self.sent_at = sent_at
        self.staleness = staleness
        """What the owner was allowed to answer from its cache, seconds."""
        self.error: KtrdrError | None = None
        """Why it failed; None if it landed or was given up by its own reader."""
        self.done = Latch()
