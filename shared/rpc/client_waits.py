"""Calls that wait for their client, and how they make room for others.

A client may open a call and never send its message, or never read the answer.
gRPC then waits for as long as the client likes, and often a thread with it. So a
behaviour can be entered before its message has come; a call that waits for one is
known here, and so is a stream while its client reads. Such a call keeps its
place for as long as nobody wants it, or for the patience of its pool.

Nothing runs for this: the call that wants the place looks.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

import grpc

from shared.rpc.errors import FieldViolation, InvalidArgumentError
from shared.rpc.handed_call import Call, Prepare, Received, answerable, receivable
from shared.rpc.interceptors import Behaviour, Handler, MethodInterceptor

_GRACE = 0.2
"""Seconds that what has arrived may take to be handed to its thread."""
_here = threading.local()
"""`_here.arrived` is when the call on this thread has come, until it first waits."""


class ClientWaits:
    """The calls of one pool that wait for their client, and since when."""

    def __init__(self, patience: float) -> None:
        """`patience` in seconds."""
        self._patience = patience
        self._lock = threading.Lock()  # guards _since
        self._since: dict[Call, float] = {}

    def note_arrival(self, at: float) -> None:
        """Say when the call that this thread is about to serve has come: it may have queued."""
        _here.arrived = at

    @contextmanager
    def waiting(self, call: Call) -> Iterator[None]:
        """Say that the call waits for its client for as long as the block runs."""
        self.begin(call)
        try:
            yield
        finally:
            self.end(call)

    def begin(self, call: Call) -> None:
        """Say that the call waits for its client from now on."""
        now = monotonic()
        arrived = vars(_here).pop("arrived", now)
        with self._lock:
            self._since[call] = max(arrived, now - self._patience + _GRACE)

    def end(self, call: Call) -> None:
        """Say that it no longer does."""
        with self._lock:
            self._since.pop(call, None)

    def can_give_up_one(self) -> bool:
        """Whether a call has waited for too long."""
        with self._lock:
            return self._overdue() is not None

    def give_up_one(self) -> bool:
        """Cancel the call that has waited longest; False if none has for too long."""
        with self._lock:
            call = self._overdue()
            if call is None:
                return False
            del self._since[call]
        call.cancel()
        return True

    def _overdue(self) -> Call | None:
        """The call that has waited longest, if it is too long; under the lock."""
        # Not the first that began to wait: one that queued counts from when it came.
        call = min(self._since, key=self._since.__getitem__, default=None)
        if call is None or monotonic() - self._since[call] < self._patience:
            return None
        return call


class ClientWaitInterceptor(MethodInterceptor):
    """Makes behaviours of those that can be entered before the message has come.

    The innermost of a chain: whatever stands around it, such as who may call at
    all, can be settled without waiting for a message.
    """

    def __init__(
        self, waits_of: Callable[[str], ClientWaits], at_once: Mapping[str, Prepare]
    ) -> None:
        """`waits_of` says by full method name where a call is noted while it waits.

        `at_once` has, also by name, what prepares answers that need no wait.
        """
        super().__init__()
        self._waits_of = waits_of
        self._at_once = at_once

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Return a handler that takes a stream of messages, as every handler can."""
        waits = self._waits_of(method)
        response = "stream" if handler.response_streaming else "unary"
        if handler.request_streaming:
            behaviour = _of_many_messages(waits, getattr(handler, f"stream_{response}"))
        else:
            behaviour = _of_one_message(waits, getattr(handler, f"unary_{response}"))
        if handler.response_streaming:
            behaviour = _streaming(waits, behaviour)
        if not handler.request_streaming:  # another may have to say something first
            behaviour = answerable(receivable(behaviour), self._at_once.get(method))
        built: Handler = getattr(grpc, f"stream_{response}_rpc_method_handler")(
            behaviour, handler.request_deserializer, handler.response_serializer
        )
        return built


_END = object()
"""Ends a stream's messages."""


def _of_one_message(waits: ClientWaits, behaviour: Behaviour) -> Behaviour:
    """Take the first message, which is all that the call of a unary method has."""

    @functools.wraps(behaviour)
    def of_one_message(messages: Iterator[Any], context: grpc.ServicerContext, *rest: Any) -> Any:
        if isinstance(messages, Received):
            if messages.answer is not None:
                return messages.answer()
            message = next(messages)
        else:
            with waits.waiting(context):
                message = next(messages, _END)
        if message is _END:
            text = "the call ended without the message that this method takes"
            raise InvalidArgumentError([FieldViolation("", text)])
        return behaviour(message, context, *rest)

    return of_one_message


def _of_many_messages(waits: ClientWaits, behaviour: Behaviour) -> Behaviour:
    def awaited(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        while True:
            with waits.waiting(context):
                message = next(messages, _END)
            if message is _END:
                return
            yield message

    @functools.wraps(behaviour)
    def of_many_messages(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        return behaviour(awaited(messages, context), context)

    return of_many_messages


def _streaming(waits: ClientWaits, behaviour: Behaviour) -> Behaviour:
    """Note the call while its client reads an answer."""
    if getattr(behaviour, "experimental_non_blocking", False):
        return _sending(waits, behaviour)

    @functools.wraps(behaviour)
    def streaming(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        answers = behaviour(messages, context)
        try:
            for answer in answers:
                with waits.waiting(context):
                    yield answer
        finally:
            close = getattr(answers, "close", None)
            if close is not None:
                close()

    return streaming


def _sending(waits: ClientWaits, behaviour: Behaviour) -> Behaviour:
    """A behaviour that sends by itself and returns: all it may wait for is its client."""

    @functools.wraps(behaviour)
    def sending(messages: Iterator[Any], context: grpc.ServicerContext, send: Any) -> None:
        with waits.waiting(context):
            behaviour(messages, context, send)

    return sending
