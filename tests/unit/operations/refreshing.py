"""A refresher on a fake clock, for the tests of refreshing."""

from __future__ import annotations

from math import inf

from shared.operations.live import LiveOperation
from shared.operations.refresh import Refreshed, Refresher
from tests.support.clock import FakeClock
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import Background, record

TTL = 1.0


class Refreshing:
    """A refresher on a fake clock, with operations at sources."""

    def __init__(self, max_waiters: int = 4, ttl: float = TTL) -> None:
        self.clock = FakeClock()
        self.refresher = Refresher(self.clock, ttl=ttl, max_waiters_per_target=max_waiters)

    def at(self, source: FakeRemoteSource, operation_id: str = "op") -> LiveOperation:
        live = LiveOperation(record(operation_id), self.clock.monotonic())
        live.source = source
        return live

    def read(self, live: LiveOperation, staleness: float = TTL, within: float = inf) -> Refreshed:
        deadline = self.clock.monotonic() + within
        return self.refresher.refresh(live, staleness, deadline)

    def background(
        self, live: LiveOperation, staleness: float = TTL, within: float = inf
    ) -> Background:
        return Background(lambda: self.read(live, staleness, within))

    def in_flight(
        self, live: LiveOperation, source: FakeRemoteSource, staleness: float = TTL
    ) -> Background:
        """Begin a read that stands at the source until its gate opens."""
        source.gate.clear()
        reader = self.background(live, staleness)
        assert source.arrived.acquire(timeout=5)
        return reader

    def waiting_for(self, source: FakeRemoteSource) -> int:
        assert source.target is not None
        return self.refresher.outages._waiting[source.target]

    def sharing(self, live: LiveOperation) -> int:
        """How many wait for the flight that another leads."""
        flight = live.flight
        return 0 if flight is None else flight.done.waiting
