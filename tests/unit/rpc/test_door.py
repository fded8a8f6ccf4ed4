"""Calls turned away before gRPC has made anything of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from shared.rpc import door
from shared.rpc.admission import READ, START
from shared.rpc.call_pool import CallPool
from shared.rpc.server import ServerLimits
from tests.support.certificates import READ as READER
from tests.support.certificates import STRANGE, WRITE, bearer, served_with, tokens_file
from tests.support.eventually import eventually
from tests.support.raw_http2 import RawConnection
from tests.support.rpc import PROBE, TIMEOUT, Gate, Wire, code_of, probe, served, status_in
from tests.unit.rpc.around import Around

DO = f"/{PROBE}/Do"
LIMITS = ServerLimits(read=2, wait=1, early=20, stream=1, start=1, calls=40, patience=1000.0)


def answer(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answer"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def full(gate: Gate) -> Iterator[Wire]:
    """A server whose one place for `Do` is taken, and for whom `Do` is no new method."""
    services = [probe({"Do": gate, "Read": answer}, classes={"Do": START, "Read": READ})]
    with served(services, LIMITS) as wire:
        inside = wire.begin("Do")
        eventually(lambda: gate.waiting == 1)
        yield wire
        gate.opened.set()
        assert b"passed" == inside.result()


def test_the_insides_of_this_grpcio_are_known() -> None:
    """If this fails refusals cost as much as half an answer: look at what has changed."""
    assert door._server is not None


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("_handle_call", lambda rpc_event, state: None),
        ("_handle_call", None),
        ("_RegisteredMethod", SimpleNamespace()),
        ("_GenericMethod", SimpleNamespace(name=None)),
        ("cygrpc", SimpleNamespace()),
    ],
)
def test_insides_that_differ_are_left_alone(
    name: str, other: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door._server, name, other)
    assert None is door._insides()


@pytest.mark.parametrize("sees_all", [True, False])
def test_a_call_is_refused_without_its_behaviour_unless_somebody_has_to_see_it(
    sees_all: bool, gate: Gate
) -> None:
    around = Around(sees_all=sees_all)
    with served([probe({"Do": gate}, classes={"Do": START})], LIMITS, around=[around]) as wire:
        inside = wire.begin("Do")
        eventually(lambda: gate.waiting == 1)
        failure = wire.failure("Do")
        gate.opened.set()
        assert b"passed" == inside.result()
    text = "Too many start calls at once (limit 1); come back in a moment."
    assert [text] * 2 == [failure.details(), status_in(failure).message]
    entered, told = (2, []) if sees_all else (1, ["TOO_MANY_CALLS"])
    assert (entered, told) == (around.entered, around.refused)


def test_what_is_refused_at_the_door_is_handed_to_no_pool(
    full: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []
    submit = CallPool.submit

    def noted(pool: CallPool, *arguments: Any) -> Any:
        handed.append(pool.class_)
        return submit(pool, *arguments)

    monkeypatch.setattr(CallPool, "submit", noted)
    assert "RESOURCE_EXHAUSTED" == code_of(lambda: full.call("Do"))
    assert b"answer" == full.call("Read")
    assert [READ] == handed


@pytest.mark.usefixtures("way")
def test_calls_that_were_refused_count_no_longer(full: Wire) -> None:
    """Calls beyond a number are refused by gRPC, without details."""
    for _ in range(3 * LIMITS.calls):
        assert status_in(full.failure("Do")).message
    assert b"answer" == full.call("Read")


@pytest.mark.usefixtures("way")
def test_who_may_not_call_is_not_told_that_there_is_no_place(tmp_path: Path, gate: Gate) -> None:
    services = [probe({"Do": gate}, classes={"Do": START})]
    with served(services, LIMITS, served_with(tokens=tokens_file(tmp_path))) as wire:
        method = wire.channel.unary_unary(DO)
        inside = method.future(b"", timeout=TIMEOUT, metadata=bearer(WRITE))
        eventually(lambda: gate.waiting == 1)
        for metadata, code in (
            ((), "UNAUTHENTICATED"),
            (bearer(STRANGE), "UNAUTHENTICATED"),
            (bearer(READER), "PERMISSION_DENIED"),
            (bearer(WRITE), "RESOURCE_EXHAUSTED"),
        ):
            assert code == code_of(partial(method, b"", timeout=TIMEOUT, metadata=metadata))
        gate.opened.set()
        assert b"passed" == inside.result()


@pytest.mark.usefixtures("way")
def test_who_is_turned_away_makes_room_in_other_classes(gate: Gate) -> None:
    services = [probe({"Do": gate, "Read": answer}, classes={"Do": START, "Read": READ})]
    with served(services, replace(LIMITS, patience=0.0, read=1)) as wire:
        pool = next(pool for pool in wire.server._pools if pool.class_ == READ)
        inside = wire.begin("Do")
        eventually(lambda: gate.waiting == 1)
        with RawConnection(wire.address) as raw:
            raw.begin(f"/{PROBE}/Read")
            eventually(pool.waits.can_give_up_one)
            assert "RESOURCE_EXHAUSTED" == code_of(lambda: wire.call("Do"))
            eventually(lambda: pool._taken == 0)
        gate.opened.set()
        assert b"passed" == inside.result()


def test_a_call_that_the_door_cannot_judge_passes_and_the_server_goes_on(
    full: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(door.Door, "refusal", broken)
        assert "RESOURCE_EXHAUSTED" == code_of(lambda: full.call("Do"))
        assert b"answer" == full.call("Read")
    assert b"answer" == full.call("Read")
    assert "The door let a call pass that it could not judge" in caplog.messages


@pytest.mark.usefixtures("way")
def test_whose_client_has_waited_too_long_makes_room_for_the_next() -> None:
    """The one who is given up is counted until it has left; the next must not be sent away."""
    limits = replace(LIMITS, patience=0.0, start=1)
    with served([probe({"Do": answer}, classes={"Do": START})], limits) as wire:
        pool = next(pool for pool in wire.server._pools if pool.class_ == START)
        assert b"answer" == wire.call("Do")
        for _ in range(3):
            eventually(lambda: pool._taken == 0)
            with RawConnection(wire.address) as raw:
                raw.begin(DO)
                eventually(pool.waits.can_give_up_one)
                assert "OK" == code_of(lambda: wire.call("Do"))


def test_unknown_methods_pass_the_door(full: Wire) -> None:
    for name in ("Undo", "Do/", "D\u00f6"):
        method = full.channel.unary_unary(f"/{PROBE}/{name}")
        assert "UNIMPLEMENTED" == code_of(partial(method, b"", timeout=TIMEOUT))


def test_a_server_of_others_has_no_door(full: Wire) -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    other = grpc.server(ThreadPoolExecutor(1))
    other.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(PROBE, {"Do": handler}),))
    address = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
    other.start()
    try:
        with grpc.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(DO)
            assert b"answer" == call(b"", timeout=TIMEOUT)
    finally:
        other.stop(None).wait()
    assert "RESOURCE_EXHAUSTED" == code_of(lambda: full.call("Do"))


def test_a_server_ends_while_it_refuses(gate: Gate) -> None:
    with served([probe({"Do": gate}, classes={"Do": START})], LIMITS) as wire:
        inside: Any = wire.begin("Do")
        eventually(lambda: gate.waiting == 1)
        calls: list[Any] = [wire.begin("Do") for _ in range(50)]
        wire.server.stop(0.0)
        ended = {call.code() for call in (*calls, inside)}
        gate.opened.set()
        assert wire.server.stop(1.0)
    code = grpc.StatusCode
    assert {code.RESOURCE_EXHAUSTED, code.UNAVAILABLE, code.CANCELLED} >= ended
