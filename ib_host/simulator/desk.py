"""What all connections share: the data, the rules, the faults, and who is connected."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Protocol

from ib_host.simulator.faults import Effect, FaultPlan, Moment
from ib_host.simulator.history import History
from ib_host.simulator.pacing import Pacing
from shared.clock import Clock

logger = logging.getLogger("ktrdr.simulator")

_KEPT = 100_000
"""Requests the journal keeps at least."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came in, as the journal keeps it."""

    at: Moment
    client_id: int
    symbol: str = ""
    bar_size: str = ""
    duration: str = ""
    end: str = ""
    what: str = ""
    regular_hours: bool = False
    effect: Effect | None = None
    """The fault it suffered, if any."""


class Connection(Protocol):
    """A client's connection, as others see it."""

    def notify(self, code: int) -> None:
        """Tell the client something about the whole connection."""
        ...

    def hang_up(self) -> None:
        """Close the connection once what was sent has gone out."""
        ...


class Link:
    """Whether TWS reaches its servers; what is asked while it does not has to wait."""

    def __init__(self) -> None:
        self._up = asyncio.Event()
        self._up.set()
        self._losses = 0
        """How often what waited was lost."""

    @property
    def is_up(self) -> bool:
        """Whether the servers are reached."""
        return self._up.is_set()

    def lose(self) -> None:
        """Have requests wait from now on."""
        self._up.clear()

    def restore(self, *, data_lost: bool) -> None:
        """Answer requests again; those that waited are answered, or lost."""
        self._losses += data_lost
        self._up.set()

    async def reach(self) -> None:
        """Return once the servers are reached; never, if the request was lost meanwhile."""
        if self._up.is_set():
            return
        losses = self._losses
        await self._up.wait()
        if self._losses != losses:
            await asyncio.Event().wait()


@dataclass(slots=True)
class Desk:
    """The state of one simulator; lives in the thread of its event loop."""

    history: History
    pacing: Pacing
    faults: FaultPlan
    clock: Clock
    journal: list[Asked]
    """Grows by every request; read by others as a copy."""
    link: Link = field(default_factory=Link)
    farm_is_up: bool = True
    clients: dict[int, Connection] = field(default_factory=dict)
    """Who is connected, by client id."""

    def announce(self, code: int) -> None:
        """Tell all clients."""
        for client in tuple(self.clients.values()):
            client.notify(code)

    def hang_up(self) -> None:
        """Close all connections."""
        for client in tuple(self.clients.values()):
            client.hang_up()

    def lose_link(self, restored: int | None = None, seconds: float | None = None) -> None:
        """Lose the servers (1100); with `seconds`, get them back with the code `restored`."""
        if self.link.is_up:
            self.link.lose()
            self.announce(1100)
        if restored is not None and seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.restore_link, restored)

    def restore_link(self, code: int) -> None:
        """Reach the servers again: with 1101 waiting requests are lost, with 1102 answered."""
        if self.link.is_up:
            return
        self.announce(code)
        self.link.restore(data_lost=code == 1101)

    def lose_farm(self, seconds: float | None) -> None:
        """Take the farm of historical data down (2105), for a while or until restored."""
        self.farm_is_up = False
        self.announce(2105)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.restore_farm)

    def restore_farm(self) -> None:
        """Bring the farm of historical data back (2106)."""
        self.farm_is_up = True
        self.announce(2106)

    def note(self, asked: Asked, effect: Effect | None) -> None:
        """Keep what was asked, with the fault it suffers."""
        self.journal.append(replace(asked, effect=effect))
        if len(self.journal) > 2 * _KEPT:
            del self.journal[:_KEPT]
        logger.info("%s", self.journal[-1])
