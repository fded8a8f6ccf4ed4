"""Calls received and answered before a thread is spent on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from shared.rpc import handed_call, health
from shared.rpc.admission import READ, WAIT
from shared.rpc.call_pool import CallPool
from shared.rpc.errors import InvalidArgumentError
from shared.rpc.security import OPEN
from shared.rpc.server import ServerLimits
from tests.support.certificates import READ as READER
from tests.support.certificates import STRANGE, WRITE, bearer, served_with, tokens_file
from tests.support.eventually import eventually
from tests.support.raw_http2 import RawConnection, message
from tests.support.rpc import PROBE, TIMEOUT, Gate, Wire, code_of, probe, served
from tests.unit.rpc.around import Around

CHECK = f"/{health.SERVICE_NAME}/Check"
DO = f"/{PROBE}/Do"
LIMITS = ServerLimits(read=2, wait=1, early=20, stream=1, start=1, calls=40, patience=1000.0)


def answer(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answer"


@pytest.fixture
def wire() -> Iterator[Wire]:
    with served([probe({"Do": answer}, classes={"Do": READ})], LIMITS) as wire:
        yield wire


def pool_of(wire: Wire, class_: str) -> CallPool:
    return next(pool for pool in wire.server._pools if pool.class_ == class_)


def waiting(pool: CallPool) -> int:
    """How many calls of the pool are known to wait for their client."""
    return len(pool.waits._since)


def check(wire: Wire) -> str:
    return code_of(lambda: wire.channel.unary_unary(CHECK)(b"", timeout=TIMEOUT))


@contextmanager
def without_message(
    wire: Wire, path: str, metadata: tuple[tuple[str, str], ...] = ()
) -> Iterator[Any]:
    """A call whose message does not come while the block runs."""
    messages: SimpleQueue[bytes | None] = SimpleQueue()
    call = wire.channel.stream_unary(path).future(
        iter(messages.get, None), timeout=TIMEOUT, metadata=metadata
    )
    try:
        yield call
    finally:
        messages.put(None)


def test_the_insides_of_this_grpcio_are_known() -> None:
    """If this fails calls are served gRPC's own way, a tenth slower: look at what has changed."""
    assert handed_call._server is not None
    assert 2 == len(handed_call._SERVING)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("_receive_message", lambda state, call: None),
        ("_unary_response_in_pool", lambda rpc_event, state: None),
        ("_RPCState", SimpleNamespace),
        ("_RPCState", lambda: SimpleNamespace(request=b"", due=set())),
        ("_RECEIVE_MESSAGE_TOKEN", 7),
        ("cygrpc", SimpleNamespace()),
    ],
)
def test_insides_that_differ_are_left_alone(
    name: str, other: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handed_call._server, name, other)
    assert None is handed_call._insides()


def test_a_client_that_sends_no_message_holds_no_thread(wire: Wire) -> None:
    pool = pool_of(wire, READ)
    with RawConnection(wire.address) as raw:
        raw.begin(DO)
        eventually(lambda: waiting(pool) == 1)
        assert not pool._threads
        assert b"answer" == wire.call("Do")
        eventually(lambda: len(pool._threads) == 1)  # it is counted once it has begun


def test_what_comes_in_pieces_is_served_once_it_is_whole(wire: Wire) -> None:
    pool, whole = pool_of(wire, READ), message(b"x" * 100)
    with RawConnection(wire.address) as raw:
        stream = raw.begin(DO)
        raw.send(stream, whole[:50])
        eventually(lambda: waiting(pool) == 1)
        raw.send(stream, whole[50:], last=True)
        eventually(lambda: pool._taken == 0)
        assert b"answer" in raw.read()


def test_calls_that_are_over_count_no_longer(wire: Wire) -> None:
    """Calls beyond a number are refused by gRPC, which learns from the pool which are over."""
    for _ in range(3 * LIMITS.calls):
        assert b"answer" == wire.call("Do")


def test_of_those_that_queue_only_so_many_messages_are_held() -> None:
    gate, limits = Gate(), replace(LIMITS, early=200, calls=400)
    with served([probe({"Wait": gate}, classes={"Wait": WAIT})], limits) as wire:
        pool = pool_of(wire, WAIT)
        threads, most = pool._threads_at_most, pool._messages_at_most
        assert threads < most < pool._places
        inside = [wire.begin("Wait") for _ in range(threads)]
        eventually(lambda: gate.waiting == threads)
        with RawConnection(wire.address) as raw:
            for _ in range(most):
                raw.begin(f"/{PROBE}/Wait")
            eventually(lambda: pool._taken == threads + most)
            assert most - threads == waiting(pool)
        gate.opened.set()
        assert [b"passed"] * threads == [call.result() for call in inside]


def test_an_unknown_method_is_refused_without_its_message(wire: Wire) -> None:
    with without_message(wire, f"/{PROBE}/Undo") as call:
        assert "UNIMPLEMENTED" == code_of(call.result)


