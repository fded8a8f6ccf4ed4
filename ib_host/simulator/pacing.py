"""The rules about how fast and how much a user of TWS may ask.

They hold for the user, whatever the connection. For one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from ib_host.simulator import refusals
from shared.clock import Clock


@dataclass(frozen=True, slots=True)
class PacingRules:
    """The limits; None lifts one. Seconds by the clock that is given with them."""

    identical_window: float | None = 15.0
    """Within this the same request is refused."""
    burst_window: float = 2.0
    burst_limit: int | None = 6
    """From this many requests for the same contract, exchange and kind in the burst window on,
    they are refused."""
    total_window: float = 600.0
    total_limit: int | None = 60
    """More requests than this in the total window are refused; BID_ASK counts twice."""
    paces_all_bars: bool = False
    """Whether the above holds for every bar size, not only up to 30 seconds."""
    open_limit: int | None = 50
    """Requests that may be open at once."""
    message_limit: int | None = 50
    """Messages a connection may send per second; see MessageRate."""


UNPACED = PacingRules(None, burst_limit=None, total_limit=None)
"""Limits of open requests and messages only."""


@dataclass(frozen=True, slots=True)
class PacedRequest:
    """What the rules look at in a request."""

    identity: Hashable
    """Equal for identical requests."""
    group: Hashable
    """Equal for the same contract, exchange and kind of data."""
    weight: int
    """How much it counts: 2 for BID_ASK."""


class Pacing:
    """Remembers what was asked and refuses what the rules forbid; a refused one does not count."""

    def __init__(self, rules: PacingRules, clock: Clock) -> None:
        self.rules = rules
        self._clock = clock
        self._asked: deque[tuple[float, PacedRequest]] = deque()
        self._open: set[Hashable] = set()

    def open(self, key: Hashable) -> None:
        """Count a request as open; raises Refusal 322 if there are too many."""
        limit = self.rules.open_limit
        if limit is not None and len(self._open) >= limit:
            raise refusals.too_many_open(limit)
        self._open.add(key)

    def close(self, key: Hashable) -> None:
        """Count a request as open no longer."""
        self._open.discard(key)

    @property
    def open_count(self) -> int:
        """How many requests are open."""
        return len(self._open)

    def admit(self, request: PacedRequest) -> None:
        """Remember a request; raises Refusal 162 if it comes too early."""
        now = self._clock.monotonic()
        longest = max(self.rules.total_window, self.rules.identical_window or 0.0)
        while self._asked and now - self._asked[0][0] >= longest:
            self._asked.popleft()
        if self._is_too_fast(request, now):
            raise refusals.pacing()
        self._asked.append((now, request))

    def _is_too_fast(self, request: PacedRequest, now: float) -> bool:
        rules = self.rules
        identical = rules.identical_window is not None and any(
            other.identity == request.identity for other in self._since(now, rules.identical_window)
        )
        burst = [o for o in self._since(now, rules.burst_window) if o.group == request.group]
        total = self._since(now, rules.total_window)
        return (
            identical
            or _exceeds(burst, request, rules.burst_limit and rules.burst_limit - 1)
            or _exceeds(total, request, rules.total_limit)
        )

    def _since(self, now: float, window: float) -> list[PacedRequest]:
        return [request for at, request in self._asked if now - at < window]


def _exceeds(others: list[PacedRequest], request: PacedRequest, limit: int | None) -> bool:
    return limit is not None and sum(o.weight for o in others) + request.weight > limit


class MessageRate:
    """Counts the messages of one connection against the limit per second.

    Messages that pile up on the way come in a burst, so a second's worth may be
    in arrears: what is refused is more than twice the limit in a second, or a
    little more than it for long.
    """

    def __init__(self, rules: PacingRules, clock: Clock) -> None:
        self._limit = rules.message_limit
        self._clock = clock
        self._level = 0.0
        self._last = clock.monotonic()

    def count(self) -> None:
        """Count one message; raises Refusal 100 if it is one too many."""
        if self._limit is None:
            return
        now = self._clock.monotonic()
        self._level = max(0.0, self._level - (now - self._last) * self._limit) + 1
        self._last = now
        if self._level > 2 * self._limit:
            raise refusals.too_many_messages(self._limit)
