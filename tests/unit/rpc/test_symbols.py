from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2

from shared.rpc import health
from shared.rpc.symbols import MethodAwarePool

FILE = health_pb2.DESCRIPTOR.name


@pytest.mark.parametrize(
    "symbol",
    [health.SERVICE_NAME, f"{health.SERVICE_NAME}.Check", "grpc.health.v1.HealthCheckRequest"],
)
def test_services_methods_and_messages_are_found(symbol: str) -> None:
    assert MethodAwarePool().FindFileContainingSymbol(symbol).name == FILE


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        ".",
        "Check",
        "no.such.Service",
        "no.such.Service.Check",
        f"{health.SERVICE_NAME}.Nothing",
    ],
)
def test_other_symbols_are_not_found(symbol: str) -> None:
    with pytest.raises(KeyError):
        MethodAwarePool().FindFileContainingSymbol(symbol)


def test_everything_else_is_the_pools() -> None:
    assert MethodAwarePool().FindFileByName(FILE).name == FILE
