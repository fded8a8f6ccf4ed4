from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ib_host.simulator.server import TwsSimulator
from tests.unit.ib_host.simulator.wire import WireClient

Connect = Callable[..., WireClient]


@pytest.fixture
def serving() -> Iterator[Callable[[TwsSimulator], TwsSimulator]]:
    """Starts simulators and stops them after the test."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def connect() -> Iterator[Callable[[TwsSimulator, int], WireClient]]:
    """Connects clients that have been accepted, and closes them after the test."""
    with ExitStack() as stack:

        def connected(simulator: TwsSimulator, client_id: int = 1) -> WireClient:
            client = WireClient(simulator.address)
            stack.callback(client.close)
            client.start(client_id)
            return client

        yield connected
