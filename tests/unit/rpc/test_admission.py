from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from shared.rpc import health
from shared.rpc.admission import READ, START, STREAM, WAIT, AdmissionInterceptor
from shared.rpc.errors import OperationNotFoundError
from shared.rpc.server import ServerLimits
from tests.support.eventually import eventually
from tests.support.rpc import (
    PROBE,
    TIMEOUT,
    Behaviour,
    Gate,
    Wire,
    failure_of,
    probe,
    required,
    served,
    status_in,
)

pytestmark = pytest.mark.usefixtures("way")

LIMITS = ServerLimits(read=3, wait=2, stream=2, start=2)
CLASSES = {"Start": START, "Tail": STREAM, "Wait": WAIT}


def answer(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answer"


def fail(request: Any, context: grpc.ServicerContext) -> bytes:
    raise OperationNotFoundError("x")


def endless(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
    while True:
        yield b"more"


def fill(wire: Wire, method: str, gate: Gate, calls: int) -> list[grpc.Future[bytes]]:
    """Have so many calls of a method wait at its gate."""
    futures = [wire.begin(method) for _ in range(calls)]
    eventually(lambda: gate.waiting == calls)
    return futures


def assert_shed(failure: grpc.RpcError, class_: str, limit: int) -> None:
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_in(failure)
    assert required(status, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
    info = required(status, error_details_pb2.ErrorInfo)
    assert info.reason == "TOO_MANY_CALLS"
    assert dict(info.metadata) == {"class": class_, "limit": str(limit)}


def open_stream(wire: Wire) -> Any:
    """Open a stream of the class STREAM and read its first message."""
    call = wire.channel.unary_stream(f"/{PROBE}/Tail")(b"", timeout=TIMEOUT)
    assert next(call) == b"more"
    return call


@pytest.mark.parametrize(("method", "class_", "limit"), [("Read", READ, 3), ("Start", START, 2)])
def test_calls_beyond_the_limit_of_their_class_are_shed(
    method: str, class_: str, limit: int
) -> None:
    gate = Gate()
    with served([probe({method: gate}, classes=CLASSES)], LIMITS) as wire:
        inside = fill(wire, method, gate, limit)
        assert_shed(wire.failure(method), class_, limit)
        gate.opened.set()
        assert [future.result() for future in inside] == [b"passed"] * limit
        assert wire.call(method) == b"passed"


def test_a_flood_of_one_class_leaves_the_others_and_health_alone() -> None:
    reads, starts = Gate(), Gate()
    methods: dict[str, Behaviour] = {"Read": reads, "Start": starts, "Wait": answer}
    service = probe(methods, {"Tail": endless}, CLASSES)
    with served([service], LIMITS) as wire:
        flood = fill(wire, "Start", starts, 2)
        for _ in range(20):
            assert wire.failure("Start").code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams = [open_stream(wire), open_stream(wire)]
        flood += fill(wire, "Read", reads, 3)
        assert wire.call("Wait") == b"answer"
        assert wire.call("Check", service=health.SERVICE_NAME)
        assert_shed(wire.failure("Read"), READ, 3)
        reads.opened.set()
        starts.opened.set()
        assert [future.result() for future in flood] == [b"passed"] * 5
        for call in streams:
            call.cancel()


def test_health_answers_in_the_middle_of_a_storm() -> None:
    gate = Gate()
    with served([probe({"Read": gate})], LIMITS) as wire:
        storm = [wire.begin("Read") for _ in range(200)]
        for _ in range(10):
            assert wire.call("Check", service=health.SERVICE_NAME)
        shed = sum(future.exception() is not None for future in storm if future.done())
        eventually(lambda: sum(future.done() for future in storm) == 197)
        gate.opened.set()
        codes = [failure_of(future.result).code() for future in storm if future.exception()]
    assert shed <= 197
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 197


def test_calls_that_are_answered_early_queue_beside_those_that_wait() -> None:
    gate, limits = Gate(), replace(LIMITS, early=10)
    with served([probe({"Wait": gate}, classes=CLASSES)], limits) as wire:
        inside = [wire.begin("Wait") for _ in range(limits.wait + limits.early)]
        threads, _ = limits.classes[WAIT]
        eventually(lambda: gate.waiting == threads)
        eventually(lambda: wire.failure("Wait").code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert_shed(wire.failure("Wait"), WAIT, limits.wait + limits.early)
        gate.opened.set()
        assert {future.result() for future in inside} == {b"passed"}


def test_those_turned_away_are_told_to_come_back_one_after_the_other() -> None:
    gate = Gate()
    with served([probe({"Start": gate}, classes=CLASSES)], LIMITS) as wire:
        fill(wire, "Start", gate, LIMITS.start)
        failures = [wire.failure("Start") for _ in range(100)]
        gate.opened.set()
    times = [
        required(status_in(failure), error_details_pb2.RetryInfo).retry_delay.ToMilliseconds()
        for failure in failures
    ]
    assert min(times[-5:]) > max(times[:5])


def test_a_method_without_a_class_is_a_read() -> None:
    gate = Gate()
    with served([probe({"Read": gate, "Other": answer})], LIMITS) as wire:
        fill(wire, "Read", gate, 3)
        assert_shed(wire.failure("Other"), READ, 3)
        gate.opened.set()


def test_a_call_that_fails_gives_its_place_back() -> None:
    with served([probe({"Read": fail})], LIMITS) as wire:
        codes = {wire.failure("Read").code() for _ in range(10)}
    assert codes == {grpc.StatusCode.NOT_FOUND}


def test_an_open_stream_keeps_its_place_until_its_client_leaves() -> None:
    with served([probe(streams={"Tail": endless}, classes=CLASSES)], LIMITS) as wire:
        first, second = open_stream(wire), open_stream(wire)
        assert_shed(failure_of(lambda: open_stream(wire)), STREAM, 2)
        first.cancel()

        def place_is_free() -> bool:
            call = wire.channel.unary_stream(f"/{PROBE}/Tail")(b"", timeout=TIMEOUT)
            try:
                return bool(next(call) == b"more")
            except grpc.RpcError as error:
                assert_shed(error, STREAM, 2)
                return False
            finally:
                call.cancel()

        eventually(place_is_free)
        second.cancel()


def test_a_stream_that_has_ended_gives_its_place_back() -> None:
    def two(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"1"
        yield b"2"

    with served([probe(streams={"Tail": two}, classes=CLASSES)], LIMITS) as wire:
        for _ in range(10):
            answers = wire.channel.unary_stream(f"/{PROBE}/Tail")(b"", timeout=TIMEOUT)
            assert list(answers) == [b"1", b"2"]


def test_never_more_than_the_limit_are_inside_at_once() -> None:
    lock = threading.Lock()
    inside = most = 0

    def watch(request: Any, context: grpc.ServicerContext) -> bytes:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        wire.call("Check", service=health.SERVICE_NAME)
        with lock:
            inside -= 1
        return b""

    with served([probe({"Read": watch})], LIMITS) as wire:
        futures = [wire.begin("Read") for _ in range(100)]
        outcomes = [future.exception() is None for future in futures]
        eventually(lambda: wire.begin("Read").exception() is None)
    assert any(outcomes)
    assert most <= 3


def test_a_class_without_a_pool_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"/a\.B/C: class 'wait' has no pool; give it one"):
        AdmissionInterceptor({"/a.B/C": "wait"}, [])
