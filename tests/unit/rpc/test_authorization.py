from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import MethodOptions
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from shared import reloading
from shared.rpc import health
from shared.rpc.admission import READ as READ_CLASS
from shared.rpc.authorization import scope_of
from shared.rpc.security import ServerSecurity
from shared.rpc.server import ServerLimits
from shared.rpc.tokens import Scope
from tests.support.certificates import READ, STRANGE, WRITE, bearer, served_with, tokens_file
from tests.support.contract import METHODS
from tests.support.eventually import eventually
from tests.support.rpc import (
    PROBE,
    TIMEOUT,
    Gate,
    Wire,
    code_of,
    failure_of,
    probe,
    required,
    served,
    status_in,
)

OPERATIONS = "/ktrdr.operations.v1.OperationsService"
READING_VERBS = ("Get", "List", "Read", "Wait")
"""What methods that do not change anything begin with."""


# ------------------------------------------------------------------------------ scopes


def test_the_contract_is_found() -> None:
    assert {"GetOperation", "DeleteOperation", "StartTraining", "ReadBars"} <= {
        method.name for method in METHODS
    }


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_the_contract_says_of_every_method_whether_it_has_side_effects(method: Any) -> None:
    """A method without `option idempotency_level` is a decision that nobody has made."""
    assert MethodOptions.IDEMPOTENCY_UNKNOWN != method.GetOptions().idempotency_level


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_a_method_needs_the_scope_that_its_name_promises(method: Any) -> None:
    expected = Scope.READ if method.name.startswith(READING_VERBS) else Scope.WRITE
    assert expected == scope_of(f"/{method.containing_service.full_name}/{method.name}")


def test_health_is_open_and_reflection_is_read() -> None:
    for name in ("Check", "Watch", "Anything"):
        assert scope_of(f"/{health.SERVICE_NAME}/{name}") is None
    assert Scope.READ is scope_of(f"/{reflection.SERVICE_NAME}/ServerReflectionInfo")


def test_a_contract_that_cannot_say_what_only_reads_needs_write_unless_it_is_said_for_it() -> None:
    for method in ("Get", "Do"):
        expected = Scope.READ if method == "Get" else Scope.WRITE
        assert expected == scope_of(f"/{PROBE}/{method}", {f"/{PROBE}/Get"})


@pytest.mark.parametrize(
    "method",
    [
        f"{OPERATIONS}/GetOperations",
        f"{OPERATIONS}/getoperation",
        "/ktrdr.operations.v1.OperationService/GetOperation",
        "/grpc.health.v1.Healthy/Check",
        "/grpc.health.v1.Health.More/Check",
        "/Check",
        "",
        "//",
    ],
)
def test_what_the_contract_does_not_know_needs_write(method: str) -> None:
    assert Scope.WRITE is scope_of(method)


# ----------------------------------------------------------------------- over the wire


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tokens_file(tmp_path)


@pytest.fixture
def wire(file: Path) -> Iterator[Wire]:
    services = [probe({"Do": lambda *_: b"done"}, {"Stream": lambda *_: iter([b"a", b"b"])})]
    with served(services, security=served_with(tokens=file)) as wire:
        yield wire


def call(wire: Wire, metadata: Any, method: str = "Do", service: str = PROBE) -> bytes:
    unary = wire.channel.unary_unary(f"/{service}/{method}")
    answer: bytes = unary(b"", timeout=TIMEOUT, metadata=metadata)
    return answer


def refusal(wire: Wire, metadata: Any) -> tuple[str, str, str]:
    """Code, reason and message of a call that is refused."""
    error = failure_of(lambda: call(wire, metadata))
    status = status_in(error)
    return error.code().name, required(status, ErrorInfo).reason, status.message


def test_a_token_of_scope_write_may_do_everything(wire: Wire) -> None:
    assert b"done" == call(wire, bearer(WRITE))
    stream = wire.channel.unary_stream(f"/{PROBE}/Stream")
    assert [b"a", b"b"] == list(stream(b"", timeout=TIMEOUT, metadata=bearer(WRITE)))


def test_who_has_done_what_is_logged_by_name_and_reads_are_not(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ktrdr")
    call(wire, bearer(WRITE))
    reflected(wire, bearer(READ))
    assert [f"/{PROBE}/Do called by writer"] == caplog.messages


def test_who_was_refused_is_logged_once_for_each_reason_and_without_the_token(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    for metadata in (bearer(STRANGE), (), bearer(READ)):
        for _ in range(3):
            refusal(wire, metadata)
    messages = [re.sub(r"ipv4:127\.0\.0\.1:\d+", "PEER", text) for text in caplog.messages]
    assert [
        f"Refused /{PROBE}/Do from PEER (no known token): TOKEN_UNKNOWN",
        f"Refused /{PROBE}/Do from PEER (no known token): TOKEN_MISSING",
        f"Refused /{PROBE}/Do from PEER (reader): WRITE_SCOPE_NEEDED",
    ] == messages


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", WRITE),),
        (("authorization", f"Basic {WRITE}"),),
        (("x-authorization", f"Bearer {WRITE}"),),
        (("authorization-bin", f"Bearer {WRITE}".encode()),),
        bearer(WRITE) + bearer(WRITE),
        bearer(STRANGE) + bearer(WRITE),
    ],
)
def test_a_call_without_one_token_is_told_how_to_send_it(
    wire: Wire, metadata: Sequence[tuple[str, str]]
) -> None:
    code, reason, message = refusal(wire, metadata)
    assert ("UNAUTHENTICATED", "TOKEN_MISSING") == (code, reason)
    assert "Send `authorization: Bearer TOKEN`" in message
    assert "KTRDR_TOKEN_FILE" in message


