"""One connection by itself; what crosses the wire is in test_server."""

from __future__ import annotations

import asyncio
from typing import cast

from ib_host.simulator.desk import Desk
from ib_host.simulator.faults import Fault, FaultPlan, Hang, Moment
from ib_host.simulator.history import History
from ib_host.simulator.pacing import Pacing, PacingRules
from ib_host.simulator.protocol import BarsRequest, ContractQuery
from ib_host.simulator.session import Session
from ib_host.simulator.source import FrameHistory
from tests.support.clock import FakeClock

IBM = ContractQuery(0, "IBM", "STK", "SMART", "", "USD", "")


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


def test_a_session_that_is_cancelled_as_it_ends_leaves_nothing_open() -> None:
    served = desk()
    served.faults.add(Fault(Hang(), Moment.BARS))

    async def end() -> tuple[int, tuple[int, ...]]:
        writer = FullWriter()
        writer.has_room.set()
        session = Session(served, asyncio.StreamReader(), cast("asyncio.StreamWriter", writer))
        await session._start_api(3)
        session._begin(BarsRequest(7, IBM, "", "1 day", "5 D", True, "TRADES", 2, keeps_up=False))
        await asyncio.sleep(0)
        assert 1 == served.pacing.open_count
        ending = asyncio.ensure_future(session._end())
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        return served.pacing.open_count, tuple(served.clients)

    assert (0, ()) == asyncio.run(end())
