"""A collector of traces: what OpenTelemetry's exporters send over OTLP, kept."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    """One span as it arrived."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the first of a trace."""
    code: int | None
    """The status code of a call."""
    is_error: bool


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps all spans it is sent."""

    def __init__(self) -> None:
        self.spans: list[CollectedSpan] = []
        self.endpoint = ""
        """Where OTEL_EXPORTER_OTLP_ENDPOINT has to point."""

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # OTLP's name
        """Take in a batch of spans."""
        for resource_spans in request.resource_spans:
            attributes = {a.key: a.value for a in resource_spans.resource.attributes}
            service = attributes["service.name"].string_value
            for scope_spans in resource_spans.scope_spans:
                self.spans.extend(_span(service, span) for span in scope_spans.spans)
        return pb.ExportTraceServiceResponse()


def _span(service: str, span: Any) -> CollectedSpan:
    codes = [a.value.int_value for a in span.attributes if a.key == "rpc.grpc.status_code"]
    return CollectedSpan(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        codes[0] if codes else None,
        span.status.code == 2,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect on a free port until the end of the block."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]  # generated
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()
