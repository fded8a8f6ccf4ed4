from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Counter

from shared.monitoring.endpoint import MetricsEndpoint


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("ktrdr_things", "Things.", registry=registry).inc()
    return registry


@pytest.fixture
def endpoint(registry: CollectorRegistry) -> Iterator[MetricsEndpoint]:
    endpoint = MetricsEndpoint("127.0.0.1", 0, registry)
    endpoint.start()
    yield endpoint
    endpoint.close()


def read(endpoint: MetricsEndpoint) -> str:
    with closing(HTTPConnection("127.0.0.1", endpoint.port, timeout=5)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def metrics_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "metrics" in thread.name]


def test_what_is_counted_can_be_read(endpoint: MetricsEndpoint) -> None:
    assert "ktrdr_things_total 1.0" in read(endpoint)


def test_there_is_one_thread_however_many_read(endpoint: MetricsEndpoint) -> None:
    before = set(threading.enumerate())
    for _ in range(5):
        read(endpoint)
    assert set(threading.enumerate()) <= before
    assert 1 == len(metrics_threads())


def test_nothing_can_be_sent(endpoint: MetricsEndpoint) -> None:
    with closing(HTTPConnection("127.0.0.1", endpoint.port, timeout=5)) as connection:
        connection.request("POST", "/metrics", b"x")
        assert 405 == connection.getresponse().status


def test_whoever_says_nothing_keeps_others_waiting_for_a_moment_only(
    endpoint: MetricsEndpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", endpoint.port)):
        assert "ktrdr_things_total" in read(endpoint)
    assert "" == capfd.readouterr().err


def test_whoever_leaves_in_the_middle_is_no_error(
    endpoint: MetricsEndpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        caller = socket.create_connection(("127.0.0.1", endpoint.port))
        caller.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        caller.close()
    assert "ktrdr_things_total" in read(endpoint)
    assert "" == capfd.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])  # noqa: S104  # one of each kind
def test_its_thread_and_port_are_given_back(host: str, registry: CollectorRegistry) -> None:
    endpoint = MetricsEndpoint(host, 0, registry)
    endpoint.start()
    endpoint.close()
    assert [] == metrics_threads()
    MetricsEndpoint(host, endpoint.port, registry)._server.server_close()


def test_a_port_that_is_taken_is_refused(
    endpoint: MetricsEndpoint, registry: CollectorRegistry
) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsEndpoint("127.0.0.1", endpoint.port, registry)
