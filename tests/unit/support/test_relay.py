from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.support.relay import Relay


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def relay(target: socket.socket) -> Iterator[Relay]:
    relay = Relay(f"127.0.0.1:{target.getsockname()[1]}")
    try:
        yield relay
    finally:
        relay.close()


def connected(relay: Relay) -> socket.socket:
    host, _, port = relay.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def hung_up(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


@contextmanager
def hanging_up(
    client: socket.socket, before: Callable[[], object] = lambda: None
) -> Iterator[Future[bool]]:
    """A client that closes once it is cut off, after a call; whether it was."""

    def close() -> bool:
        with client:
            was = hung_up(client)
            before()
            return was

    with ThreadPoolExecutor() as threads:
        yield threads.submit(close)


def test_bytes_pass_both_ways(relay: Relay, target: socket.socket) -> None:
    with connected(relay) as client:
        server, _ = target.accept()
        with server:
            client.sendall(b"there")
            assert b"there" == server.recv(100)
            server.sendall(b"back")
            assert b"back" == client.recv(100)


def test_a_cut_closes_what_is_connected_and_refuses_more(
    relay: Relay, target: socket.socket
) -> None:
    with hanging_up(connected(relay)) as hung_up, target.accept()[0]:
        relay.cut()

        assert hung_up.result(10)
        with pytest.raises(ConnectionError):
            connected(relay)


@pytest.mark.parametrize("way", ["cut", "lead_to"])
def test_whoever_is_cut_off_has_noticed_when_the_call_returns(
    relay: Relay, target: socket.socket, way: str
) -> None:
    returned = threading.Event()
    returned_first: list[bool] = []

    with (
        hanging_up(connected(relay), lambda: returned_first.append(returned.wait(0.2))) as hung_up,
        target.accept()[0],
    ):
        relay.cut() if way == "cut" else relay.lead_to(relay.address)
        returned.set()
        assert hung_up.result(10)

    assert [False] == returned_first


def test_a_connection_that_is_being_made_does_not_survive_a_cut(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was accepted before the cut, and is connected to the target after it."""
    connect = socket.create_connection

    def cut_first(address: tuple[str, int], timeout: float | None = None) -> socket.socket:
        if f"{address[0]}:{address[1]}" != relay.address:  # it is the relay that connects
            relay.cut()
            relay.restore()
        return connect(address, timeout)

    monkeypatch.setattr(socket, "create_connection", cut_first)

    with connected(relay) as client:
        assert hung_up(client)


def test_who_is_led_elsewhere_loses_the_connection_and_finds_the_other_at_once(
    relay: Relay, target: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with hanging_up(connected(relay)) as hung_up, target.accept()[0]:
            relay.lead_to(f"127.0.0.1:{other.getsockname()[1]}")
            assert hung_up.result(10)
        with connected(relay) as client, other.accept()[0] as server:
            client.sendall(b"there")
            assert b"there" == server.recv(100)


def test_what_is_to_be_called_before_is_called_once(relay: Relay, target: socket.socket) -> None:
    calls: list[str] = []
    relay.before(b"mark", lambda: calls.append("before"))

    with connected(relay) as client, target.accept()[0] as server:
        for text in (b"nothing", b"a mark", b"a mark"):
            client.sendall(text)
            assert text == server.recv(100)

    assert ["before"] == calls


def test_an_address_that_another_holds_for_a_moment_is_taken_again(
    relay: Relay, target: socket.socket
) -> None:
    host, _, port = relay.address.rpartition(":")
    relay.cut()
    other = socket.create_server((host, int(port)))
    leaving = threading.Timer(0.05, other.close)
    leaving.start()
    relay.restore()
    leaving.join()
    with connected(relay) as client, target.accept()[0] as server:
        client.sendall(b"there")
        assert b"there" == server.recv(100)
