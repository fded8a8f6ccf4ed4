from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.rpc import health
from shared.rpc import server as server_module
from shared.rpc.server import (
    AddressError,
    RpcServer,
    ServerLimits,
)
from tests.support.eventually import eventually
from tests.support.rpc import (
    LOOPBACK,
    PROBE,
    TIMEOUT,
    Gate,
    Wire,
    code_of,
    failure_of,
    probe,
    served,
)

LIMITS = ServerLimits(read=3, wait=1, stream=2, start=1)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def answer(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answer"


def check(wire: Wire, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(wire.channel)
    response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
    return int(response.status)


def watch(wire: Wire, service: str = "") -> Any:
    stub: Any = health_pb2_grpc.HealthStub(wire.channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)


def rpc_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("rpc")}


# ----------------------------------------------------------------------- addresses


def test_the_address_is_the_real_one() -> None:
    with served([]) as wire:
        host, _, port = wire.address.rpartition(":")
        assert (host, int(port) > 0) == ("127.0.0.1", True)
        assert check(wire) == SERVING


def test_an_ipv6_address_keeps_its_brackets() -> None:
    server = RpcServer([], "[::1]:0", LIMITS, "me")
    try:
        told = server.bind()
    except AddressError as error:  # a machine without IPv6 says so
        told = error.message.removeprefix("Cannot listen on ")
    server.stop(0.0)
    assert told.startswith("[::1]:")


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with served([]) as wire:
        second = RpcServer([], wire.address, LIMITS, "me")
        with pytest.raises(AddressError) as caught:
            second.bind()
    assert wire.address in caught.value.message
    assert "port is taken" in caught.value.message
    assert "port 0" in caught.value.message
    assert second.stop(0.0)


def test_a_port_another_program_listens_on_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(AddressError, match="Cannot listen on"):
            RpcServer([], f"127.0.0.1:{other.getsockname()[1]}", LIMITS, "me").bind()


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no such host:0"])
def test_an_address_of_another_machine_is_a_clear_error(address: str) -> None:
    with pytest.raises(AddressError, match=f"Cannot listen on {address}: .*not this machine's"):
        RpcServer([], address, LIMITS, "me").bind()


# ------------------------------------------------------------------------- health


def test_health_is_told_overall_and_per_service() -> None:
    with served([probe({"Read": answer})]) as wire:
        assert (check(wire), check(wire, PROBE)) == (SERVING, SERVING)
        unknown = failure_of(lambda: check(wire, "no.such.Service"))
    assert unknown.code() is grpc.StatusCode.NOT_FOUND


def test_a_server_that_stops_says_so_and_still_serves() -> None:
    with served([probe({"Read": answer})]) as wire:
        watched = watch(wire, PROBE)
        assert next(watched).status == SERVING
        wire.server.announce_stopping()
        assert next(watched).status == NOT_SERVING
        assert (check(wire), check(wire, PROBE)) == (NOT_SERVING, NOT_SERVING)
        assert wire.call("Read") == b"answer"
        watched.cancel()


def test_health_watchers_hold_no_threads() -> None:
    gate, before = Gate(), rpc_threads()
    with served([probe({"Read": gate})], LIMITS) as wire:
        watchers = []
        for _ in range(300):
            watchers.append(watch(wire))
            assert next(watchers[-1]).status == SERVING
        reads = [wire.begin("Read") for _ in range(LIMITS.read)]
        eventually(lambda: gate.waiting == LIMITS.read)
        assert check(wire) == SERVING
        assert len(rpc_threads() - before) <= LIMITS.threads
        wire.server.announce_stopping()
        assert {next(watcher).status for watcher in watchers} == {NOT_SERVING}
        gate.opened.set()
        assert {read.result() for read in reads} == {b"passed"}
        for watcher in watchers:
            watcher.cancel()


def test_a_watch_of_an_unknown_service_says_unknown() -> None:
    with served([]) as wire:
        watched = watch(wire, "no.such.Service")
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watched.cancel()


# --------------------------------------------------------------------- reflection


def reflect(wire: Wire, **request: Any) -> reflection_pb2.ServerReflectionResponse:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(wire.channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(**request)])
    response: reflection_pb2.ServerReflectionResponse
    (response,) = stub.ServerReflectionInfo(requests, timeout=TIMEOUT)
    return response


def test_reflection_lists_every_service() -> None:
    with served([probe({"Read": answer})]) as wire:
        listed = reflect(wire, list_services="").list_services_response.service
    expected = sorted([PROBE, health.SERVICE_NAME, reflection.SERVICE_NAME])
    assert expected == sorted(service.name for service in listed)


