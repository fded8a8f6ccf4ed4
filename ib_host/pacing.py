"""IB's limits on asking, kept on our side so that IB has no reason to refuse.

They hold for an IB user, so one Pacing serves all loads of a process. It only
counts: who must wait does so elsewhere, where a cancellation can end the wait.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from shared.clock import Clock, SystemClock


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` in any `seconds`."""

    limit: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PacingLimits:
    """How much may be asked; the defaults are IB's, None lifts one.

    The first three hold for bars of up to 30 seconds and for head timestamps.
    """

    identical: Window | None = Window(1, 15.0)
    """The same request."""
    series: Window | None = Window(5, 2.0)
    """Requests for one contract, exchange and kind of data; the sixth is refused."""
    total: Window | None = Window(60, 600.0)
    """All such requests; BID_ASK counts twice."""
    messages: Window | None = Window(45, 1.0)
    """Messages of any kind: IB allows 50 and then hangs up."""
    open: int | None = 50
    """Requests for data that wait for their answer."""
    margin: float = 0.1
    """Seconds added to the first three, since a request may be faster on its way than the last."""


UNLIMITED = PacingLimits(None, None, None, None, None)
"""For a gateway without rules, such as a simulator told to have none."""

OPEN_PAUSE = 0.25
"""Seconds after which to look again for one of the open requests to have ended."""


@dataclass(frozen=True, slots=True)
class PacedRequest:
    """What the limits look at in a request."""

    identity: Hashable
    """Equal for identical requests."""
    series: Hashable
    """Equal for the same contract, exchange and kind of data."""
    strict: bool
    """Whether it is for a head timestamp, or for bars of up to 30 seconds."""
    weight: int = 1
    """How much it counts: 2 for BID_ASK."""
    messages: int = 1
    """How many messages it takes: 2 if it has to be cancelled once it is answered."""
    is_open: bool = True
    """Whether it counts as open until it is answered; a request for a contract does not."""


class PacingWatch(Protocol):
    """Whoever waits for his turn."""

    def note(self, message: str) -> None:
        """Say what is waited for."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait; raise as soon as the waiting should end."""
        ...


class PacingMonitor(Protocol):
    """Takes note of waits; must not raise or wait."""

    def paced(self, seconds: float, /) -> None:
        """A request had to wait for its turn."""
        ...


class Pacing:
    """Says when a request may be sent; safe to use from several threads."""

    def __init__(
        self,
        limits: PacingLimits | None = None,
        clock: Clock | None = None,
        monitor: PacingMonitor | None = None,
    ) -> None:
        self._monitor = monitor
        self._limits = limits or PacingLimits()
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()  # guards all below
        self._sent: deque[tuple[float, PacedRequest]] = deque()
        self._messages: deque[float] = deque()
        self._open = 0
        self._held_until = -math.inf

    def reserve(self, request: PacedRequest) -> float:
        """Return 0 and count the request as sent, or the seconds until it is worth asking again."""
        with self._lock:
            now = self._clock.monotonic()
            self._forget(now)
            delay = self._delay(request, now)
            if delay <= 0:
                self._count(request, now)
            return max(0.0, delay)

    def release(self, request: PacedRequest) -> None:
        """Count a request that has been reserved as open no longer."""
        if request.is_open:
            with self._lock:
                self._open -= 1

    def withdraw(self, request: PacedRequest) -> None:
        """Count a request that has been reserved, but could not be sent, as sent no longer.

        Its messages count on; a second later they do not either.
        """
        with self._lock:
            for index in reversed(range(len(self._sent))):
                if self._sent[index][1] == request:
                    del self._sent[index]
                    return

    def hold(self, seconds: float) -> None:
        """Send nothing strict for a while: IB says that its limits are reached all the same.

        Other programs of the same user count as well, and so does what was asked
        before this process began.
        """
        with self._lock:
            self._held_until = max(self._held_until, self._clock.monotonic() + seconds)

    @contextmanager
    def turn(self, request: PacedRequest, watch: PacingWatch) -> Iterator[None]:
        """Wait for the request's turn, visibly, and count it as open within the block."""
        is_long, came_at, waited = False, self._clock.monotonic(), False
        while (delay := self.reserve(request)) > 0:
            is_long, waited = is_long or delay >= 1, True
            if is_long:
                watch.note(f"waiting {math.ceil(delay)} s for IB pacing")
            watch.wait(min(delay, 1.0))
        if waited and self._monitor is not None:
            self._monitor.paced(self._clock.monotonic() - came_at)
        try:
            if is_long:
                watch.note("asking IB")  # lest it looks as if the wait went on
            yield
        finally:
            self.release(request)

    # ----------------------------------------------------------- under the lock

    def _delay(self, request: PacedRequest, now: float) -> float:
        limits = self._limits
        delays = [self._until_messages(request.messages, now)]
        if request.strict:
            delays += [
                self._held_until - now,
                self._until(limits.identical, now, request, _same_request),
                self._until(limits.series, now, request, _same_series),
                self._until(limits.total, now, request, _any),
            ]
        if request.is_open and limits.open is not None and self._open >= limits.open:
            delays.append(OPEN_PAUSE)
        return max(delays)

    def _until(
        self,
        window: Window | None,
        now: float,
        request: PacedRequest,
        counts: Callable[[PacedRequest, PacedRequest], bool],
    ) -> float:
        """Return the seconds until the window has room for the request."""
        if window is None:
            return 0.0
        # One that is heavier than the whole window goes when the window is empty.
        weight = 1 if counts is _same_request else request.weight
        room = window.limit - min(weight, window.limit)
        seconds = window.seconds + self._limits.margin
        for at, other in reversed(self._sent):
            if at + seconds <= now:
                break
            if counts(other, request):
                room -= 1 if counts is _same_request else other.weight
                if room < 0:
                    return at + seconds - now
        return 0.0

    def _until_messages(self, count: int, now: float) -> float:
        window = self._limits.messages
        if window is None or len(self._messages) + count <= window.limit or not self._messages:
            return 0.0
        # As many as are too many have to be a window ago.
        excess = min(len(self._messages) + count - window.limit, len(self._messages))
        return self._messages[excess - 1] + window.seconds - now

    def _count(self, request: PacedRequest, now: float) -> None:
        if request.strict:
            self._sent.append((now, request))
        self._messages.extend([now] * request.messages)
        self._open += request.is_open

    def _forget(self, now: float) -> None:
        """Drop what no window reaches back to."""
        limits = self._limits
        windows = [w for w in (limits.identical, limits.series, limits.total) if w]
        longest = max((window.seconds for window in windows), default=0.0) + limits.margin
        while self._sent and self._sent[0][0] + longest <= now:
            self._sent.popleft()
        second = limits.messages.seconds if limits.messages else 0.0
        while self._messages and self._messages[0] + second <= now:
            self._messages.popleft()


def _same_request(one: PacedRequest, other: PacedRequest) -> bool:
    return one.identity == other.identity


def _same_series(one: PacedRequest, other: PacedRequest) -> bool:
    return one.series == other.series


def _any(_one: PacedRequest, _other: PacedRequest) -> bool:
    return True
