"""Calls that wait for their client: for a message that does not come, or to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from time import monotonic
from typing import Any

import grpc
import pytest

from shared.rpc import health
from shared.rpc.admission import HEALTH, READ, START, STREAM, WAIT
from shared.rpc.call_pool import CallPool
from shared.rpc.client_waits import ClientWaits
from shared.rpc.server import ServerLimits
from tests.support.eventually import eventually
from tests.support.raw_http2 import RawConnection, message
from tests.support.rpc import PROBE, TIMEOUT, Behaviour, Gate, Wire, code_of, probe, served

pytestmark = pytest.mark.usefixtures("way")

CLASSES = {"Start": START, "Tail": STREAM, "Wait": WAIT}
CHECK = f"/{health.SERVICE_NAME}/Check"
FOREVER = 1000.0
"""Seconds: more patience than a test has."""


def limits(patience: float) -> ServerLimits:
    return ServerLimits(read=3, wait=2, early=4, stream=2, start=2, patience=patience)


def answer(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answer"


def endless(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
    while True:
        yield b"x" * 100_000


METHODS: dict[str, Behaviour] = {"Read": answer, "Start": answer, "Wait": answer}


@pytest.fixture
def serve() -> Iterator[Callable[[float], Wire]]:
    """Serves with a patience, for as long as the test runs."""
    with ExitStack() as stack:
        yield lambda patience: stack.enter_context(
            served([probe(METHODS, {"Tail": endless}, CLASSES)], limits(patience))
        )


def outcome(wire: Wire, path: str) -> str:
    return code_of(lambda: wire.channel.unary_unary(path)(b"", timeout=TIMEOUT))


def fill(wire: Wire, path: str, begin: Callable[[str], object]) -> None:
    """Begin calls until every place of their class is taken."""
    class_ = HEALTH if path == CHECK else CLASSES.get(path.rpartition("/")[2], READ)
    (pool,) = [pool for pool in wire.server._pools if getattr(pool, "class_", "") == class_]
    assert isinstance(pool, CallPool)
    places = pool._places

    def all_taken() -> bool:
        for _ in range(places - pool._taken):
            begin(path)
        return pool._taken >= places

    eventually(all_taken)


def full(wire: Wire, path: str) -> bool:
    return outcome(wire, path) == "RESOURCE_EXHAUSTED"


def is_answered(told: str) -> bool:
    """Whether a call had a place; it was refused if it had none."""
    assert told in {"OK", "RESOURCE_EXHAUSTED"}
    return told == "OK"


@pytest.mark.parametrize("method", METHODS)
def test_calls_without_a_message_leave_health_and_the_other_classes_alone(
    serve: Callable[[float], Wire], method: str
) -> None:
    wire = serve(FOREVER)
    with RawConnection(wire.address) as raw:
        fill(wire, f"/{PROBE}/{method}", raw.begin)
        for _ in range(100):
            raw.begin(f"/{PROBE}/{method}")
        assert full(wire, f"/{PROBE}/{method}")
        assert "OK" == outcome(wire, CHECK)
        others = METHODS.keys() - {method}
        assert {"OK"} == {outcome(wire, f"/{PROBE}/{other}") for other in others}


@pytest.mark.parametrize("path", [CHECK, *(f"/{PROBE}/{method}" for method in METHODS)])
def test_a_call_without_a_message_gives_its_place_to_one_that_comes_later(
    serve: Callable[[float], Wire], path: str
) -> None:
    wire = serve(0.2)
    with RawConnection(wire.address) as raw:
        fill(wire, path, raw.begin)
        eventually(lambda: is_answered(outcome(wire, path)), within=5.0)


def test_half_a_message_is_none(serve: Callable[[float], Wire]) -> None:
    wire, path = serve(0.2), f"/{PROBE}/Read"
    with RawConnection(wire.address) as raw:
        fill(wire, path, lambda path: raw.send(raw.begin(path), message(b"x" * 100)[:50]))
        eventually(lambda: not full(wire, path), within=5.0)


def test_a_stream_that_is_not_read_gives_its_place_to_one_that_comes_later(
    serve: Callable[[float], Wire],
) -> None:
    wire, path = serve(0.2), f"/{PROBE}/Tail"

    def is_read() -> bool:
        call = wire.channel.unary_stream(path)(b"", timeout=TIMEOUT)
        code = code_of(lambda: next(call))
        call.cancel()
        return is_answered(code)

    with RawConnection(wire.address, window=1000) as raw:
        fill(wire, path, lambda path: raw.send(raw.begin(path), message(b""), last=True))
        eventually(is_read, within=5.0)


def test_a_call_that_is_waited_for_keeps_its_place_while_nobody_wants_it(
    serve: Callable[[float], Wire],
) -> None:
    wire, path = serve(0.0), f"/{PROBE}/Read"
    messages: SimpleQueue[bytes] = SimpleQueue()
    late = wire.channel.stream_unary(path).future(iter(messages.get, None), timeout=TIMEOUT)
    for _ in range(50):
        assert "OK" == outcome(wire, path)
    messages.put(b"")
    assert b"answer" == late.result()


def test_a_call_that_works_is_never_given_up() -> None:
    gate = Gate()
    with served([probe({"Read": gate})], limits(0.0)) as wire:
        inside = [wire.begin("Read") for _ in range(3)]
        eventually(lambda: gate.waiting == 3)
        assert full(wire, f"/{PROBE}/Read")
        gate.opened.set()
        assert [b"passed"] * 3 == [call.result() for call in inside]


def test_a_call_that_ends_without_its_message_is_told_so(serve: Callable[[float], Wire]) -> None:
    wire = serve(FOREVER)
    call = wire.channel.stream_unary(f"/{PROBE}/Read")
    with pytest.raises(grpc.RpcError) as raised:
        call(iter([]), timeout=TIMEOUT)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "without the message" in (raised.value.details() or "")


def test_a_client_that_leaves_before_its_message_frees_its_place(
    serve: Callable[[float], Wire],
) -> None:
    wire, path = serve(FOREVER), f"/{PROBE}/Read"
    with RawConnection(wire.address) as raw:
        fill(wire, path, raw.begin)
        assert full(wire, path)
    eventually(lambda: not full(wire, path))


def test_the_call_that_came_first_is_given_up_first_wherever_it_queued() -> None:
    waits, late, queued = ClientWaits(10.0), Waiting(), Waiting()
    waits.begin(late.context)
    waits.note_arrival(monotonic() - 9.9)
    waits.begin(queued.context)
    eventually(waits.give_up_one)
    assert [False, True] == [late.given_up, queued.given_up]


class Waiting:
    """A call as far as giving it up goes."""

    def __init__(self) -> None:
        self.given_up = False

    @property
    def context(self) -> Any:
        return self

    def cancel(self) -> None:
        self.given_up = True
