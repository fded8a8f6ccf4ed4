"""A gateway asked for five days of IBM, for tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from ib_host.gateway.gateway import Gateway, IbBars
from ib_host.instruments import instrument
from ib_host.requests import HistoryRequest
from ib_host.simulator.faults import Moment
from ib_host.simulator.server import TwsSimulator
from shared.marketdata.ranges import TimeRange

IBM = instrument("IBM")
END = datetime(2013, 3, 2, tzinfo=UTC)
FIVE_DAYS = HistoryRequest(TimeRange(datetime(2013, 2, 23, tzinfo=UTC), END), END, "5 D", "1 day")
Make = Callable[..., Gateway]


def unwatched() -> None:
    """Let a call go on."""


def bars(gateway: Gateway, check: Callable[[], None] = unwatched) -> IbBars:
    (number,) = gateway.contract_ids(IBM, check)
    return gateway.bars(IBM, number, FIVE_DAYS, check, regular_hours=True)


def count(simulator: TwsSimulator, moment: Moment) -> int:
    return sum(asked.at is moment for asked in simulator.requests)
