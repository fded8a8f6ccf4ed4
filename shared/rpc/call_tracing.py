"""Spans around calls, served and made, for whoever traces them: a port and its interceptors.

Nothing here is in the chain of a server, or on a channel, that nobody traces.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import Any, Protocol

import grpc

from shared.rpc.call_monitor import failure_code, outcome_code
from shared.rpc.door import refusable
from shared.rpc.interceptors import (
    Behaviour,
    Handler,
    MethodInterceptor,
    name_for_counting,
    rebuilt,
)

TRACEPARENT = "traceparent"
"""The key of W3C Trace Context; all that is taken from a caller and given to who is called."""
_END = object()
"""Ends a stream's answers."""

Metadata = tuple[tuple[str, str], ...]
End = Callable[[str], None]
"""Ends a span with the name of a status code."""


class CallTracer(Protocol):
    """Makes spans; called from any thread, must not raise or wait."""

    def serving(self, method: str, traceparent: str, /) -> AbstractContextManager[End]:
        """Be in the span of a call that is served, in the trace it came with, if any."""
        ...

    def calling(self, method: str, /) -> tuple[Mapping[str, str], End]:
        """Begin the span of a call that is made; what goes with the call, and its end."""
        ...


class TracingInterceptor(MethodInterceptor):
    """Serves each call in a span; stands outside all others, as the one that counts."""

    def __init__(self, tracer: CallTracer) -> None:
        super().__init__()
        self._tracer = tracer

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Put the behaviour's calls in spans."""
        around = self._stream if handler.response_streaming else self._unary
        return rebuilt(handler, functools.partial(around, method))

    def _unary(self, method: str, behaviour: Behaviour) -> Behaviour:
        name = name_for_counting(method, behaviour)

        @functools.wraps(behaviour)
        def traced(request: Any, context: grpc.ServicerContext, *rest: Any) -> Any:
            with self._tracer.serving(name, _traceparent(context)) as end:
                try:
                    answer = behaviour(request, context, *rest)
                except BaseException:
                    end(failure_code(context))
                    raise
                end(outcome_code(context))
                return answer

        return refusable(traced, None)  # a call that is refused has a span as well

    def _stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        if getattr(behaviour, "experimental_non_blocking", False):
            return self._unary(method, behaviour)  # answers through a callback, returns at once

        name = name_for_counting(method, behaviour)

        def answers(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._tracer.serving(name, _traceparent(context)) as end:
                try:
                    yield from behaviour(request, context)
                except BaseException:
                    end(failure_code(context))
                    raise
                end(outcome_code(context))

        @functools.wraps(behaviour)
        def traced(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            # In a context of its own: between two answers the thread is not in the span.
            own = copy_context()
            inner = answers(request, context)
            try:
                while (answer := own.run(next, inner, _END)) is not _END:
                    yield answer
            finally:
                own.run(inner.close)  # type: ignore[attr-defined]  # a generator

        return refusable(traced, None)  # a call that is refused has a span as well


def _traceparent(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == TRACEPARENT:
            return str(value)
    return ""


class TracedMethod:
    """A method of a stub, each call of which is made in a span that goes on at the other end.

    gRPC's own interceptors for clients build the method anew for each call, and
    the process crashes if that meets a channel that is being closed.
    """

    def __init__(self, method: Any, tracer: CallTracer) -> None:
        self._method = method
        self._tracer = tracer
        path = method._method  # noqa: SLF001  # nothing else tells which one it is
        self._name = (path.decode() if isinstance(path, bytes) else path).removeprefix("/")

    def __call__(self, request: Any, *, timeout: float, metadata: Metadata) -> Any:
        """Call it; return the answer, or the call if it is a stream."""
        return self._made(self._method, request, timeout, metadata)

    def future(self, request: Any, *, timeout: float, metadata: Metadata) -> Any:
        """Send a call."""
        return self._made(self._method.future, request, timeout, metadata)

    def _made(
        self, make: Callable[..., Any], request: Any, timeout: float, metadata: Metadata
    ) -> Any:
        headers, end = self._tracer.calling(self._name)
        try:
            made = make(request, timeout=timeout, metadata=(*metadata, *headers.items()))
        except grpc.RpcError as error:
            end(error.code().name)
            raise
        except BaseException:
            end("UNKNOWN")  # it was not even sent
            raise
        if isinstance(made, grpc.Future):
            made.add_done_callback(lambda ended: end(ended.code().name))  # type: ignore[attr-defined]  # it is a call
        else:
            end("OK")
        return made


def traced(method: Any, tracer: CallTracer | None) -> Any:
    """A method of a stub, in spans if there is somebody who traces."""
    return method if tracer is None else TracedMethod(method, tracer)
