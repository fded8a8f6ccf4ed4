from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection

from ktrdr.operations.v1 import operations_service_pb2_grpc
from shared.rpc import errors, health
from shared.rpc.errors import FieldViolation, InvalidArgumentError, KtrdrError
from shared.rpc.interceptors import Chain, MethodInterceptor, UnexpectedError
from shared.rpc.server import ServedService, ServerLimits
from shared.rpc.status import DETAILS_KEY, MAX_DETAILS, PUSHBACK_KEY
from tests.support.eventually import eventually
from tests.support.rpc import (
    PROBE,
    TIMEOUT,
    Behaviour,
    Wire,
    detail,
    failure_of,
    probe,
    required,
    served,
    service_of,
    status_in,
    trailers,
)

MALFORMED = b"\xff\xff\xff"
INSIDE = "what only the log may say"
RAISED = [
    errors.OperationNotFoundError("op_1"),
    errors.ModelNotFoundError("m"),
    errors.RequestIdReusedError("r", "op_1"),
    errors.FailedPreconditionError("Not now.", reason="PROXY_LOOP"),
    errors.CursorOutOfRangeError(7, 5),
    errors.ResourceExhaustedError("Full.", retry_after=5.0),
    errors.HostUnreachableError("Gone."),
    errors.HostTimeoutError("Slow."),
    errors.RefreshBusyError("Busy."),
    errors.StoreUnavailableError("Away."),
    errors.ProcessStoppingError("Stopping."),
    errors.OperationCancelledError("Cancelled."),
    InvalidArgumentError.of("symbols[3]", "is unknown"),
]


def raising(error: Exception) -> Behaviour:
    def behaviour(request: Any, context: grpc.ServicerContext) -> bytes:
        raise error

    return behaviour


def failure_raised_as(error: Exception) -> grpc.RpcError:
    with served([probe({"Fail": raising(error)})]) as wire:
        return wire.failure("Fail")


def echo(request: StringValue, context: grpc.ServicerContext) -> StringValue:
    return request


def echo_stream(request: StringValue, context: grpc.ServicerContext) -> Iterator[StringValue]:
    yield request


def join_all(requests: Iterator[StringValue], context: grpc.ServicerContext) -> StringValue:
    return StringValue(value="".join(request.value for request in requests))


def echo_all(
    requests: Iterator[StringValue], context: grpc.ServicerContext
) -> Iterator[StringValue]:
    yield from requests


@pytest.fixture(scope="module")
def typed() -> Iterator[Wire]:
    """A server with one method of each shape, which take StringValue."""
    codec: Any = (StringValue.FromString, StringValue.SerializeToString)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(echo, *codec),
        "UnaryStream": grpc.unary_stream_rpc_method_handler(echo_stream, *codec),
        "StreamUnary": grpc.stream_unary_rpc_method_handler(join_all, *codec),
        "StreamStream": grpc.stream_stream_rpc_method_handler(echo_all, *codec),
    }
    with served([service_of(handlers)]) as wire:
        yield wire


def send(wire: Wire, method: str, *requests: bytes) -> list[bytes]:
    """Send raw requests to a method of any shape; return the raw answers."""
    path, channel = f"/{method}", wire.channel
    name = method.rpartition("/")[2]
    match name:
        case "UnaryUnary" | "Check":
            return [channel.unary_unary(path)(requests[0], timeout=TIMEOUT)]
        case "UnaryStream" | "Watch":
            return list(channel.unary_stream(path)(requests[0], timeout=TIMEOUT))
        case "StreamUnary":
            return [channel.stream_unary(path)(iter(requests), timeout=TIMEOUT)]
        case _:
            return list(channel.stream_stream(path)(iter(requests), timeout=TIMEOUT))


