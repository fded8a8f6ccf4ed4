from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from shared.rpc import errors
from shared.rpc.channel import open_channel
from shared.rpc.errors import Code, FieldViolation, InvalidArgumentError, KtrdrError
from shared.rpc.failed_call import FailedCall, domain_error, read_failed_call
from shared.rpc.interceptors import UnexpectedError, UnimplementedError
from shared.rpc.status import DETAILS_KEY, status_of
from shared.rpc.via import ProxyLoopError
from tests.support.eventually import eventually
from tests.support.rpc import LOOPBACK, TIMEOUT, Behaviour, Gate, failure_of, probe, served

TARGET = "host:50052"
UNRESOLVABLE = ["no-such-host.invalid:50052", f"{'a' * 64}.example:50052"]


def failure_raised_as(error: Exception) -> grpc.RpcError:
    """What a client of a ktrdr server gets if a servicer raises this."""

    def behaviour(request: Any, context: grpc.ServicerContext) -> bytes:
        raise error

    with served([probe({"Fail": behaviour})]) as wire:
        return wire.failure("Fail")


def failure_at(address: str, timeout: float = TIMEOUT) -> grpc.RpcError:
    """What a call to this address ends with."""
    with open_channel(address) as channel:
        call: Any = channel.unary_unary("/test.v1.ProbeService/Ask")
        return failure_of(lambda: call(b"", timeout=timeout))


