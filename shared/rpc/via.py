"""Which processes a call has passed, so that no call goes in circles.

Every call that one ktrdr process makes to another carries the instance ids it
came through. A process that finds its own among them refuses the call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import grpc

from shared.rpc.errors import FailedPreconditionError, InvalidArgumentError
from shared.rpc.interceptors import Behaviour, Handler, MethodInterceptor, rebuilt

VIA_KEY = "ktrdr-via"
MAX_HOPS = 16
MAX_LENGTH = 1024

_passed: ContextVar[str] = ContextVar("passed", default="")
"""The ids that the call being served came through, comma separated."""


class ProxyLoopError(FailedPreconditionError):
    """The call has come back to a process it passed."""

    reason = "PROXY_LOOP"

    def __init__(self, instance: str) -> None:
        super().__init__(
            f"This call has passed this process (instance {instance}) before: an address that "
            "should be another process's leads back here. Set TRAINING_HOST_SERVICE_URL to the "
            "training host's.",
            metadata={"instance": instance},
        )


class ViaInterceptor(MethodInterceptor):
    """Refuses calls that have passed this instance; remembers the others' way."""

    def __init__(self, instance: str) -> None:
        super().__init__()
        self._instance = instance

    def wrap(self, method: str, handler: Handler) -> Handler:  # noqa: ARG002  # all alike
        """Look at the way of each call before its behaviour."""
        around = self._stream if handler.response_streaming else self._unary
        return rebuilt(handler, around)

    def _unary(self, behaviour: Behaviour) -> Behaviour:
        if getattr(behaviour, "experimental_non_blocking", False):
            return behaviour

        @functools.wraps(behaviour)
        def known(request: Any, context: grpc.ServicerContext) -> Any:
            passed = _via(context)
            if not passed:
                return behaviour(request, context)
            return self._within(passed, lambda: behaviour(request, context))

        return known

    def _stream(self, behaviour: Behaviour) -> Behaviour:
        if getattr(behaviour, "experimental_non_blocking", False):
            return behaviour  # the health service's, which asks nobody

        @functools.wraps(behaviour)
        def known(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self._check(_via(context))
            yield from behaviour(request, context)

        return known

    def _within(self, passed: str, behaviour: Callable[[], Any]) -> Any:
        self._check(passed)
        token = _passed.set(passed)
        try:
            return behaviour()
        finally:
            _passed.reset(token)

    def _check(self, passed: str) -> None:
        ids = passed.split(",")
        if len(ids) > MAX_HOPS or len(passed) > MAX_LENGTH:
            raise InvalidArgumentError.of(VIA_KEY, f"names more than {MAX_HOPS} processes")
        if self._instance in ids:
            raise ProxyLoopError(self._instance)


def forwarded(instance: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call made on behalf of the one being served, by this instance."""
    passed = _passed.get()
    return ((VIA_KEY, f"{passed},{instance}" if passed else instance),)


def _via(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == VIA_KEY:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""
