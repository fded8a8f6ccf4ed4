"""One connection by itself; what crosses the wire is in test_server."""

from __future__ import annotations

import asyncio
from typing import cast

from ib_host.simulator.desk import Desk
from ib_host.simulator.faults import FaultPlan
from ib_host.simulator.history import History
from ib_host.simulator.pacing import Pacing, PacingRules
from ib_host.simulator.session import Session
from ib_host.simulator.source import FrameHistory
from tests.support.clock import FakeClock


class FullWriter:
    """The writer of a client that does not read: what is sent has to wait."""

    def __init__(self) -> None:
        self.is_full = asyncio.Event()
        self.has_room = asyncio.Event()

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        self.is_full.set()
        await self.has_room.wait()


def desk() -> Desk:
    clock = FakeClock()
    history = History(FrameHistory({}), clock)
    return Desk(history, Pacing(PacingRules(), clock), FaultPlan(), clock, [])


def test_a_client_has_its_id_before_it_has_read_that_it_does() -> None:
    served = desk()

    async def accept() -> tuple[int, ...]:
        writer = FullWriter()
        session = Session(served, asyncio.StreamReader(), cast("asyncio.StreamWriter", writer))
        accepting = asyncio.ensure_future(session._start_api(3))
        await writer.is_full.wait()
        taken = tuple(served.clients)
        writer.has_room.set()
        await accepting
        return taken

    assert (3,) == asyncio.run(accept())
