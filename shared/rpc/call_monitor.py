"""What the server counts for whoever monitors its process: calls, how they ended, who was shed.

Nothing here is in the chain of a server that nobody monitors.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from time import perf_counter
from typing import Any, Protocol

import grpc

from shared.rpc.door import note_of, refusable
from shared.rpc.errors import KtrdrError, ResourceExhaustedError
from shared.rpc.interceptors import (
    Behaviour,
    Handler,
    MethodInterceptor,
    name_for_counting,
    rebuilt,
)
from shared.rpc.status import grpc_code


class CallMonitor(Protocol):
    """Takes note of served calls; called from any thread, must not raise or wait."""

    def called(self, method: str, code: str, seconds: float, /) -> None:
        """A call of a served method, `package.Service/Method`, ended with a status code."""
        ...

    def shed(self, class_: str, /) -> None:
        """A call was turned away: its class has no place left, or too many wait to be taken in."""
        ...


class CallMonitorInterceptor(MethodInterceptor):
    """Notes each call; stands outside all others, so that it sees the status they gave.

    Measured is the time in which a thread serves the call, not its way and not
    the wait for a thread.
    """

    def __init__(self, monitor: CallMonitor) -> None:
        super().__init__()
        self._monitor = monitor

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Measure the behaviour's calls."""
        around = self._stream if handler.response_streaming else self._unary
        return rebuilt(handler, functools.partial(around, method))

    def _unary(self, method: str, behaviour: Behaviour) -> Behaviour:
        called = self._monitor.called
        name = name_for_counting(method, behaviour)

        @functools.wraps(behaviour)
        def noted(request: Any, context: grpc.ServicerContext, *rest: Any) -> Any:
            began_at = perf_counter()
            try:
                answer = behaviour(request, context, *rest)
            except BaseException as error:
                called(name, failure_code(context), perf_counter() - began_at)
                self._note_shed(error)
                raise
            called(name, outcome_code(context), perf_counter() - began_at)
            return answer

        return self._noting_refusals(name, noted)

    def _stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        if getattr(behaviour, "experimental_non_blocking", False):
            return self._unary(method, behaviour)  # answers through a callback, returns at once
        called = self._monitor.called
        name = name_for_counting(method, behaviour)

        @functools.wraps(behaviour)
        def noted(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            began_at = perf_counter()
            try:
                yield from behaviour(request, context)
            except BaseException as error:
                called(name, failure_code(context), perf_counter() - began_at)
                self._note_shed(error)
                raise
            called(name, outcome_code(context), perf_counter() - began_at)

        return self._noting_refusals(name, noted)

    def _noting_refusals(self, name: str, noted: Behaviour) -> Behaviour:
        """Have calls noted as well that are refused without their behaviour."""
        inner = note_of(noted)
        if inner is None:
            return noted

        def note(error: KtrdrError) -> None:
            inner(error)
            self._monitor.called(name, grpc_code(error.code).name, 0.0)
            self._count_shed(error)

        return refusable(noted, note)

    def _note_shed(self, error: BaseException) -> None:
        """Look at what has become a status: `abort` raises in the course of handling it."""
        self._count_shed(error.__context__)

    def _count_shed(self, error: BaseException | None) -> None:
        if isinstance(error, ResourceExhaustedError) and error.reason == "TOO_MANY_CALLS":
            self._monitor.shed(error.metadata["class"])


def failure_code(context: grpc.ServicerContext) -> str:
    """The code of a call whose behaviour raised."""
    code = context.code()  # type: ignore[attr-defined]  # grpc has it, its type stubs do not
    return _ended_early(context) if code is None else str(code.name)


def outcome_code(context: grpc.ServicerContext) -> str:
    """The code of a call that was answered, if there still is a client to take the answer."""
    return "OK" if context.is_active() else _ended_early(context)


def _ended_early(context: grpc.ServicerContext) -> str:
    """Why a call is over that nobody here has ended."""
    if context.is_active():
        return "UNKNOWN"
    return "DEADLINE_EXCEEDED" if context.time_remaining() == 0 else "CANCELLED"
