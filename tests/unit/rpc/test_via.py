from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.rpc.channel import open_channel
from shared.rpc.server import RpcServer, ServedService, ServerLimits
from shared.rpc.via import MAX_HOPS, MAX_ID, VIA_KEY, ProxyLoopError, forwarded
from tests.support.eventually import eventually
from tests.support.rpc import (
    LOOPBACK,
    PROBE,
    TIMEOUT,
    Behaviour,
    failure_of,
    probe,
    required,
    service_of,
    status_in,
)

ME = "me"
SHAPES = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"]
Metadata = Sequence[tuple[str, str]]


def via(*values: str) -> Metadata:
    """The metadata of a call with these values of the key."""
    return tuple((VIA_KEY, value) for value in values)


def onward() -> bytes:
    """The way that a call made now would tell."""
    ((key, value),) = forwarded(ME)
    assert key == VIA_KEY
    return value.encode()


def tell(request: Any, context: grpc.ServicerContext) -> bytes:
    return onward()


def tell_twice(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield onward()
    yield onward()


@contextmanager
def serving(
    *services: ServedService, instance: str = ME, limits: ServerLimits | None = None
) -> Iterator[str]:
    """A server that is this instance; give its address."""
    server = RpcServer(services, LOOPBACK, limits or ServerLimits(), instance)
    address = server.bind()
    server.start()
    try:
        yield address
    finally:
        server.stop(0.0)


@contextmanager
def channel_to(address: str) -> Iterator[Any]:
    """A channel; its stubs do not type calls with raw bytes."""
    with open_channel(address) as channel:
        yield channel


@pytest.fixture(scope="module")
def channel() -> Iterator[Any]:
    """A channel to a server with one method of each shape that tells the way."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(tell),
        "UnaryStream": grpc.unary_stream_rpc_method_handler(tell_twice),
        "StreamUnary": grpc.stream_unary_rpc_method_handler(tell),
        "StreamStream": grpc.stream_stream_rpc_method_handler(tell_twice),
    }
    with serving(service_of(handlers)) as address, channel_to(address) as opened:
        yield opened


def ways(channel: Any, shape: str, metadata: Metadata = ()) -> set[str]:
    """Call a method of this shape; return the ways it told."""
    path, options = f"/{PROBE}/{shape}", {"timeout": TIMEOUT, "metadata": metadata}
    match shape:
        case "UnaryUnary":
            told = [channel.unary_unary(path)(b"", **options)]
        case "UnaryStream":
            told = list(channel.unary_stream(path)(b"", **options))
        case "StreamUnary":
            told = [channel.stream_unary(path)(iter([b""]), **options)]
        case _:
            told = list(channel.stream_stream(path)(iter([b""]), **options))
    assert told
    return {one.decode() for one in told}


def refused(call: Callable[[], object]) -> tuple[str, str, dict[str, str]]:
    """Code, reason and facts of the error a call ends with."""
    error = failure_of(call)
    info = required(status_in(error), error_details_pb2.ErrorInfo)
    return error.code().name, info.reason, dict(info.metadata)


# ----------------------------------------------------------------------- the way goes on


def test_outside_of_a_call_the_way_begins_here() -> None:
    assert ((VIA_KEY, "me"),) == forwarded("me")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_clients_own_call_begins_its_way_here(channel: Any, shape: str) -> None:
    assert {"me"} == ways(channel, shape)
    assert {"me"} == ways(channel, shape, [("ktrdr-other", "a")])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_forwarded_call_goes_on_with_its_way(channel: Any, shape: str) -> None:
    assert {"a,b,me"} == ways(channel, shape, via("a,b"))


@pytest.mark.parametrize("values", [("a", "b"), ("a, b",), ("a ,b",)])
def test_a_way_that_was_split_or_joined_on_the_way_is_the_same(
    channel: Any, values: Sequence[str]
) -> None:
    assert {"a,b,me"} == ways(channel, "UnaryUnary", via(*values))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_way_does_not_stay_with_the_thread(channel: Any, shape: str) -> None:
    for index in range(30):
        assert {f"a{index},me"} == ways(channel, shape, via(f"a{index}"))
        assert {"me"} == ways(channel, shape)


def test_calls_at_once_keep_their_ways_apart() -> None:
    inside = threading.Barrier(6)

    def meet(request: bytes, context: grpc.ServicerContext) -> bytes:
        before = onward()
        inside.wait(TIMEOUT)
        assert before == onward()
        return before

    with serving(probe({"Meet": meet})) as address, channel_to(address) as channel:
        call = channel.unary_unary(f"/{PROBE}/Meet")
        metadata = [via(f"a{index}") if index % 2 else () for index in range(6)]
        begun = [call.future(b"", timeout=TIMEOUT, metadata=each) for each in metadata]
        told = [each.result().decode() for each in begun]
    assert ["me", "a1,me", "me", "a3,me", "me", "a5,me"] == told


def test_a_stream_that_is_no_generator_knows_its_way() -> None:
    def eager(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return iter([onward()])

    with (
        serving(probe(streams={"UnaryStream": eager})) as address,
        channel_to(address) as channel,
    ):
        assert {"a,me"} == ways(channel, "UnaryStream", via("a"))


def test_a_stream_that_is_left_is_closed() -> None:
    closed = threading.Event()

    def endless(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            while True:
                yield onward()
        finally:
            closed.set()

    with serving(probe(streams={"Endless": endless})) as address, channel_to(address) as channel:
        answers = channel.unary_stream(f"/{PROBE}/Endless")(b"", timeout=TIMEOUT, metadata=via("a"))
        assert b"a,me" == next(answers)
        answers.cancel()
        eventually(closed.is_set)


# ------------------------------------------------------------------------------- loops


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", [("me",), ("a,me,b",), ("a", "me")])
def test_a_call_that_comes_back_is_refused(channel: Any, shape: str, values: Sequence[str]) -> None:
    told = refused(lambda: ways(channel, shape, via(*values)))
    assert ("FAILED_PRECONDITION", "PROXY_LOOP", {"instance": "me"}) == told


def test_the_refusal_says_what_to_set(channel: Any) -> None:
    error = failure_of(lambda: ways(channel, "UnaryUnary", via("me")))
    assert ProxyLoopError("me").message == error.details()
    assert "leads back to this process" in str(error.details())
    assert "Set TRAINING_HOST_SERVICE_URL or IB_HOST_SERVICE_URL" in str(error.details())


@pytest.mark.parametrize("other", ["mee", "m", "ME", "not-me", "me.2"])
def test_an_id_that_only_looks_like_ours_is_another(channel: Any, other: str) -> None:
    assert {f"{other},me"} == ways(channel, "UnaryUnary", via(other))


def test_a_refused_call_reaches_neither_behaviour_nor_admission() -> None:
    reached: list[bytes] = []

    def note(request: bytes, context: grpc.ServicerContext) -> bytes:
        reached.append(request)
        return b""

    limits = ServerLimits(read=1)
    with serving(probe({"Note": note}), limits=limits) as address, channel_to(address) as channel:
        call = channel.unary_unary(f"/{PROBE}/Note")
        for _ in range(5):
            code, _, _ = refused(lambda: call(b"loop", timeout=TIMEOUT, metadata=via("me")))
            assert code == "FAILED_PRECONDITION"
        call(b"fine", timeout=TIMEOUT)
    assert [b"fine"] == reached


def forwarding(instance: str, target: Callable[[], str], counted: list[str]) -> Behaviour:
    """A behaviour that asks another process the same."""

    def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
        counted.append(instance)
        with channel_to(target()) as channel:
            try:
                answer: bytes = channel.unary_unary(f"/{PROBE}/Ask")(
                    request, timeout=TIMEOUT, metadata=forwarded(instance)
                )
            except grpc.RpcError as error:
                return f"{instance}: {error.code().name}".encode()
            return instance.encode() + b" < " + answer

    return behaviour


def test_a_process_that_is_its_own_host_asks_itself_once() -> None:
    addresses: list[str] = []
    asked: list[str] = []
    ask = forwarding(ME, lambda: addresses[0], asked)
    with serving(probe({"Ask": ask})) as address, channel_to(address) as channel:
        addresses.append(address)
        answer = channel.unary_unary(f"/{PROBE}/Ask")(b"", timeout=TIMEOUT)
    assert (b"me: FAILED_PRECONDITION", ["me"]) == (answer, asked)


def test_processes_that_are_each_others_hosts_ask_each_other_once() -> None:
    addresses: dict[str, str] = {}
    asked: list[str] = []
    first = forwarding("a", lambda: addresses["b"], asked)
    second = forwarding("b", lambda: addresses["a"], asked)
    with (
        serving(probe({"Ask": first}), instance="a") as addresses["a"],
        serving(probe({"Ask": second}), instance="b") as addresses["b"],
        channel_to(addresses["a"]) as channel,
    ):
        answer = channel.unary_unary(f"/{PROBE}/Ask")(b"", timeout=TIMEOUT)
    assert (b"a < b: FAILED_PRECONDITION", ["a", "b"]) == (answer, asked)


def test_health_watches_are_looked_at_too(channel: Any) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    watch = stub.Watch(request, timeout=TIMEOUT, metadata=via("a"))
    assert health_pb2.HealthCheckResponse.SERVING == next(watch).status
    watch.cancel()
    told = refused(lambda: next(stub.Watch(request, timeout=TIMEOUT, metadata=via("me"))))
    assert "PROXY_LOOP" == told[1]


# ------------------------------------------------------------------------------ bounds


def test_the_longest_way_passes(channel: Any) -> None:
    way = ",".join(f"{index:0{MAX_ID}}" for index in range(MAX_HOPS))
    assert {f"{way},me"} == ways(channel, "UnaryUnary", via(way))


@pytest.mark.parametrize(
    "values",
    [
        (",".join("abcdefghijklmnopq"),),
        tuple("abcdefghijklmnopq"),
        ("a" * (MAX_ID + 1),),
        ("a" * 5000,),
        ("",),
        (",",),
        ("a,,b",),
        ("a b",),
        ("a;b",),
        ("a", ""),
        (" ," * 2000,),
    ],
    ids=lambda values: values[0][:20] or "empty",
)
@pytest.mark.parametrize("shape", ["UnaryUnary", "StreamStream"])
def test_a_way_that_is_none_is_refused_by_name(
    channel: Any, shape: str, values: Sequence[str]
) -> None:
    error = failure_of(lambda: ways(channel, shape, via(*values)))
    assert "INVALID_ARGUMENT" == error.code().name
    (violation,) = required(status_in(error), error_details_pb2.BadRequest).field_violations
    assert VIA_KEY == violation.field
    assert "at most 16 instance ids" in violation.description