def test_who_may_not_call_is_told_so_without_a_message(tmp_path: Path) -> None:
    services = [probe({"Do": answer}, classes={"Do": READ})]
    with served(services, LIMITS, served_with(tokens=tokens_file(tmp_path))) as wire:
        for metadata, code in (
            ((), "UNAUTHENTICATED"),
            (bearer(STRANGE), "UNAUTHENTICATED"),
            (bearer(WRITE) + bearer(WRITE), "UNAUTHENTICATED"),
            (bearer(READER), "PERMISSION_DENIED"),
        ):
            with without_message(wire, DO, metadata) as call:
                assert code == code_of(call.result)


def test_the_message_of_one_who_may_call_is_received_first(tmp_path: Path) -> None:
    services = [probe({"Do": answer}, classes={"Do": READ})]
    with served(services, LIMITS, served_with(tokens=tokens_file(tmp_path))) as wire:
        pool = pool_of(wire, READ)
        with RawConnection(wire.address) as raw:
            stream = raw.begin(DO, bearer(WRITE))
            eventually(lambda: waiting(pool) == 1)
            assert not pool._threads
            raw.send(stream, message(b""), last=True)
            eventually(lambda: pool._taken == 0)
            assert b"answer" in raw.read()


# ------------------------------------------------------------------ at once


class Prepared:
    """Answers `ready` at once, from the message alone, and all else in its behaviour."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.passes = Around(sees_all=False)

    def behave(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"refused":
            refuse(request)
        return self._note(b"behaved to " + request)

    def prepare(self, request: bytes) -> handed_call.Answer | None:
        if request == b"broken":
            raise RuntimeError("cannot tell")
        if request == b"refused":
            return partial(refuse, request)
        return partial(self._note, b"at once") if request == b"ready" else None

    def _note(self, answer: bytes) -> bytes:
        self.threads.append(threading.current_thread().name)
        return answer


def refuse(request: bytes) -> bytes:
    raise InvalidArgumentError.of("request", "is refused")


@contextmanager
def serving(prepared: Prepared, tokens: Path | None = None) -> Iterator[Wire]:
    service = replace(probe({"Do": prepared.behave}), at_once={"Do": prepared.prepare})
    security = OPEN if tokens is None else served_with(tokens=tokens_file(tokens))
    with served([service], LIMITS, security, around=[prepared.passes]) as wire:
        yield wire


def test_what_is_prepared_is_answered_without_a_thread_of_its_own() -> None:
    prepared = Prepared()
    with serving(prepared) as wire:
        assert [b"at once"] * 5 == [wire.call("Do", b"ready") for _ in range(5)]
        assert not pool_of(wire, READ)._threads
        eventually(lambda: pool_of(wire, READ)._taken == 0)
    assert 1 == len(set(prepared.threads))
    assert 5 == prepared.passes.entered


@pytest.mark.parametrize("request_", [b"", b"broken"])
def test_what_is_not_prepared_is_answered_by_its_behaviour(request_: bytes) -> None:
    prepared = Prepared()
    with serving(prepared) as wire:
        assert b"behaved to " + request_ == wire.call("Do", request_)
    assert ["rpc_read_0"] == prepared.threads


@pytest.mark.usefixtures("way")
def test_an_error_at_once_is_told_as_any_other() -> None:
    with serving(Prepared()) as wire:
        assert "INVALID_ARGUMENT" == code_of(lambda: wire.call("Do", b"refused"))
        eventually(lambda: pool_of(wire, READ)._taken == 0)


def test_nothing_is_prepared_of_a_message_that_is_too_large() -> None:
    prepared, size = Prepared(), LIMITS.request_bytes + 1
    with serving(prepared) as wire:
        assert "RESOURCE_EXHAUSTED" == code_of(lambda: wire.call("Do", b"x" * size))
    assert [] == prepared.threads


def test_nothing_is_prepared_for_those_who_may_not_call(tmp_path: Path) -> None:
    prepared = Prepared()
    with serving(prepared, tmp_path) as wire:
        method = wire.channel.unary_unary(DO)
        for metadata, code in (
            ((), "UNAUTHENTICATED"),
            (bearer(READER), "PERMISSION_DENIED"),
            (bearer(WRITE), "OK"),
        ):
            call = partial(method, b"ready", timeout=TIMEOUT, metadata=metadata)
            assert code == code_of(call)
    assert 1 == len(prepared.threads)


def test_as_grpc_does_it_nothing_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handed_call, "_SERVING", ())
    prepared = Prepared()
    with serving(prepared) as wire:
        assert b"behaved to ready" == wire.call("Do", b"ready")


def test_a_server_ends_while_messages_are_waited_for() -> None:
    with (
        served([probe({"Do": answer}, classes={"Do": READ})], LIMITS) as wire,
        RawConnection(wire.address) as raw,
    ):
        pool = pool_of(wire, READ)
        for _ in range(2):
            raw.begin(DO)
        eventually(lambda: waiting(pool) == 2)
        assert wire.server.stop(0.0)
        assert 0 == pool._taken
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("rpc_")]


def test_a_message_that_comes_after_the_end_of_its_pool_ends_nothing_else(wire: Wire) -> None:
    pool = pool_of(wire, READ)
    with RawConnection(wire.address) as raw:
        stream = raw.begin(DO)
        eventually(lambda: waiting(pool) == 1)
        pool.shutdown()
        raw.send(stream, message(b""), last=True)
        eventually(lambda: pool._taken == 0)
        assert "OK" == check(wire)
