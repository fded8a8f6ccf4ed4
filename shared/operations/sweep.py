"""Many refreshes at once, for listings: owners elsewhere are asked at the same time.

Per target so many reads are on their way as callers may wait for it, and each
answer makes room for the next read: an owner that is slow delays nobody else's
operations. No threads: the reads are futures of the stub.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue

from shared.operations.flight import Flight
from shared.operations.flights import slow
from shared.operations.live import LiveOperation
from shared.operations.refresh import Need, Refreshed, Refresher, read_timeout
from shared.operations.source import PendingRead
from shared.rpc.errors import RefreshBusyError


def refresh_all(
    refresher: Refresher, lives: Sequence[LiveOperation], staleness: float, deadline: float
) -> list[Refreshed]:
    """Do as `refresher.refresh` for each; results in the order of the operations.

    Counts as one waiter per target.
    """
    return _Sweep(refresher, staleness, deadline).run(lives)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A flight of a sweep that is on its way."""

    need: Need
    flight: Flight
    pending: PendingRead


class _Sweep:
    """One caller's refresh of many operations."""

    def __init__(self, refresher: Refresher, staleness: float, deadline: float) -> None:
        self._refresher = refresher
        self._clock, self._flights = refresher.clock, refresher.flights
        self._outages = refresher.outages
        self._staleness = staleness
        self._deadline = deadline
        self._timeout = read_timeout(deadline - self._clock.monotonic())
        self._give_up_at = self._clock.monotonic() + self._timeout
        self._done: dict[str, Refreshed] = {}
        self._queued: dict[str, deque[Need]] = {}
        self._joined: list[Need] = []
        self._sent: dict[str, _Sent] = {}
        self._answered: SimpleQueue[str] = SimpleQueue()

    def run(self, lives: Sequence[LiveOperation]) -> list[Refreshed]:
        for live in lives:
            self._look(live)
        with ExitStack() as waiting:
            for target in list(self._queued):
                self._wait_for(target, waiting)
            try:
                self._sweep()
            finally:
                for sent in self._sent.values():
                    self._flights.end(sent.need.live, sent.flight)
            for need in self._joined:
                self._finish(need, self._refresher.obtain(need, self._deadline))
        return [self._done[live.operation_id] for live in lives]

    def _look(self, live: LiveOperation) -> None:
        """Settle at once what needs no other process, queue the rest by target."""
        need = self._refresher.need(live, self._staleness)
        if need is None:
            self._done[live.operation_id] = Refreshed(cached=True)
        elif need.source.target is None:
            self._finish(need, self._refresher.obtain(need, self._deadline))
        else:
            self._queued.setdefault(need.source.target, deque()).append(need)

    def _wait_for(self, target: str, waiting: ExitStack) -> None:
        try:
            waiting.enter_context(self._outages.waiting_for(target))
        except RefreshBusyError as error:
            for need in self._queued.pop(target):
                self._finish(need, Refreshed(cached=True, error=error))

    def _sweep(self) -> None:
        for target in self._queued:
            for _ in range(self._outages.max_waiters):
                self._send_next(target)
        while self._sent:
            sent = self._sent[self._answered.get()]
            self._land(sent)
            self._send_next(sent.need.source.target or "")

    def _send_next(self, target: str) -> None:
        """Send the target's next read that has to be sent by us, if there is one."""
        while self._queued[target]:
            need = self._queued[target].popleft()
            failure = self._outages.recall(need.live, need.source, need.forgives_until)
            left = self._give_up_at - self._clock.monotonic()
            if failure is None and left <= 0:
                failure = slow(need.live, self._timeout)
            if failure is not None:
                self._finish(need, Refreshed(cached=True, error=failure))
            elif self._send(need, left):
                return

    def _send(self, need: Need, left: float) -> bool:
        """Send one read; False if another caller's is on its way or did it meanwhile."""
        with need.live.lock:
            if need.met():
                self._finish(need, Refreshed(cached=False))
                return False
            flight, lead = self._flights.board(need.live, need.source, need.staleness)
        if not lead:
            self._joined.append(need)
            return False
        try:
            pending = self._flights.begin(need.live, need.source, flight, left)
        except BaseException:  # whatever it is, nobody may wait for a flight that is not on its way
            self._flights.end(need.live, flight)
            raise
        operation_id = need.live.operation_id
        self._sent[operation_id] = _Sent(need, flight, pending)
        pending.add_done_callback(lambda _: self._answered.put(operation_id))
        return True

    def _land(self, sent: _Sent) -> None:
        """Take an answer over; a log longer than a page is read on, if time is left."""
        left = max(0.0, self._give_up_at - self._clock.monotonic())
        result = self._refresher.lead(
            sent.need, sent.flight, left, self._timeout, first=sent.pending
        )
        del self._sent[sent.need.live.operation_id]
        self._finish(sent.need, result)

    def _finish(self, need: Need, result: Refreshed) -> None:
        self._done[need.live.operation_id] = result
