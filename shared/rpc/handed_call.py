"""A call as gRPC hands it to a pool: its message received, or itself answered, without a thread.

gRPC hands a call to a thread once its headers are there. The thread asks for the
message, sleeps until the thread that takes calls in has got it, and is woken. Every
call pays for that with three switches between threads, a tenth of what an echo takes,
and a client that sends no message holds a thread. Here the thread that takes calls in
asks for the message itself, and one thread is woken, once, with the message in hand.
None is if the answer is at hand too, in memory: then that thread gives it.

gRPC offers no way to that. What is used of its inside is looked at when this module is
loaded; unless it is what is known here, calls are served gRPC's own way, which is slower
and otherwise alike.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

Metadata = Sequence[tuple[str, str | bytes]]
MayReceive = Callable[[Metadata], bool]
"""Says of a call's metadata whether its message may be received before its behaviour is entered."""

Answer = Callable[[], Any]
Prepare = Callable[[Any], Answer | None]
"""Given a message, returns what makes the answer in microseconds, without waiting for
anything; None if that cannot be. What it raises counts as None: the behaviour will too."""

B = TypeVar("B", bound=Callable[..., Any])

_CALL = ("rpc_event", "state", "behavior", "argument_thunk", "request_deserializer")
"""What gRPC's functions that serve a call take first, in this order."""
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "_unary_response_in_pool": (*_CALL, "response_serializer"),
    "_stream_response_in_pool": (*_CALL, "response_serializer"),
    "_receive_message": ("state", "call", "request_deserializer"),
}


class Call(Protocol):
    """A call of gRPC's core."""

    def cancel(self) -> object:
        """End it."""


class Received(Iterator[Any]):
    """The messages of a call that sends one, which has come."""

    def __init__(self, message: Any) -> None:
        self._left = [message]
        self._look: Callable[[Any], Any] = lambda message: message
        self.answer: Answer | None = None
        """Makes the answer, if that was prepared: then nobody needs the message."""

    def __next__(self) -> Any:
        if not self._left:
            raise StopIteration
        return self._look(self._left.pop())

    def through(self, look: Callable[[Any], Any]) -> Received:
        """The same, whose message is what `look` makes of it."""
        self._look = look
        return self


def _insides() -> Any:
    """What gRPC calls `_server`; None if it is not as it is known here."""
    try:
        server: Any = importlib.import_module("grpc._server")
        known = all(
            parameters == tuple(inspect.signature(getattr(server, name)).parameters)
            for name, parameters in _KNOWN.items()
        )
        state = server._RPCState()  # noqa: SLF001  # see above
        known = known and state.request is None and isinstance(state.due, set)
        operation = server.cygrpc.ReceiveMessageOperation
        token = server._RECEIVE_MESSAGE_TOKEN  # noqa: SLF001
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
    return server if known and callable(operation) and isinstance(token, str) else None


_server = _insides()
_SERVING: tuple[Any, ...] = (
    () if _server is None else (_server._unary_response_in_pool, _server._stream_response_in_pool)  # noqa: SLF001
)


def receivable(behaviour: B, may_receive: MayReceive = lambda _: True) -> B:
    """Say of a behaviour that takes an iterator of one message that this may be there already."""
    behaviour.may_receive = may_receive  # type: ignore[attr-defined]  # wrappers copy it
    return behaviour


def answerable(behaviour: B, prepare: Prepare | None) -> B:
    """Say of a receivable behaviour that some of its calls can be answered at once."""
    behaviour.prepare = prepare  # type: ignore[attr-defined]  # wrappers copy it
    return behaviour


def prepare_of(behaviour: Callable[..., Any]) -> Prepare | None:
    """What prepares the answers that can be given at once."""
    prepare: Prepare | None = getattr(behaviour, "prepare", None)
    return prepare


def may_receive_of(behaviour: Callable[..., Any]) -> MayReceive | None:
    """What says of a behaviour's calls whether they may be received; None: none may."""
    may_receive: MayReceive | None = getattr(behaviour, "may_receive", None)
    return may_receive


def may_be_received(behaviour: Callable[..., Any], metadata: Metadata) -> bool:
    """Whether the message of a call may be received before its behaviour is entered."""
    may_receive = may_receive_of(behaviour)
    return may_receive is not None and may_receive(metadata)


def is_receivable(handed: Sequence[Any]) -> bool:
    """Whether what gRPC has handed to a pool is a call that `receive` may be used for."""
    if not handed or handed[0] not in _SERVING:
        return False
    _, event, _, behaviour, *_ = handed
    return may_be_received(behaviour, event.invocation_metadata)


def call_in(handed: Sequence[Any]) -> Call:
    """The call in what gRPC has handed to a pool."""
    call: Call = handed[1].call
    return call


def receive(handed: Sequence[Any], then: Callable[[Sequence[Any], bool], None]) -> None:
    """Ask for the message of a call that is receivable; return at once.

    `then` gets what is to be served in its place, on the thread that takes calls in:
    once the message has come, the client has ended without one, or the call is over.
    It is also told whether the answer is prepared, so that serving it takes no time.
    """
    serve, event, state, behaviour, messages, deserialize, serialize = handed
    note = _server._receive_message(state, event.call, deserialize)  # noqa: SLF001

    def received(what: Any) -> Any:
        noted = note(what)
        first, state.request = state.request, None
        come, prepared = messages, False
        if first is not None:
            ours = Received(first)
            come, prepared = lambda: ours, _is_prepared(behaviour, first, ours)
        then((serve, event, state, behaviour, come, deserialize, serialize), prepared)
        return noted

    with state.condition:
        operations = (_server.cygrpc.ReceiveMessageOperation(0),)
        event.call.start_server_batch(operations, received)
        state.due.add(_server._RECEIVE_MESSAGE_TOKEN)  # noqa: SLF001


def _is_prepared(behaviour: Callable[..., Any], message: Any, received: Received) -> bool:
    prepare = prepare_of(behaviour)
    if prepare is None:
        return False
    try:
        received.answer = prepare(message)
    except Exception:  # noqa: BLE001  # this thread takes in all other calls too
        return False
    return received.answer is not None