def test_reflection_describes_a_service() -> None:
    with served([]) as wire:
        found = reflect(wire, file_containing_symbol=health.SERVICE_NAME)
        missing = reflect(wire, file_containing_symbol="no.such.Service")
    assert found.file_descriptor_response.file_descriptor_proto
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_reflection_describes_a_method() -> None:
    with served([]) as wire:
        found = reflect(wire, file_containing_symbol=f"{health.SERVICE_NAME}.Check")
    assert found.file_descriptor_response.file_descriptor_proto


REFLECTION_FIELDS = (
    st.fixed_dictionaries({"file_containing_symbol": st.text()})
    | st.fixed_dictionaries({"file_by_filename": st.text()})
    | st.fixed_dictionaries({"all_extension_numbers_of_type": st.text()})
    | st.builds(
        lambda name, number: {
            "file_containing_extension": {"containing_type": name, "extension_number": number}
        },
        st.text() | st.just("google.protobuf.MethodOptions"),
        st.integers(min_value=-(2**31), max_value=2**31 - 1),
    )
)


@pytest.fixture(scope="module")
def bare() -> Iterator[Wire]:
    """A server with health and reflection."""
    with served([]) as wire:
        yield wire


@settings(max_examples=100, deadline=None)
@given(REFLECTION_FIELDS)
def test_reflection_answers_whatever_is_asked(bare: Wire, asked: dict[str, Any]) -> None:
    answer = reflect(bare, **asked)
    assert answer.WhichOneof("message_response")


@settings(max_examples=100, deadline=None)
@given(st.binary(), st.sampled_from(["Check", "ServerReflectionInfo"]))
def test_no_bytes_cause_an_internal_error(bare: Wire, data: bytes, method: str) -> None:
    def call() -> object:
        if method == "Check":
            return bare.call(method, data, health.SERVICE_NAME)
        path = f"/{reflection.SERVICE_NAME}/{method}"
        return list(bare.channel.stream_stream(path)(iter([data]), timeout=TIMEOUT))

    assert code_of(call) in {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}


# ------------------------------------------------------------------------ stopping


def test_a_stopped_server_leaves_no_threads() -> None:
    before = set(threading.enumerate())
    with served([probe({"Read": answer})]) as wire:
        futures = [wire.begin("Read") for _ in range(20)]
        assert {future.result() for future in futures} == {b"answer"}
        watchers = [watch(wire) for _ in range(3)]
        for watcher in watchers:
            next(watcher)
        assert rpc_threads() - before
    eventually(lambda: set(threading.enumerate()) <= before)


def test_calls_may_end_within_the_grace() -> None:
    gate = Gate()
    with served([probe({"Read": gate})]) as wire:
        read = wire.begin("Read")
        eventually(lambda: gate.waiting == 1)
        stopper = threading.Thread(target=wire.server.stop, args=(TIMEOUT,))
        stopper.start()
        gate.opened.set()
        assert read.result() == b"passed"
        stopper.join(TIMEOUT)
        assert not stopper.is_alive()


def test_a_call_that_outlasts_the_grace_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_JOIN", 0.05)
    gate, before = Gate(), rpc_threads()
    with served([probe({"Read": gate})]) as wire:
        read = wire.begin("Read")
        eventually(lambda: gate.waiting == 1)
        assert wire.server.stop(0.0) is False
        assert failure_of(read.result).code() in {
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.UNAVAILABLE,
        }
        gate.opened.set()
    eventually(lambda: rpc_threads() <= before)


def test_a_server_whose_own_thread_is_stuck_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "_JOIN", 0.05)
    begun, released = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        released.wait(TIMEOUT)

    def behaviour(request: Any, context: grpc.ServicerContext) -> bytes:
        context.add_callback(hold)
        return b"answer"

    with served([probe({"Read": behaviour})]) as wire:
        assert wire.call("Read") == b"answer"
        assert begun.wait(TIMEOUT)
        assert wire.server.stop(0.0) is False
        released.set()


def test_stopping_twice_or_before_the_start_does_no_harm() -> None:
    server = RpcServer([], LOOPBACK, LIMITS, "me")
    assert server.stop(0.0)
    assert server.stop(0.0)
    with served([]) as wire:
        assert wire.server.stop(0.0)


# ------------------------------------------------------------------------- figures


def test_threads_are_counted_by_class() -> None:
    reads, waits, early, streams, starts, health_checks = 3, 1, 4, 2, 1, 32
    expected = reads + waits + early + streams + starts + health_checks
    assert LIMITS.threads == expected
