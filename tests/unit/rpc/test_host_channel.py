from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest

from shared.rpc.errors import (
    Code,
    HostNotConnectedError,
    HostTimeoutError,
    HostUnreachableError,
    KtrdrError,
    MalformedAnswerError,
    NotFoundError,
)
from shared.rpc.host_channel import HostChannel, PendingCall
from shared.rpc.server import RpcServer, ServerLimits
from shared.rpc.via import VIA_KEY, ProxyLoopError
from tests.support.eventually import eventually
from tests.support.relay import Relay
from tests.support.rpc import LOOPBACK, PROBE, TIMEOUT, Behaviour, Gate, probe


class ProbeStub:
    """A stub as generated ones are, with raw bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        raw: Any = channel
        self.Ask = raw.unary_unary(f"/{PROBE}/Ask")
        self.Stop = raw.unary_unary(f"/{PROBE}/Stop")
        self.Refuse = raw.unary_unary(f"/{PROBE}/Refuse")


class Host:
    """A server on one port that comes and goes; it knows who called."""

    def __init__(self) -> None:
        self.peers: list[str] = []
        self.metadata: list[dict[str, Any]] = []
        self.gate = Gate()
        self.before: Callable[[], None] = lambda: None
        self._server: RpcServer | None = None
        self.address = LOOPBACK

    def start(self) -> None:
        """Listen, later again at the same address."""
        methods: dict[str, Behaviour] = {
            "Ask": self._ask,
            "Stop": self.gate,
            "Refuse": self._refuse,
        }
        self._server = RpcServer([probe(methods)], self.address, ServerLimits(), "host")
        self.address = self._server.bind()
        self._server.start()

    def stop(self) -> None:
        """Be gone."""
        if self._server is not None:
            self.gate.opened.set()
            self._server.stop(0.0)
            self._server = None

    def _ask(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.peers.append(context.peer())
        self.metadata.append(dict(context.invocation_metadata()))
        self.before()
        return request[::-1]

    def _refuse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.peers.append(context.peer())
        raise NotFoundError("There is none.", metadata={"name": request.decode()})


@pytest.fixture
def host() -> Iterator[Host]:
    running = Host()
    running.start()
    yield running
    running.stop()


@contextmanager
def channel_to(target: str, instance: str = "me") -> Iterator[HostChannel]:
    channel = HostChannel(target, instance)
    try:
        yield channel
    finally:
        channel.close()


@pytest.fixture
def channel(host: Host) -> Iterator[HostChannel]:
    with channel_to(host.address) as channel:
        yield channel


def ask(channel: HostChannel, request: bytes = b"abc", timeout: float = TIMEOUT) -> bytes:
    answer: bytes = channel.call(ProbeStub, "Ask", request, timeout)
    return answer


def begin(channel: HostChannel, method: str = "Ask", timeout: float = TIMEOUT) -> PendingCall:
    return channel.begin(ProbeStub, method, b"abc", timeout)


def error_of(call: Callable[[], object]) -> KtrdrError:
    with pytest.raises(KtrdrError) as raised:
        call()
    return raised.value


# ------------------------------------------------------------------------ calls


def test_a_call_is_answered(channel: HostChannel) -> None:
    assert b"cba" == ask(channel)


def test_a_call_that_was_begun_is_answered_when_asked_for(channel: HostChannel) -> None:
    ended: list[object] = []
    call = begin(channel)
    call.add_done_callback(ended.append)

    assert b"cba" == call.result()
    eventually(lambda: len(ended) == 1)
    assert call.done()
    call.add_done_callback(ended.append)
    assert 2 == len(ended)


def test_many_threads_share_one_connection(host: Host, channel: HostChannel) -> None:
    ask(channel)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ask(channel, b"%03d" % n), range(200)))

    assert [b"%03d" % n for n in range(200)] == [answer[::-1] for answer in answers]
    assert (201, 1) == (len(host.peers), len(set(host.peers)))


def test_threads_that_are_the_first_to_call_share_the_connection_too(
    host: Host, channel: HostChannel
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ask(channel), range(8)))

    assert 1 == len(set(host.peers))


def test_this_process_is_named_on_the_way(host: Host, channel: HostChannel) -> None:
    ask(channel)
    begin(channel).result()

    assert ["me", "me"] == [metadata[VIA_KEY] for metadata in host.metadata]


def test_a_host_that_is_this_process_refuses(host: Host) -> None:
    with channel_to(host.address, "host") as channel:
        error = error_of(lambda: ask(channel))

    assert (Code.FAILED_PRECONDITION, ProxyLoopError.reason) == (error.code, error.reason)
    assert [] == host.peers


# --------------------------------------------------------------------- failures


def test_what_the_host_refuses_with_is_raised_and_not_asked_again(
    host: Host, channel: HostChannel
) -> None:
    for refused in (
        error_of(lambda: channel.call(ProbeStub, "Refuse", b"x", TIMEOUT)),
        error_of(lambda: begin(channel, "Refuse").result()),
    ):
        assert isinstance(refused, NotFoundError)
        assert "There is none." == refused.message
        assert channel.target == refused.metadata["target"]
    assert 2 == len(host.peers)


@pytest.mark.parametrize("timeout", [0.05, 0.0, -1.0])
def test_a_call_that_takes_too_long_is_a_timeout(channel: HostChannel, timeout: float) -> None:
    for error in (
        error_of(lambda: channel.call(ProbeStub, "Stop", b"", timeout)),
        error_of(lambda: begin(channel, "Stop", timeout).result()),
    ):
        assert isinstance(error, HostTimeoutError)
        assert channel.target in error.message


def test_nobody_there_is_said_to_be_not_connected() -> None:
    gone = Host()
    gone.start()
    gone.stop()
    with channel_to(gone.address) as channel:
        for call in (lambda: ask(channel), lambda: begin(channel).result()):
            for _ in range(3):
                error = error_of(call)
                assert isinstance(error, HostNotConnectedError)
                assert gone.address == error.metadata["target"]


def test_one_who_is_not_ktrdr_is_said_to_answer_nonsense(host: Host, channel: HostChannel) -> None:
    class Stranger(ProbeStub):
        def __init__(self, channel: grpc.Channel) -> None:
            raw: Any = channel
            self.Ask = raw.unary_unary(
                f"/{PROBE}/Ask",
                response_deserializer=json.loads,  # does not take what is no JSON
            )

    error = error_of(lambda: channel.call(Stranger, "Ask", b"", TIMEOUT))

    assert isinstance(error, MalformedAnswerError)


@pytest.mark.parametrize("waits", [True, False])
def test_a_host_that_is_back_is_reached_by_the_next_call(host: Host, waits: bool) -> None:
    with channel_to(host.address) as channel:
        call = (lambda: ask(channel)) if waits else (lambda: begin(channel).result())
        for _ in range(5):
            assert b"cba" == call()
            host.stop()
            error_of(call)  # broken or refused, as it happens
            assert isinstance(error_of(call), HostNotConnectedError)
            host.start()

        assert b"cba" == call()


def test_a_host_that_came_up_since_the_last_try_is_reached_by_the_next_call() -> None:
    late = Host()
    late.start()
    late.stop()
    with channel_to(late.address) as channel:
        for _ in range(5):
            error_of(lambda: ask(channel))
        late.start()
        try:
            assert b"cba" == ask(channel)
        finally:
            late.stop()


def test_a_connection_found_to_have_failed_is_replaced_within_the_call() -> None:
    """That nobody is there was found out before, and gRPC waits before it tries again."""
    host = Host()
    host.start()
    with channel_to(host.address) as channel:
        ask(channel)
        host.stop()
        states: list[grpc.ChannelConnectivity] = []
        channel._connection.channel.subscribe(states.append, try_to_connect=True)
        eventually(lambda: grpc.ChannelConnectivity.TRANSIENT_FAILURE in states)
        host.start()
        try:
            assert b"cba" == ask(channel)
        finally:
            host.stop()


def test_a_call_that_broke_on_its_way_is_not_repeated(host: Host) -> None:
    relay = Relay(host.address)
    host.before = relay.cut
    try:
        with channel_to(relay.address) as channel:
            error = error_of(lambda: ask(channel))
    finally:
        relay.close()

    assert isinstance(error, HostUnreachableError)
    assert not isinstance(error, HostNotConnectedError)
    assert 1 == len(host.peers)


def test_a_call_that_broke_is_not_repeated_though_others_could_not_be_made(host: Host) -> None:
    """The host went down with the call; that it cannot be connected to then is another's news."""
    relay = Relay(host.address)
    try:
        with channel_to(relay.address) as channel:
            ask(channel)

            def go_down() -> None:
                channel._connection.failed = True
                relay.cut()

            host.before = go_down
            error = error_of(lambda: ask(channel))
    finally:
        relay.close()

    assert isinstance(error, HostUnreachableError)
    assert not isinstance(error, HostNotConnectedError)
    assert 2 == len(host.peers)


