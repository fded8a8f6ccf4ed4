"""Traces with OpenTelemetry: a span per call and per command, one trace through all processes.

Where spans go, how many are kept and what else is said of a process, the standard
variables OTEL_* tell. Imported only by a process whose traces somebody wants.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.rpc.call_tracing import TRACEPARENT, End
from shared.rpc.errors import Code

_OURS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Codes for which a server's span is an error; the others are its client's affair."""


class Tracing:
    """A CallTracer over one provider of OpenTelemetry, from now until `close`."""

    def __init__(self, service: str, exporter: SpanExporter) -> None:
        """`service` is what OTEL_SERVICE_NAME says otherwise."""
        name = os.environ.get("OTEL_SERVICE_NAME") or service
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ktrdr")
        self._propagator = TraceContextTextMapPropagator()
        self._command: Context | None = None
        """What calls of threads without a span of their own belong to."""

    @contextmanager
    def serving(self, method: str, traceparent: str, /) -> Iterator[End]:
        """Be in the span of a served call."""
        parent = self._propagator.extract({TRACEPARENT: traceparent}, Context())
        span = self._begin(method, SpanKind.SERVER, parent)
        token = contexts.attach(trace.set_span_in_context(span, parent))
        try:
            yield lambda code: _end(span, code, is_error=code in _OURS)
        finally:
            contexts.detach(token)

    def calling(self, method: str, /) -> tuple[Mapping[str, str], End]:
        """Begin the span of a call that is made."""
        current: Context | None = contexts.get_current()
        if not trace.get_current_span(current).get_span_context().is_valid:
            current = self._command
        span = self._begin(method, SpanKind.CLIENT, current)
        headers: dict[str, str] = {}
        self._propagator.inject(headers, trace.set_span_in_context(span))
        sent = {key: text for key, text in headers.items() if key == TRACEPARENT}
        return sent, lambda code: _end(span, code, is_error=code != "OK")

    @contextmanager
    def command(self, name: str) -> Iterator[None]:
        """Be in the span of a command, and hand all spans over at its end."""
        try:
            with self._tracer.start_as_current_span(
                name, Context(), record_exception=False, set_status_on_exception=False
            ):
                self._command = contexts.get_current()
                yield
        finally:
            self.close()

    def close(self) -> None:
        """Hand over what is left, and join the thread that hands spans over."""
        self._provider.shutdown()

    def _begin(self, method: str, kind: SpanKind, parent: Context | None) -> Span:
        service, _, name = method.partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        return self._tracer.start_span(method, parent, kind, attributes)


def _end(span: Span, code: str, *, is_error: bool) -> None:
    span.set_attribute("rpc.grpc.status_code", 0 if code == "OK" else int(Code[code]))
    if is_error:
        span.set_status(Status(StatusCode.ERROR, code))
    span.end()


def exporter_of(name: str) -> SpanExporter:
    """The exporter that OTEL_TRACES_EXPORTER names: otlp, over gRPC, or console: standard error.

    Raises ImportError if it is not installed.
    """
    if name == "console":
        return ConsoleSpanExporter(out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
