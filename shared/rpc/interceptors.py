"""The interceptor that turns errors into statuses: one place, for every method.

It works in the wrapped behaviour, never in `intercept_service`: a raise there
becomes UNKNOWN, and it runs under the server's own lock.
"""

from __future__ import annotations

import functools
import logging
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from shared.rpc.errors import Code, FieldViolation, InvalidArgumentError, KtrdrError
from shared.rpc.status import MAX_MESSAGE, grpc_code, shorten, trailers_of

logger = logging.getLogger("ktrdr.rpc")

Behaviour = Callable[..., Any]
Deserializer = Callable[[bytes], Any] | None
"""None hands the bytes on as they are."""
Handler = Any
"""A grpc.RpcMethodHandler; the type stubs leave out its fields."""


class UnexpectedError(KtrdrError):
    """A defect of ours; the log has the trace under the incident's name."""

    def __init__(self, incident: str) -> None:
        super().__init__(
            f"The server met a defect of its own (incident {incident}); its log has more.",
            metadata={"incident": incident},
        )


class UnimplementedError(KtrdrError):
    """The contract has the method, this server does not."""

    code = Code.UNIMPLEMENTED
    reason = "METHOD_NOT_IMPLEMENTED"

    def __init__(self, method: str) -> None:
        super().__init__(f"This server does not implement {method}.", metadata={"method": method})


class MethodInterceptor(grpc.ServerInterceptor):
    """Wraps each method's behaviour once; subclasses say how."""

    def __init__(self) -> None:
        # Filled under the server's lock, one entry per served method.
        self._wrapped: dict[str, Handler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the wrapped handler; None, which is UNIMPLEMENTED, stays None."""
        method: str = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self.wrap(method, handler)
        return wrapped

    @abstractmethod
    def wrap(self, method: str, handler: Handler) -> Handler:
        """Return a handler with another behaviour around the given one."""


class Chain(MethodInterceptor):
    """Several interceptors as one, the first outermost.

    gRPC asks each interceptor anew at every call; this one is asked once per method.
    """

    def __init__(self, *interceptors: MethodInterceptor) -> None:
        super().__init__()
        self._interceptors = interceptors

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Wrap by the innermost first."""
        for interceptor in reversed(self._interceptors):
            handler = interceptor.wrap(method, handler)
        return handler


class ErrorInterceptor(MethodInterceptor):
    """Maps KtrdrError and malformed requests to statuses with google.rpc details."""

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Guard the behaviour and the deserializer."""
        around = _guard_stream if handler.response_streaming else _guard_unary
        return rebuilt(handler, lambda inner: around(method, inner), _tolerant)


def rebuilt(
    handler: Handler,
    around: Callable[[Behaviour], Behaviour],
    deserializer: Callable[[Deserializer], Deserializer] = lambda inner: inner,
) -> Handler:
    """Build a handler like `handler` with wrapped behaviour and deserializer."""
    kind = (
        ("stream" if handler.request_streaming else "unary")
        + "_"
        + ("stream" if handler.response_streaming else "unary")
    )
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    built: Handler = make(
        around(getattr(handler, kind)),
        deserializer(handler.request_deserializer),
        handler.response_serializer,
    )
    return built


class _Malformed:
    """Stands in for a request whose bytes are not the message expected."""


def _tolerant(deserialize: Deserializer) -> Deserializer:
    if deserialize is None:
        return None

    def tolerant(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _Malformed()

    return tolerant


def _checked(request: Any) -> Any:
    """Raise InvalidArgumentError for a malformed request, alone or in a stream."""
    if isinstance(request, _Malformed):
        raise InvalidArgumentError(
            [FieldViolation("", "the request's bytes are not the message this method takes")]
        )
    if isinstance(request, Iterator):
        return map(_checked, request)
    return request


def _guard_unary(method: str, behaviour: Behaviour) -> Behaviour:
    @functools.wraps(behaviour)
    def guarded(request: Any, context: grpc.ServicerContext, *rest: Any) -> Any:
        try:
            return behaviour(_checked(request), context, *rest)
        except Exception as error:  # noqa: BLE001  # the one place where errors become statuses
            _abort(method, context, error)

    return guarded


def _guard_stream(method: str, behaviour: Behaviour) -> Behaviour:
    if getattr(behaviour, "experimental_non_blocking", False):
        return _guard_unary(method, behaviour)  # answers through a callback, returns at once

    @functools.wraps(behaviour)
    def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from behaviour(_checked(request), context)
        except Exception as error:  # noqa: BLE001  # as above
            _abort(method, context, error)

    return guarded


def _abort(method: str, context: grpc.ServicerContext, error: Exception) -> None:
    """End the call with the error's status."""
    if not isinstance(error, KtrdrError):
        if _is_over(context, error):
            raise error  # gRPC knows what to do with it
        error = _named(method, context, error)
    context.set_trailing_metadata(trailers_of(error))
    context.abort(grpc_code(error.code), shorten(error.message, MAX_MESSAGE))


def _named(method: str, context: grpc.ServicerContext, error: Exception) -> KtrdrError:
    """The error of an exception that is none of ours; a defect goes to the log."""
    # Generated servicers set the code of a method they leave out before they raise.
    code = context.code()  # type: ignore[attr-defined]  # grpc has it, its type stubs do not
    if isinstance(error, NotImplementedError) and code is grpc.StatusCode.UNIMPLEMENTED:
        return UnimplementedError(method)
    incident = uuid.uuid4().hex[:12]
    logger.error("Incident %s in %s", incident, method, exc_info=error)
    return UnexpectedError(incident)


def _is_over(context: grpc.ServicerContext, error: Exception) -> bool:
    """Whether the exception only says that the call has ended otherwise.

    `context.abort`, which servicers of others use, raises a bare Exception; the
    requests of a client that has left raise grpc.RpcError.
    """
    code = context.code()  # type: ignore[attr-defined]  # grpc has it, its type stubs do not
    aborted = type(error) is Exception and not error.args and code is not None
    return aborted or (isinstance(error, grpc.RpcError) and not context.is_active())