def test_a_call_that_broke_is_answered_when_it_is_made_again(host: Host) -> None:
    relay = Relay(host.address)
    host.before = relay.cut
    try:
        with channel_to(relay.address) as channel:
            error_of(lambda: begin(channel).result())
            host.before = lambda: None
            relay.restore()
            assert b"cba" == ask(channel)
    finally:
        relay.close()
    assert 2 == len(host.peers)


def test_a_frozen_host_costs_the_time_given_and_is_found_again_when_it_thaws(host: Host) -> None:
    relay = Relay(host.address)
    try:
        with channel_to(relay.address) as channel:
            ask(channel)
            relay.freeze()
            assert isinstance(error_of(lambda: ask(channel, timeout=0.2)), HostTimeoutError)
            relay.thaw()
            assert b"cba" == ask(channel)
    finally:
        relay.close()


def test_a_failed_connection_is_replaced_once_however_many_saw_it_fail() -> None:
    host = Host()
    host.start()
    host.stop()
    with channel_to(host.address) as channel:
        with ThreadPoolExecutor(8) as pool:
            errors = list(pool.map(lambda _: error_of(lambda: ask(channel)), range(40)))
        assert {HostNotConnectedError} == {type(error) for error in errors}
        host.start()
        try:
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: ask(channel), range(40)))
        finally:
            host.stop()

    assert {b"cba"} == set(answers)
    assert 1 == len(set(host.peers))