# ------------------------------------------------------------------ domain errors


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_a_domain_error_arrives_with_code_message_and_details(error: KtrdrError) -> None:
    failure = failure_raised_as(error)
    assert failure.code().name == error.code.name
    assert failure.details() == error.message
    status = status_in(failure)
    assert (status.code, status.message) == (error.code, error.message)
    info = required(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (error.reason, "ktrdr")
    assert dict(info.metadata) == error.metadata


def test_bad_fields_arrive_by_path() -> None:
    violations = [FieldViolation("start_time", "is after end_time"), FieldViolation("a[0].b", "x")]
    status = status_in(failure_raised_as(InvalidArgumentError(violations)))
    named = required(status, error_details_pb2.BadRequest).field_violations
    assert [(v.field, v.description) for v in named] == [
        (v.field, v.description) for v in violations
    ]


def test_unavailable_arrives_with_a_pushback_and_a_time_to_return() -> None:
    failure = failure_raised_as(errors.HostUnreachableError("Gone.", retry_after=1.5))
    assert trailers(failure)[PUSHBACK_KEY] == "1500"
    delay = required(status_in(failure), error_details_pb2.RetryInfo).retry_delay
    assert delay.ToMilliseconds() == 1500


@pytest.mark.parametrize("letter", ["x", "é", "日", "😀", "%", "\n", "\udcff"])
def test_hundreds_of_long_violations_arrive_shortened(letter: str) -> None:
    violations = [FieldViolation(letter * 300, letter * 700) for _ in range(500)]
    failure = failure_raised_as(InvalidArgumentError(violations))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(trailers(failure)[DETAILS_KEY]) <= MAX_DETAILS
    *named, rest = required(status_in(failure), error_details_pb2.BadRequest).field_violations
    assert named
    assert f"and {500 - len(named)} more" == rest.description


@pytest.mark.parametrize("letter", ["x", "日", "😀"])
def test_an_error_with_far_too_many_facts_arrives(letter: str) -> None:
    facts = {f"{index}{letter * 90}": letter * 900 for index in range(200)}
    failure = failure_raised_as(errors.UnavailableError(letter * 9000, metadata=facts))
    assert failure.code() is grpc.StatusCode.UNAVAILABLE
    assert required(status_in(failure), error_details_pb2.ErrorInfo).metadata


def test_an_error_after_the_handed_calls_of_a_stream_arrives_behind_them() -> None:
    def behaviour(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        raise errors.StoreUnavailableError("Away.")

    with served([probe(streams={"Read": behaviour})]) as wire:
        answers = wire.channel.unary_stream(f"/{PROBE}/Read")(b"", timeout=TIMEOUT)
        assert [next(answers), next(answers)] == [b"one", b"two"]
        failure = failure_of(lambda: next(answers))
    assert failure.code() is grpc.StatusCode.UNAVAILABLE
    reason = required(status_in(failure), error_details_pb2.ErrorInfo).reason
    assert reason == "STORE_UNAVAILABLE"


# -------------------------------------------------------------- malformed requests


@pytest.mark.parametrize(
    "method",
    [
        f"{PROBE}/UnaryUnary",
        f"{PROBE}/UnaryStream",
        f"{PROBE}/StreamUnary",
        f"{PROBE}/StreamStream",
        f"{health.SERVICE_NAME}/Check",
        f"{health.SERVICE_NAME}/Watch",
        f"{reflection.SERVICE_NAME}/ServerReflectionInfo",
    ],
)
def test_bytes_that_are_no_message_are_an_invalid_argument(typed: Wire, method: str) -> None:
    failure = failure_of(lambda: send(typed, method, MALFORMED))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "bytes are not the message" in (failure.details() or "")
    assert required(status_in(failure), error_details_pb2.BadRequest).field_violations


def test_bytes_that_are_no_message_are_refused_late_in_a_stream(typed: Wire) -> None:
    good = StringValue(value="good").SerializeToString()
    call = typed.channel.stream_stream(f"/{PROBE}/StreamStream")
    answers = call(iter([good, MALFORMED]), timeout=TIMEOUT)
    assert next(answers) == good
    failure = failure_of(lambda: next(answers))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("shape", ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"])
def test_a_good_message_passes_in_every_shape(typed: Wire, shape: str) -> None:
    good = StringValue(value="good").SerializeToString()
    assert send(typed, f"{PROBE}/{shape}", good) == [good]


@pytest.mark.parametrize("method", [f"{PROBE}/Nothing", "no.such.Service/Method", "nonsense"])
def test_a_method_nobody_serves_is_unimplemented(typed: Wire, method: str) -> None:
    failure = failure_of(lambda: send(typed, method, b""))
    assert failure.code() is grpc.StatusCode.UNIMPLEMENTED
    info = required(status_in(failure), error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("METHOD_NOT_IMPLEMENTED", "ktrdr")
    assert info.metadata["method"].endswith(method)


@pytest.mark.parametrize("shape", ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"])
def test_a_request_of_too_many_bytes_is_refused_with_the_bound(typed: Wire, shape: str) -> None:
    limit = ServerLimits().request_bytes
    failure = failure_of(lambda: send(typed, f"{PROBE}/{shape}", b"x" * (limit + 1)))
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_in(failure)
    info = required(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("REQUEST_TOO_LARGE", "ktrdr")
    assert dict(info.metadata) == {"size": str(limit + 1), "limit": str(limit)}
    assert detail(status, error_details_pb2.RetryInfo) is None  # it stays too large


def test_a_request_of_as_many_bytes_as_may_be_is_taken() -> None:
    limit = ServerLimits().request_bytes
    with served([probe({"Size": lambda request, _: str(len(request)).encode()})]) as wire:
        assert str(limit).encode() == wire.call("Size", b"x" * limit)


# ------------------------------------------------------------------ defects of ours


def set_code_and_crash(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_code(grpc.StatusCode.NOT_FOUND)
    context.set_details(INSIDE)
    raise RuntimeError(INSIDE)


def crash_in_stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield b"first"
    raise RuntimeError(INSIDE)


def crash_of_another_server(request: bytes, context: grpc.ServicerContext) -> Any:
    channel: Any = grpc.insecure_channel("127.0.0.1:1")
    with channel:
        return channel.unary_unary("/x/Y")(b"", timeout=TIMEOUT)


CRASHES = {
    "raise": raising(RuntimeError(INSIDE)),
    "no_memory": raising(MemoryError(INSIDE)),
    "empty": raising(Exception()),
    "set_code": set_code_and_crash,
    "root": raising(KtrdrError("A defect.", metadata={"incident": "known"})),
    "upstream": crash_of_another_server,
}


@pytest.mark.parametrize("name", CRASHES)
def test_an_unforeseen_exception_is_internal_with_an_incident(name: str) -> None:
    with served([probe({"Crash": CRASHES[name]})]) as wire:
        failure = wire.failure("Crash")
    assert failure.code() is grpc.StatusCode.INTERNAL
    info = required(status_in(failure), error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("INTERNAL", "ktrdr")
    assert info.metadata["incident"]


def test_the_trace_of_an_unforeseen_exception_is_only_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failure = failure_raised_as(RuntimeError(INSIDE))
    incident = required(status_in(failure), error_details_pb2.ErrorInfo).metadata["incident"]
    told = f"{failure.details()} {trailers(failure)}"
    assert incident in (failure.details() or "")
    assert not [word for word in (INSIDE, "Traceback", ".py", "RuntimeError") if word in told]
    logged = [record for record in caplog.records if record.name == "ktrdr.rpc"]
    assert [f"Incident {incident} in /{PROBE}/Fail"] == [r.getMessage() for r in logged]
    assert INSIDE in caplog.text
    assert "Traceback" in caplog.text


def test_a_crash_in_the_middle_of_a_stream_is_an_incident() -> None:
    with served([probe(streams={"Crash": crash_in_stream})]) as wire:
        answers = wire.channel.unary_stream(f"/{PROBE}/Crash")(b"", timeout=TIMEOUT)
        assert next(answers) == b"first"
        failure = failure_of(lambda: next(answers))
    assert failure.code() is grpc.StatusCode.INTERNAL
    assert INSIDE not in str(failure.details())


def test_a_domain_error_is_no_incident(caplog: pytest.LogCaptureFixture) -> None:
    failure_raised_as(errors.OperationNotFoundError("op_1"))
    assert caplog.records == []


def test_incidents_have_names_of_their_own() -> None:
    crash = probe({"Crash": raising(RuntimeError(INSIDE))})
    with served([crash]) as wire:
        told = {str(wire.failure("Crash").details()) for _ in range(5)}
    assert len(told) == 5
    assert UnexpectedError("a").metadata == {"incident": "a"}


def test_a_method_left_out_of_a_servicer_is_unimplemented(
    caplog: pytest.LogCaptureFixture,
) -> None:
    empty: Any = operations_service_pb2_grpc.OperationsServiceServicer
    service = ServedService(
        "ktrdr.operations.v1.OperationsService",
        empty(),
        operations_service_pb2_grpc.add_OperationsServiceServicer_to_server,
    )
    with served([service]) as wire:
        failure = wire.failure("ListOperations", b"", service.name)
    assert failure.code() is grpc.StatusCode.UNIMPLEMENTED
    reason = required(status_in(failure), error_details_pb2.ErrorInfo).reason
    assert reason == "METHOD_NOT_IMPLEMENTED"
    assert caplog.records == []


# ------------------------------------------------------- what others do stays as it is


def test_a_servicer_that_aborts_the_call_itself_keeps_its_status(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    with served([probe({"Abort": behaviour})]) as wire:
        failure = wire.failure("Abort")
    assert failure.code() is grpc.StatusCode.UNAUTHENTICATED
    assert failure.details() == "who are you?"
    assert caplog.records == []


def test_a_servicer_that_answers_with_a_code_keeps_it() -> None:
    def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        return b""

    with served([probe({"Lose": behaviour})]) as wire:
        failure = wire.failure("Lose")
    assert failure.code() is grpc.StatusCode.DATA_LOSS


def test_a_client_that_leaves_a_stream_is_no_incident(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    def behaviour(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(ended.set)
        yield from requests

    more = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"one"
        more.wait(TIMEOUT)

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(behaviour)
    with served([service_of({"Talk": handler})]) as wire, caplog.at_level(logging.DEBUG):
        call = wire.channel.stream_stream(f"/{PROBE}/Talk")(requests(), timeout=TIMEOUT)
        assert next(call) == b"one"
        call.cancel()
        more.set()
        eventually(ended.is_set)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


# ------------------------------------------------------------------------ wrapping


class CountingInterceptor(MethodInterceptor):
    """Counts how often it wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.wrapped: list[str] = []

    def wrap(self, method: str, handler: Any) -> Any:
        """Leave the handler as it is."""
        self.wrapped.append(method)
        return handler


class CallDetails(grpc.HandlerCallDetails):
    """A call of this method."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def intercepted(interceptor: MethodInterceptor, method: str, handler: object) -> object:
    found: Callable[[grpc.HandlerCallDetails], Any] = lambda details: handler  # noqa: E731  # typed
    return interceptor.intercept_service(found, CallDetails(method))


def test_each_method_is_wrapped_once() -> None:
    interceptor = CountingInterceptor()
    handler = object()
    for method in ("/a", "/b", "/a", "/b"):
        assert intercepted(interceptor, method, handler) is handler
    assert interceptor.wrapped == ["/a", "/b"]


def test_unknown_methods_are_not_remembered() -> None:
    interceptor = CountingInterceptor()
    for index in range(100):
        assert intercepted(interceptor, f"/guess/{index}", None) is None
    assert interceptor.wrapped == []
    assert interceptor._wrapped == {}


def test_a_chain_has_an_answer_to_unknown_methods_and_does_not_remember_them() -> None:
    chain = Chain(CountingInterceptor())
    for index in range(100):
        assert intercepted(chain, f"/guess/{index}", None) is not None
    assert chain._wrapped == {}
