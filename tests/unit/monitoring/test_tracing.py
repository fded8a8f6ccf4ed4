from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from shared.monitoring.tracing import Tracing
from shared.rpc.call_tracing import TracingInterceptor, traced
from shared.rpc.errors import HostUnreachableError, NotFoundError, OperationNotFoundError
from shared.rpc.host_channel import HostChannel
from tests.support.rpc import PROBE, Wire, probe, served, service_of

GET = "ktrdr.operations.v1.OperationsService/GetOperation"


class Traced:
    """A server and what calls it, both traced into one memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing("test", self.exporter)
        self.served = TracingInterceptor(self.tracing)

    def call(self, wire: Wire, method: str) -> Any:
        """Call a method that answers with one message, traced."""
        bound = wire.channel.unary_unary(f"/{PROBE}/{method}")
        return traced(bound, self.tracing)(b"", timeout=5, metadata=())

    def spans(self) -> dict[str, ReadableSpan]:
        """What has ended, by kind; the last of each."""
        self.tracing._provider.force_flush()
        return {span.kind.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def its() -> Iterator[Traced]:
    its = Traced()
    yield its
    its.tracing.close()


def test_without_spans_calls_are_made_without_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracing = Tracing("test", InMemorySpanExporter())
    headers, end = tracing.calling(GET)
    end("OK")
    assert {} == headers
    tracing.close()


def answer(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answer"


def fail(request: Any, context: grpc.ServicerContext) -> bytes:
    raise OperationNotFoundError("x")


def two(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from [b"1", b"2"]


@pytest.fixture
def wire(its: Traced) -> Iterator[Wire]:
    service = probe({"Get": answer, "Fail": fail}, {"Tail": two})
    with served([service], around=[its.served]) as wire:
        yield wire


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def context_of(span: ReadableSpan) -> Any:
    return span.get_span_context()


def test_a_call_and_its_service_are_one_trace(its: Traced, wire: Wire) -> None:
    assert b"answer" == its.call(wire, "Get")
    spans = its.spans()
    made, done = spans["CLIENT"], spans["SERVER"]
    assert context_of(made).trace_id == context_of(done).trace_id
    assert done.parent is not None
    assert context_of(made).span_id == done.parent.span_id
    for span in (made, done):
        assert {
            "rpc.system": "grpc",
            "rpc.service": PROBE,
            "rpc.method": "Get",
            "rpc.grpc.status_code": 0,
        } == attributes(span)


def test_a_client_that_traces_nothing_begins_no_trace_of_its_own(its: Traced, wire: Wire) -> None:
    wire.call("Get")
    assert its.spans()["SERVER"].parent is None


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_traceparent_that_is_none_is_ignored(its: Traced, wire: Wire, traceparent: str) -> None:
    metadata = [("traceparent", traceparent)]
    wire.channel.unary_unary(f"/{PROBE}/Get")(b"", timeout=5, metadata=metadata)
    assert its.spans()["SERVER"].parent is None


def test_a_refusal_is_an_error_of_who_calls_not_of_who_serves(its: Traced, wire: Wire) -> None:
    with pytest.raises(grpc.RpcError):
        its.call(wire, "Fail")
    spans = its.spans()
    assert ("ERROR", "UNSET") == (
        spans["CLIENT"].status.status_code.name,
        spans["SERVER"].status.status_code.name,
    )
    assert 5 == attributes(spans["SERVER"])["rpc.grpc.status_code"]


def test_methods_that_nobody_serves_are_one_span_name(its: Traced, wire: Wire) -> None:
    wire.failure("Nowhere")
    assert "unknown" == its.spans()["SERVER"].name


def test_a_stream_is_one_span_at_either_end(its: Traced, wire: Wire) -> None:
    tail = traced(wire.channel.unary_stream(f"/{PROBE}/Tail"), its.tracing)
    assert [b"1", b"2"] == list(tail(b"", timeout=5, metadata=()))
    spans = its.spans()
    assert ["Tail", "Tail"] == [attributes(span)["rpc.method"] for span in spans.values()]


def test_calls_of_a_commands_threads_belong_to_the_command(its: Traced, wire: Wire) -> None:
    def call() -> None:
        its.call(wire, "Get")

    with its.tracing.command("ktrdr test"):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    spans = {span.kind.name: span for span in its.exporter.get_finished_spans()}
    assert "ktrdr test" == spans["INTERNAL"].name
    assert spans["CLIENT"].parent is not None
    assert context_of(spans["INTERNAL"]).span_id == spans["CLIENT"].parent.span_id


def test_its_thread_ends_with_it(its: Traced) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if "Batch" in thread.name]

    its.tracing.close()
    assert [] == threads()


# -------------------------------------------------------- calls to other processes


@pytest.fixture
def host_channel(its: Traced) -> Iterator[HostChannel]:
    handlers = {
        "GetOperation": grpc.unary_unary_rpc_method_handler(
            fail,
            pb.GetOperationRequest.FromString,
            pb.GetOperationResponse.SerializeToString,
        )
    }
    service = service_of(handlers, name="ktrdr.operations.v1.OperationsService")
    with served([service], around=[its.served]) as wire:
        channel = HostChannel(wire.address, "here", tracer=its.tracing)
        yield channel
        channel.close()


def test_what_another_process_refuses_is_the_same_error(
    its: Traced, host_channel: HostChannel
) -> None:
    request = pb.GetOperationRequest(operation_id="x")
    with pytest.raises(NotFoundError):
        host_channel.call(OperationsServiceStub, "GetOperation", request, 5)
    with pytest.raises(NotFoundError):
        host_channel.begin(OperationsServiceStub, "GetOperation", request, 5).result()
    its.tracing._provider.force_flush()
    assert [GET] * 4 == [span.name for span in its.exporter.get_finished_spans()]


def test_a_closed_channel_is_the_same_error(host_channel: HostChannel) -> None:
    host_channel.close()
    request = pb.GetOperationRequest(operation_id="x")
    with pytest.raises(HostUnreachableError):
        host_channel.call(OperationsServiceStub, "GetOperation", request, 5)
    with pytest.raises(HostUnreachableError):
        host_channel.begin(OperationsServiceStub, "GetOperation", request, 5).result()