# ---------------------------------------------------------------- giving up


def test_a_call_that_is_given_up_says_so(host: Host, channel: HostChannel) -> None:
    call = begin(channel, "Stop")
    eventually(lambda: host.gate.waiting == 1)

    assert not call.done()
    assert call.cancel()
    error = error_of(call.result)
    assert isinstance(error, HostUnreachableError)
    assert f"The call to {channel.target} was given up." == error.message


def test_closing_ends_the_calls_that_are_on_their_way(host: Host) -> None:
    errors: list[KtrdrError] = []
    with channel_to(host.address) as channel:
        begun = begin(channel, "Stop")
        waiting = threading.Thread(
            target=lambda: errors.append(
                error_of(lambda: channel.call(ProbeStub, "Stop", b"", TIMEOUT))
            )
        )
        waiting.start()
        eventually(lambda: host.gate.waiting == 2)
        channel.close()
        waiting.join(TIMEOUT)

        assert not waiting.is_alive()
        for error in (*errors, error_of(begun.result)):
            assert isinstance(error, HostUnreachableError)
    assert 1 == len(errors)


def test_a_closed_channel_asks_nobody(host: Host, channel: HostChannel) -> None:
    ask(channel)
    channel.close()
    channel.close()

    ended: list[object] = []
    call = begin(channel)
    call.add_done_callback(ended.append)
    assert call.done()
    assert [call] == ended
    assert not call.cancel()
    for error in (error_of(lambda: ask(channel)), error_of(call.result)):
        assert isinstance(error, HostUnreachableError)
        assert "This process is ending" in error.message
        assert {"target": channel.target} == error.metadata
    assert 1 == len(host.peers)


def test_a_channel_is_not_closed_while_a_stub_is_made_on_it(
    host: Host, channel: HostChannel
) -> None:
    """GRPC crashes if a stub is made on a channel that is closed."""
    closing = threading.Thread(target=channel.close)

    def stub(raw: grpc.Channel) -> ProbeStub:
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        return ProbeStub(raw)

    with suppress(KtrdrError):
        channel.call(stub, "Ask", b"abc", TIMEOUT)
    closing.join(TIMEOUT)
    assert "This process is ending" in error_of(lambda: ask(channel)).message


def test_a_channel_that_failed_and_was_closed_is_not_opened_again() -> None:
    gone = Host()
    gone.start()
    gone.stop()
    channel = HostChannel(gone.address, "me")
    error_of(lambda: ask(channel))
    channel.close()

    assert "This process is ending" in error_of(lambda: ask(channel)).message
    assert "This process is ending" in error_of(begin(channel).result).message


def test_replacing_a_connection_ends_no_call_that_has_got_through(
    host: Host, channel: HostChannel
) -> None:
    """Of two calls one failed to connect, and the other was sent when the host came up."""
    begun = begin(channel, "Stop")
    eventually(lambda: host.gate.waiting == 1)
    old = channel._connection
    old.failed = True
    closed = watched_close(old.channel)

    assert b"cba" == ask(channel)
    assert channel._connection is not old
    assert not closed.is_set()
    host.gate.opened.set()
    assert b"passed" == begun.result()
    assert closed.wait(TIMEOUT)


def test_a_failed_connection_that_nobody_uses_is_closed_when_it_is_replaced(
    channel: HostChannel,
) -> None:
    ask(channel)
    old = channel._connection
    old.failed = True
    closed = watched_close(old.channel)
    ask(channel)

    assert closed.is_set()


def test_closing_ends_the_calls_on_replaced_connections_too(
    host: Host, channel: HostChannel
) -> None:
    begun = begin(channel, "Stop")
    eventually(lambda: host.gate.waiting == 1)
    channel._connection.failed = True
    ask(channel)
    channel.close()

    assert isinstance(error_of(begun.result), HostUnreachableError)
    eventually(lambda: not channel._old)


def watched_close(channel: Any) -> threading.Event:
    """Set once the channel has been closed, and really closed then."""
    closed, close = threading.Event(), channel.close

    def closing() -> None:
        close()
        closed.set()

    channel.close = closing
    return closed
