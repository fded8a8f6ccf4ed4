from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from shared.rpc.call_monitor import CallMonitorInterceptor
from shared.rpc.errors import OperationNotFoundError
from shared.rpc.server import ServerLimits
from tests.support.eventually import eventually
from tests.support.rpc import PROBE, Behaviour, Gate, Wire, probe, served

pytestmark = pytest.mark.usefixtures("way")


class Notes:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.seconds: list[float] = []
        self.sheds: list[str] = []

    def called(self, method: str, code: str, seconds: float, /) -> None:
        self.seconds.append(seconds)
        self.calls.append((method.removeprefix(f"{PROBE}/"), code))

    def shed(self, class_: str, /) -> None:
        self.sheds.append(class_)


def answer(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answer"


def fail(request: Any, context: grpc.ServicerContext) -> bytes:
    raise OperationNotFoundError("x")


def break_down(request: Any, context: grpc.ServicerContext) -> bytes:
    raise ZeroDivisionError


def three(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from [b"1", b"2", b"3"]


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def wire(notes: Notes, gate: Gate) -> Iterator[Wire]:
    unary: dict[str, Behaviour] = {"Get": answer, "Fail": fail, "Break": break_down, "Wait": gate}
    service = probe(unary, {"Tail": three}, typed=False)
    limits = ServerLimits(read=2)
    with served([service], limits, around=[CallMonitorInterceptor(notes)]) as wire:
        yield wire
        gate.opened.set()


def test_an_answered_call_is_ok(wire: Wire, notes: Notes) -> None:
    wire.call("Get")
    eventually(lambda: notes.calls == [("Get", "OK")])
    assert 0 < notes.seconds[0] < 5


@pytest.mark.parametrize(("method", "code"), [("Fail", "NOT_FOUND"), ("Break", "INTERNAL")])
def test_a_call_that_fails_has_the_status_its_client_sees(
    wire: Wire, notes: Notes, method: str, code: str
) -> None:
    assert code == wire.failure(method).code().name
    eventually(lambda: notes.calls == [(method, code)])


def test_a_stream_is_one_call(wire: Wire, notes: Notes) -> None:
    assert 3 == len(list(wire.channel.unary_stream(f"/{PROBE}/Tail")(b"", timeout=10)))
    eventually(lambda: notes.calls == [("Tail", "OK")])


def test_a_client_that_left_is_told_from_one_whose_time_was_up(
    wire: Wire, notes: Notes, gate: Gate
) -> None:
    leaving = wire.begin("Wait")
    eventually(lambda: gate.waiting == 1)
    leaving.cancel()
    hurried = wire.channel.unary_unary(f"/{PROBE}/Wait").future(b"", timeout=0.3)
    assert "DEADLINE_EXCEEDED" == hurried.exception().code().name
    eventually(lambda: [False, False] == [call.is_active() for call in gate.calls])
    gate.opened.set()
    eventually(
        lambda: sorted(notes.calls) == [("Wait", "CANCELLED"), ("Wait", "DEADLINE_EXCEEDED")]
    )


def test_calls_that_are_turned_away_are_counted_by_class(
    wire: Wire, notes: Notes, gate: Gate
) -> None:
    waiting = [wire.begin("Wait") for _ in range(2)]
    eventually(lambda: gate.waiting == 2)
    assert "RESOURCE_EXHAUSTED" == wire.failure("Get").code().name
    eventually(lambda: notes.sheds == ["read"])
    assert [("Get", "RESOURCE_EXHAUSTED")] == notes.calls
    gate.opened.set()
    assert [b"passed"] * 2 == [call.result() for call in waiting]


def test_methods_that_nobody_serves_are_one_so_labels_are_bounded(wire: Wire, notes: Notes) -> None:
    assert "UNIMPLEMENTED" == wire.failure("Nowhere").code().name
    assert "UNIMPLEMENTED" == wire.failure("Get", service="made.up.Service").code().name
    eventually(lambda: notes.calls == [("unknown", "UNIMPLEMENTED")] * 2)
