"""Which processes a call has passed, so that no call goes in circles.

Every call that one ktrdr process makes to another carries the instance ids it
came through. A process that finds its own among them refuses the call.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import grpc

from shared.rpc.errors import FailedPreconditionError, InvalidArgumentError
from shared.rpc.interceptors import Behaviour, Handler, MethodInterceptor, rebuilt

VIA_KEY = "ktrdr-via"
MAX_HOPS = 16
MAX_ID = 64

_ID = rf"[0-9A-Za-z._-]{{1,{MAX_ID}}}"
_WAY = re.compile(rf"{_ID}(?: *, *{_ID}){{0,{MAX_HOPS - 1}}}")
"""Only what may be sent on: gRPC fails a call whose metadata holds other characters."""

_passed: ContextVar[tuple[str, ...]] = ContextVar("passed", default=())
"""The ids that the call being served came through."""
_END = object()
"""Ends a stream's answers."""


class ProxyLoopError(FailedPreconditionError):
    """The call has come back to a process it passed."""

    reason = "PROXY_LOOP"

    def __init__(self, instance: str) -> None:
        super().__init__(
            "The address configured as a host leads back to this process (instance "
            f"{instance}). Set TRAINING_HOST_SERVICE_URL or IB_HOST_SERVICE_URL, whichever it was, "
            "to the address of that host.",
            metadata={"instance": instance},
        )


class ViaInterceptor(MethodInterceptor):
    """Refuses calls that have passed this instance; remembers the others' way.

    Stands inside ErrorInterceptor, which maps what it raises.
    """

    def __init__(self, instance: str) -> None:
        super().__init__()
        self._instance = instance

    def wrap(self, method: str, handler: Handler) -> Handler:  # noqa: ARG002  # all alike
        """Look at the way of each call before its behaviour."""
        around = self._stream if handler.response_streaming else self._unary
        return rebuilt(handler, around)

    def _unary(self, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        def aware(request: Any, context: grpc.ServicerContext, *rest: Any) -> Any:
            passed = self._way_of(context)
            if not passed:
                return behaviour(request, context, *rest)
            token = _passed.set(passed)
            try:
                return behaviour(request, context, *rest)
            finally:
                _passed.reset(token)

        return aware

    def _stream(self, behaviour: Behaviour) -> Behaviour:
        if getattr(behaviour, "experimental_non_blocking", False):
            return self._unary(behaviour)  # answers through a callback, returns at once

        @functools.wraps(behaviour)
        def aware(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            passed = self._way_of(context)
            if passed:
                yield from _stepwise(behaviour, request, context, passed)
            else:
                yield from behaviour(request, context)

        return aware

    def _way_of(self, context: grpc.ServicerContext) -> tuple[str, ...]:
        """The ids a call came through. Raises ProxyLoopError, InvalidArgumentError."""
        # On the path of every call, nearly all of which come straight from a client.
        for key, _ in context.invocation_metadata():
            if key == VIA_KEY:
                break
        else:
            return ()
        passed = _read(context)
        if self._instance in passed:
            raise ProxyLoopError(self._instance)
        return passed


def passed() -> tuple[str, ...]:
    """The ids of the instances that the call being served came through, the last one last."""
    return _passed.get()


def starter() -> str:
    """The instance that makes the call being served; empty if that is a client."""
    return "".join(_passed.get()[-1:])


def forwarded(instance: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call made on behalf of the one being served, by this instance."""
    return _metadata((*_passed.get(), instance))


@functools.lru_cache(maxsize=64)  # the same few ways all the time
def _metadata(way: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return ((VIA_KEY, ",".join(way)),)


def _read(context: grpc.ServicerContext) -> tuple[str, ...]:
    # A key may come several times, and whatever lies between may join them with commas.
    return _parsed(
        ",".join([str(value) for key, value in context.invocation_metadata() if key == VIA_KEY])
    )


@functools.lru_cache(maxsize=64)  # the same few processes call all the time
def _parsed(way: str) -> tuple[str, ...]:
    if not _WAY.fullmatch(way):
        raise InvalidArgumentError.of(
            VIA_KEY,
            f"must be at most {MAX_HOPS} instance ids, separated by commas, each of at most "
            f"{MAX_ID} letters, digits, '.', '_' or '-'; clients leave it out",
        )
    return tuple(part.strip() for part in way.split(","))


def _stepwise(
    behaviour: Behaviour, request: Any, context: grpc.ServicerContext, passed: tuple[str, ...]
) -> Iterator[Any]:
    """Take each answer with the way known, and leave the thread without it in between."""
    own = copy_context()
    own.run(_passed.set, passed)
    answers = iter(own.run(behaviour, request, context))
    try:
        while (answer := own.run(next, answers, _END)) is not _END:
            yield answer
    finally:
        close = getattr(answers, "close", None)
        if close is not None:
            own.run(close)