@pytest.mark.parametrize("token", [STRANGE, WRITE[:-1], WRITE + "x", WRITE.upper(), "x" * 4000])
def test_a_token_that_is_not_known_is_refused_and_not_repeated(wire: Wire, token: str) -> None:
    code, reason, message = refusal(wire, bearer(token))
    assert ("UNAUTHENTICATED", "TOKEN_UNKNOWN") == (code, reason)
    assert token not in message


def test_a_token_of_scope_read_may_not_write_and_is_told_the_scope_it_needs(wire: Wire) -> None:
    error = failure_of(lambda: call(wire, bearer(READ)))
    info = required(status_in(error), ErrorInfo)
    assert ("PERMISSION_DENIED", "WRITE_SCOPE_NEEDED") == (error.code().name, info.reason)
    assert {"scope": "write", "token_name": "reader", "method": f"/{PROBE}/Do"} == dict(
        info.metadata
    )
    assert "needs a token with scope write; 'reader' has scope read" in str(error.details())


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
def test_the_scheme_may_be_written_in_any_case(wire: Wire, scheme: str) -> None:
    assert b"done" == call(wire, (("authorization", f"{scheme} {WRITE}"),))


def test_a_stream_is_refused_before_its_first_answer(wire: Wire) -> None:
    stream = wire.channel.unary_stream(f"/{PROBE}/Stream")
    assert "PERMISSION_DENIED" == code_of(
        lambda: next(stream(b"", timeout=TIMEOUT, metadata=bearer(READ)))
    )


def test_health_is_told_to_everybody(wire: Wire) -> None:
    answer = call(wire, (), "Check", health.SERVICE_NAME)
    assert health_pb2.HealthCheckResponse.SERVING == (
        health_pb2.HealthCheckResponse.FromString(answer).status
    )
    watch = wire.channel.unary_stream(f"/{health.SERVICE_NAME}/Watch")(b"", timeout=TIMEOUT)
    assert next(watch)
    watch.cancel()


def reflected(wire: Wire, metadata: Any) -> int:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(wire.channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = stub.ServerReflectionInfo(requests, timeout=TIMEOUT, metadata=metadata)
    return len(answer.list_services_response.service)


def test_who_may_read_is_told_what_services_there_are(wire: Wire) -> None:
    assert 3 == reflected(wire, bearer(READ))
    assert "UNAUTHENTICATED" == code_of(lambda: reflected(wire, ()))


def test_without_reflection_nobody_is(file: Path) -> None:
    tokens = served_with(tokens=file).tokens
    with served([], security=ServerSecurity(tokens=tokens, reflection=False)) as wire:
        assert "UNIMPLEMENTED" == code_of(lambda: reflected(wire, bearer(WRITE)))
        call(wire, (), "Check", health.SERVICE_NAME)


def test_who_is_refused_learns_nothing_of_how_many_are_served(file: Path) -> None:
    gate, limits = Gate(), ServerLimits(read=1, wait=1, stream=1, start=1)
    services = [probe({"Do": gate}, classes={"Do": READ_CLASS})]
    with served(services, limits, served_with(tokens=file)) as wire:
        raw = wire.channel.unary_unary(f"/{PROBE}/Do")
        first = raw.future(b"", timeout=TIMEOUT, metadata=bearer(WRITE))
        eventually(lambda: gate.waiting == 1)
        assert "UNAUTHENTICATED" == code_of(lambda: call(wire, ()))
        gate.opened.set()
        assert b"passed" == first.result()


def test_a_call_that_came_in_circles_is_only_told_so_to_who_may_call(wire: Wire) -> None:
    circle = (("ktrdr-via", "probe"),)
    assert "UNAUTHENTICATED" == code_of(lambda: call(wire, circle))
    assert "FAILED_PRECONDITION" == code_of(lambda: call(wire, circle + bearer(WRITE)))


# -------------------------------------------------------------------------- new tokens


def test_a_changed_file_counts_without_a_restart(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "INTERVAL", 0.0)
    services = [probe({"Do": lambda *_: b"done"})]
    with served(services, security=served_with(tokens=file)) as wire:
        call(wire, bearer(WRITE))
        file.write_text(f"newcomer write {STRANGE}\n")
        call(wire, bearer(STRANGE))
        assert "UNAUTHENTICATED" == code_of(lambda: call(wire, bearer(WRITE)))
        file.write_text("newcomer write\n")  # broken: what was read before still counts
        call(wire, bearer(STRANGE))
        file.unlink()
        call(wire, bearer(STRANGE))


def test_a_token_that_was_accepted_is_not_after_its_scope_was_lowered(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "INTERVAL", 0.0)
    services = [probe({"Do": lambda *_: b"done"})]
    with served(services, security=served_with(tokens=file)) as wire:
        call(wire, bearer(WRITE))
        file.write_text(f"writer read {WRITE}\n")
        assert "PERMISSION_DENIED" == code_of(lambda: call(wire, bearer(WRITE)))
