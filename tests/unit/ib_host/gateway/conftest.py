from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from ib_host.gateway.connection import GatewayAddress
from ib_host.gateway.gateway import Gateway
from ib_host.simulator.pacing import UNPACED
from ib_host.simulator.server import TwsSimulator
from tests.unit.ib_host.gateway.asking import Make


@pytest.fixture
def simulator() -> Iterator[TwsSimulator]:
    with TwsSimulator(rules=UNPACED) as simulator:
        yield simulator


@pytest.fixture
def make(simulator: TwsSimulator) -> Iterator[Make]:
    """Makes gateways to the simulator and stops them after the test."""
    with ExitStack() as stack:

        def made(**how: float) -> Gateway:
            options = {"connect_timeout": 10.0, "answer_timeout": 30.0, **how}
            gateway = Gateway(GatewayAddress("127.0.0.1", simulator.port, **options))  # type: ignore[arg-type]
            stack.callback(gateway.stop)
            return gateway

        yield made


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool
