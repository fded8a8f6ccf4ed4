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
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from shared.rpc.errors import (
    Code,
    FieldViolation,
    InvalidArgumentError,
    KtrdrError,
    RequestTooLargeError,
    cut_off,
)
from shared.rpc.handed_call import Received, answerable, prepare_of
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

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the wrapped handler, for a method nobody has one that says so."""
        handler = super().intercept_service(continuation, handler_call_details)
        if handler is None:  # not remembered: there is no end of such names
            handler = self.wrap(handler_call_details.method, _UNKNOWN)
        return handler

    def handler_of(self, method: str) -> Handler | None:
        """The wrapped handler of a method that has been called before; None of others."""
        return self._wrapped.get(method)

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Wrap by the innermost first."""
        for interceptor in reversed(self._interceptors):
            handler = interceptor.wrap(method, handler)
        return handler


def _implement_nothing(_request: Any, context: grpc.ServicerContext) -> Any:
    context.set_code(grpc.StatusCode.UNIMPLEMENTED)  # as generated servicers do
    raise NotImplementedError


_implement_nothing.implements_nothing = True  # type: ignore[attr-defined]  # wrappers copy it


def name_for_counting(method: str, behaviour: Behaviour) -> str:
    """The name of a served method as `package.Service/Method`; `unknown` for all others.

    There is no end of names that clients may make up.
    """
    if getattr(behaviour, "implements_nothing", False):
        return "unknown"
    return method.removeprefix("/")


_UNKNOWN: Handler = grpc.stream_unary_rpc_method_handler(_implement_nothing)
"""Reads no message: what it would be is not known."""


class ErrorInterceptor(MethodInterceptor):
    """Maps KtrdrError and requests that cannot be read to statuses with google.rpc details."""

    def __init__(self, request_bytes: int) -> None:
        """`request_bytes` is the most a request may have."""
        super().__init__()
        self._request_bytes = request_bytes

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Guard the behaviour and the deserializer."""
        around = _guard_stream if handler.response_streaming else _guard_unary
        tolerant = functools.partial(_tolerant, self._request_bytes)
        return rebuilt(handler, lambda inner: around(method, inner), tolerant)


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


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands in for a request that cannot be read; `error` says why."""

    error: KtrdrError


def _tolerant(request_bytes: int, deserialize: Deserializer) -> Deserializer:
    def tolerant(data: bytes) -> Any:
        if len(data) > request_bytes:
            return _Unreadable(_too_large(len(data), request_bytes))
        try:
            return data if deserialize is None else deserialize(data)
        except DecodeError:
            text = "the request's bytes are not the message this method takes"
            return _Unreadable(InvalidArgumentError([FieldViolation("", text)]))

    return tolerant


def _too_large(size: int, limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"The request has {size} bytes; at most {limit} are taken. Send less, or have "
        "KTRDR_MAX_REQUEST_BYTES raised.",
        metadata={"size": str(size), "limit": str(limit)},
    )


def _checked(request: Any) -> Any:
    """Raise the error of a request that cannot be read, alone or in a stream."""
    if isinstance(request, _Unreadable):
        raise request.error
    if isinstance(request, Received):
        return request.through(_checked)
    if isinstance(request, Iterator):
        return map(_checked, request)
    return request


def _guard_unary(method: str, behaviour: Behaviour) -> Behaviour:
    prepare = prepare_of(behaviour)

    @functools.wraps(behaviour)
    def guarded(request: Any, context: grpc.ServicerContext, *rest: Any) -> Any:
        try:
            return behaviour(_checked(request), context, *rest)
        except Exception as error:  # noqa: BLE001  # the one place where errors become statuses
            _abort(method, context, error)

    if prepare is None:
        return guarded
    return answerable(guarded, lambda request: prepare(_checked(request)))


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
    cut_off(error)
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