@contextmanager
def foreign(behaviour: Behaviour, *, calls: int | None = None) -> Iterator[str]:
    """A gRPC server that is none of ktrdr's; give its address."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, maximum_concurrent_rpcs=calls)
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Ask": grpc.unary_unary_rpc_method_handler(behaviour)
        }
        generic = grpc.method_handlers_generic_handler("test.v1.ProbeService", handlers)
        server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port(LOOPBACK)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait(TIMEOUT)


def failure_of_foreign(
    code: grpc.StatusCode, message: str = "", trailer: bytes | None = None
) -> grpc.RpcError:
    """What a server of others answers with, and with these bytes for details."""

    def behaviour(request: Any, context: grpc.ServicerContext) -> bytes:
        if trailer is not None:
            context.set_trailing_metadata(((DETAILS_KEY, trailer),))
        context.abort(code, message)

    with foreign(behaviour) as address:
        return failure_at(address)


def packed(code: Code, *details: Message | AnyMessage) -> bytes:
    """A google.rpc.Status with these details."""
    status = status_pb2.Status(code=code, message="m")
    for one in details:
        added = status.details.add()
        if isinstance(one, AnyMessage):
            added.CopyFrom(one)
        else:
            added.Pack(one)
    whole: bytes = status.SerializeToString()
    return whole


def garbage(kind: type[Message]) -> AnyMessage:
    """Bytes that say they are a message and are not."""
    return AnyMessage(type_url=f"type.googleapis.com/{kind.DESCRIPTOR.full_name}", value=b"\xff")


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody listens, and nobody else will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


# ------------------------------------------------------------------- answered by ktrdr


def test_all_that_a_ktrdr_server_says_is_read() -> None:
    violations = (FieldViolation("symbols[0]", "is unknown"), FieldViolation("seed", "is odd"))
    error = InvalidArgumentError(violations)
    error.metadata["a"] = "b"
    assert FailedCall(
        code=Code.INVALID_ARGUMENT,
        message=error.message,
        reason="INVALID_ARGUMENT",
        metadata={"a": "b"},
        violations=violations,
        answered=True,
    ) == read_failed_call(failure_raised_as(error))


@pytest.mark.parametrize("seconds", [0.0, 2.5])
def test_the_time_to_come_back_is_read(seconds: float) -> None:
    raised = errors.ResourceExhaustedError("Full.", retry_after=seconds, reason="WORKERS_BUSY")
    read = read_failed_call(failure_raised_as(raised))
    assert (seconds, "WORKERS_BUSY", True) == (read.retry_after, read.reason, read.answered)


RETURNED: list[tuple[KtrdrError, type[KtrdrError]]] = [
    (errors.OperationNotFoundError("op", instance="i"), errors.NotFoundError),
    (errors.ModelNotFoundError("m"), errors.NotFoundError),
    (errors.RequestIdReusedError("r", "op"), errors.AlreadyExistsError),
    (errors.CursorOutOfRangeError(7, 5), errors.OutOfRangeError),
    (errors.FailedPreconditionError("No.", reason="MODEL_BAD"), errors.FailedPreconditionError),
    (ProxyLoopError("me"), errors.FailedPreconditionError),
    (
        errors.ResourceExhaustedError("Full.", reason="WORKERS_BUSY", retry_after=5.0),
        errors.ResourceExhaustedError,
    ),
    (errors.UnavailableError("Not now."), errors.UnavailableError),
    (errors.RefreshBusyError("Busy."), errors.UnavailableError),
    (errors.StoreUnavailableError("Away."), errors.UnavailableError),
    (errors.ProcessStoppingError("Stopping.", retry_after=3.0), errors.UnavailableError),
    (errors.HostUnreachableError("Further on."), errors.UnavailableError),
    (errors.HostTimeoutError("Further on."), errors.UnavailableError),
    (errors.WrongHostError("t", expected="a", found="b"), errors.UnavailableError),
]


@pytest.mark.parametrize(
    ("raised", "kind"), RETURNED, ids=[type(raised).__name__ for raised, _ in RETURNED]
)
def test_an_error_comes_back_with_all_it_said(raised: KtrdrError, kind: type[KtrdrError]) -> None:
    error = domain_error(failure_raised_as(raised), TARGET, timeout=1.0)
    # Exactly: what is unreachable for the target says nothing about the target.
    assert kind is type(error)
    assert (raised.message, raised.reason) == (error.message, error.reason)
    assert {"target": TARGET, **raised.metadata} == error.metadata
    assert getattr(raised, "retry_after", None) == getattr(error, "retry_after", None)


def test_bad_fields_come_back_by_name() -> None:
    raised = InvalidArgumentError([FieldViolation("a.b", "is bad"), FieldViolation("c", "is off")])
    error = domain_error(failure_raised_as(raised), TARGET, timeout=1.0)
    assert isinstance(error, InvalidArgumentError)
    assert raised.violations == error.violations
    assert raised.message == error.message == str(error)
    assert ("INVALID_ARGUMENT", {"target": TARGET}) == (error.reason, error.metadata)


def test_an_error_can_be_passed_on_unchanged() -> None:
    raised = InvalidArgumentError([FieldViolation(f"symbols[{i}]", "x" * 90) for i in range(80)])
    once = domain_error(failure_raised_as(raised), TARGET, timeout=1.0)
    twice = domain_error(failure_raised_as(once), TARGET, timeout=1.0)
    assert status_of(once) == status_of(twice)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (UnexpectedError("abc123"), "INTERNAL"),
        (KtrdrError("A defect.", metadata={"incident": "abc123"}), "INTERNAL"),
        (errors.OperationCancelledError("m", metadata={"incident": "abc123"}), "CANCELLED"),
    ],
)
def test_a_defect_there_is_a_failed_host_here(raised: KtrdrError, code: str) -> None:
    error = domain_error(failure_raised_as(raised), TARGET, timeout=1.0)
    assert (errors.UnavailableError, "HOST_FAILED") == (type(error), error.reason)
    assert {"target": TARGET, "incident": "abc123"} == error.metadata
    for named in (TARGET, code, "incident abc123"):
        assert named in error.message


def test_a_method_an_older_host_lacks_is_a_malformed_answer() -> None:
    error = domain_error(failure_raised_as(UnimplementedError("/a/B")), TARGET, timeout=1.0)
    assert errors.MalformedAnswerError is type(error)
    assert "does not implement /a/B" in error.message


# ------------------------------------------------------------------- never connected


def test_a_closed_port_was_never_reached(closed_port: str) -> None:
    failed = failure_at(closed_port)
    read = read_failed_call(failed)
    assert (Code.UNAVAILABLE, False, True) == (read.code, read.answered, read.never_connected)
    error = domain_error(failed, closed_port, timeout=1.0)
    assert errors.HostUnreachableError is type(error)
    assert f"No ktrdr process answers at {closed_port}: the connection was refused" == error.message
    assert {"target": closed_port} == error.metadata


def test_a_call_that_is_waited_for_later_says_the_same(closed_port: str) -> None:
    with open_channel(closed_port) as channel:
        call: Any = channel.unary_unary("/a/B")
        future = call.future(b"", timeout=TIMEOUT)
        assert read_failed_call(failure_of(future.result)).never_connected


@pytest.mark.parametrize("address", UNRESOLVABLE)
def test_a_name_that_leads_nowhere_was_never_reached(address: str) -> None:
    read = read_failed_call(failure_at(address))
    assert (Code.UNAVAILABLE, True) == (read.code, read.never_connected), read.message


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A listener that serves each connection so, then closes it; give its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join(TIMEOUT)


def answer_http(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def shake_hands_and_leave(connection: socket.socket) -> None:
    connection.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")  # HTTP/2 SETTINGS
    connection.recv(1000)


def test_a_server_that_is_no_grpc_server_was_never_reached() -> None:
    with listener(answer_http) as address:
        assert read_failed_call(failure_at(address)).never_connected


def test_a_peer_that_leaves_after_the_handshake_may_have_seen_the_call() -> None:
    with listener(shake_hands_and_leave) as address:
        failed = failure_at(address)
    assert not read_failed_call(failed).never_connected
    assert errors.HostUnreachableError is type(domain_error(failed, address, timeout=1.0))


def test_a_server_that_stops_during_a_call_has_seen_it() -> None:
    gate = Gate()
    with served([probe({"Stay": gate})]) as wire:
        future = wire.begin("Stay")
        eventually(lambda: gate.waiting == 1)
        wire.server.stop(0.0)
        failed = failure_of(future.result)
        gate.opened.set()
    assert not read_failed_call(failed).never_connected
    assert errors.HostUnreachableError is type(domain_error(failed, TARGET, timeout=1.0))


def test_a_deadline_before_the_connection_proves_nothing(closed_port: str) -> None:
    with open_channel(closed_port) as channel:
        call: Any = channel.unary_unary("/a/B")
        failed = failure_of(lambda: call(b"", timeout=0.05, wait_for_ready=True))
    assert not read_failed_call(failed).never_connected


def test_a_ktrdr_server_that_says_the_words_was_reached() -> None:
    text = "failed to connect to all addresses"
    read = read_failed_call(failure_raised_as(errors.UnavailableError(text)))
    assert (True, False) == (read.answered, read.never_connected)


@pytest.mark.parametrize("trailer", [b"", b"\xff", packed(Code.UNAVAILABLE)])
def test_a_server_of_others_that_says_the_words_and_more_was_reached(trailer: bytes) -> None:
    text = "failed to connect to all addresses"
    read = read_failed_call(failure_of_foreign(grpc.StatusCode.UNAVAILABLE, text, trailer))
    assert (False, False) == (read.answered, read.never_connected)


# ------------------------------------------------------------------------ not answered


def test_a_silent_host_is_a_timeout() -> None:
    gate = Gate()
    with foreign(gate) as address:
        failed = failure_at(address, timeout=0.2)
        gate.opened.set()
    error = domain_error(failed, TARGET, timeout=0.2)
    assert errors.HostTimeoutError is type(error)
    assert error.message.startswith(f"{TARGET} did not answer within 0.2 s.")
    assert {"target": TARGET} == error.metadata


def test_a_channel_that_is_closed_reaches_nobody() -> None:
    gate = Gate()
    with served([probe({"Stay": gate})]) as wire:
        future = wire.begin("Stay")
        eventually(lambda: gate.waiting == 1)
        wire.channel.close()
        failed = failure_of(future.result)
        gate.opened.set()
    assert Code.CANCELLED is read_failed_call(failed).code
    assert errors.HostUnreachableError is type(domain_error(failed, TARGET, timeout=1.0))


UNANSWERED = {
    "UNAVAILABLE": errors.HostUnreachableError,
    "CANCELLED": errors.HostUnreachableError,
    "DEADLINE_EXCEEDED": errors.HostTimeoutError,
    "RESOURCE_EXHAUSTED": errors.UnavailableError,
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
@pytest.mark.parametrize(
    "details",
    [None, [error_details_pb2.ErrorInfo(reason="OPERATION_NOT_FOUND", domain="other")]],
    ids=["bare", "other domain"],
)
def test_a_status_of_others_is_never_taken_for_ktrdrs(
    code: grpc.StatusCode, details: list[Message] | None
) -> None:
    trailer = None if details is None else packed(Code(code.value[0]), *details)
    failed = failure_of_foreign(code, "some words", trailer)
    assert not read_failed_call(failed).answered
    error = domain_error(failed, TARGET, timeout=1.0)
    kind = UNANSWERED.get(code.name, errors.MalformedAnswerError)
    reason = "HOST_OVERLOADED" if kind is errors.UnavailableError else kind.reason
    assert (kind, reason) == (type(error), error.reason)
    assert (TARGET, TARGET in error.message) == (error.metadata["target"], True)


def test_words_of_others_are_shown_shortened() -> None:
    failed = failure_of_foreign(grpc.StatusCode.UNKNOWN, "x" * 5000)
    error = domain_error(failed, TARGET, timeout=1.0)
    assert "xxx…" in error.message
    assert len(error.message) < 600


def test_a_service_nobody_has_is_a_malformed_answer() -> None:
    with served([]) as wire:
        failed = failure_at(wire.address)
    error = domain_error(failed, TARGET, timeout=1.0)
    assert errors.MalformedAnswerError is type(error)
    assert "no ktrdr process or speaks another version" in error.message


def test_an_answer_that_cannot_be_read_is_a_malformed_answer() -> None:
    def refuse(_: bytes) -> Any:
        raise ValueError("no message")

    with foreign(lambda *_: b"nonsense") as address, open_channel(address) as channel:
        call: Any = channel.unary_unary("/test.v1.ProbeService/Ask", response_deserializer=refuse)
        failed = failure_of(lambda: call(b"", timeout=TIMEOUT))
    assert errors.MalformedAnswerError is type(domain_error(failed, TARGET, timeout=1.0))


def test_grpcs_own_fence_says_not_whether_it_was_begun() -> None:
    gate = Gate()
    with foreign(gate, calls=1) as address, open_channel(address) as channel:
        call: Any = channel.unary_unary("/test.v1.ProbeService/Ask")
        first = call.future(b"", timeout=TIMEOUT)
        eventually(lambda: gate.waiting == 1)
        error = domain_error(failure_at(address), TARGET, timeout=1.0)
        gate.opened.set()
        assert b"passed" == first.result()
    assert (errors.UnavailableError, "HOST_OVERLOADED") == (type(error), error.reason)
    assert "Concurrent RPC limit exceeded" in error.message


def test_an_answer_too_large_says_not_whether_it_was_begun() -> None:
    with foreign(lambda *_: b"x" * (5 << 20)) as address:
        error = domain_error(failure_at(address), TARGET, timeout=1.0)
    assert (errors.UnavailableError, "HOST_OVERLOADED") == (type(error), error.reason)
    assert "larger than max" in error.message


# ----------------------------------------------------------------------------- garbage

INFO = error_details_pb2.ErrorInfo(reason="OPERATION_NOT_FOUND", domain="ktrdr")


@pytest.mark.parametrize(
    "trailer",
    [
        b"",
        b"\xff\xff\xff",
        b"x" * 3000,
        packed(Code.NOT_FOUND, garbage(error_details_pb2.ErrorInfo)),
        packed(Code.NOT_FOUND, AnyMessage(type_url="nonsense", value=b"\xff")),
        packed(Code.NOT_FOUND, AnyMessage(value=b"\xff")),
        packed(Code.UNAVAILABLE, INFO),  # of another error than the call's
    ],
)
def test_garbage_in_the_details_is_taken_for_no_details(trailer: bytes) -> None:
    read = read_failed_call(failure_of_foreign(grpc.StatusCode.NOT_FOUND, "m", trailer))
    assert FailedCall(code=Code.NOT_FOUND, message="m") == read


def test_garbage_beside_what_can_be_read_is_left_out() -> None:
    trailer = packed(
        Code.NOT_FOUND,
        garbage(error_details_pb2.BadRequest),
        garbage(error_details_pb2.RetryInfo),
        INFO,
    )
    read = read_failed_call(failure_of_foreign(grpc.StatusCode.NOT_FOUND, "m", trailer))
    assert (True, "OPERATION_NOT_FOUND") == (read.answered, read.reason)
    assert ((), None) == (read.violations, read.retry_after)


@pytest.mark.parametrize(("seconds", "expected"), [(-5, 0.0), (10**11, 3600.0), (7, 7.0)])
def test_a_senseless_time_to_come_back_is_bounded(seconds: int, expected: float) -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds = seconds
    trailer = packed(Code.UNAVAILABLE, retry, INFO)
    failed = failure_of_foreign(grpc.StatusCode.UNAVAILABLE, "m", trailer)
    assert expected == read_failed_call(failed).retry_after


def test_an_error_that_is_no_call_says_nothing() -> None:
    bare = grpc.RpcError("made by hand")
    assert FailedCall(code=Code.UNKNOWN, message="") == read_failed_call(bare)
    assert errors.MalformedAnswerError is type(domain_error(bare, TARGET, timeout=1.0))
