"""The door of a server: where calls are turned away before gRPC has made anything of them.

To refuse a call the usual way gRPC finds its handler, makes its state, watches for its end
and hands it to a pool; then it is told. That is half of what serving it takes, and of those
who come to twice what a process can bear most are refused: hardly any was served. At the
door a call is refused in one exchange with gRPC's core.

gRPC offers no way to look at a call that early. So the function by which its thread that
takes calls in begins each of them is replaced by one that asks the door first. Servers
without a door are served as before, and so are all if gRPC's inside is not as it is known
here: then calls are refused by way of their behaviour.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from shared.rpc.errors import KtrdrError
from shared.rpc.handed_call import Metadata, may_be_received
from shared.rpc.status import MAX_MESSAGE, grpc_code, shorten, trailers_of

logger = logging.getLogger("ktrdr.rpc")

NoteRefusal = Callable[[KtrdrError], None]
"""Takes note of the error of a call that is refused; it must not raise or wait."""

Refusal = tuple[KtrdrError, Callable[[], None]]
"""The error that a call is told, and what to call once it has been."""

B = TypeVar("B", bound=Callable[..., Any])

_KNOWN = (
    "rpc_event",
    "method_with_handler",
    "interceptor_pipeline",
    "thread_pool",
    "concurrency_exceeded",
)
"""What gRPC's function that begins a call takes."""


class Gate(Protocol):
    """Decides on the calls of a class; asked on the thread that takes calls in."""

    def is_shut(self) -> bool:
        """Whether the next call is to be turned away."""
        ...

    def turn_away(self) -> KtrdrError:
        """Count a call that has come, and return the error to turn it away with."""
        ...

    def let_go(self) -> None:
        """Count it no longer: it has been told."""
        ...


def refusable(behaviour: B, note: NoteRefusal | None) -> B:
    """Have `note` be told of calls that are refused without the behaviour.

    None: there are to be no such calls, the behaviour must see them all.
    """
    behaviour.note_refusal = note  # type: ignore[attr-defined]  # wrappers copy it
    return behaviour


def note_of(behaviour: Callable[..., Any]) -> NoteRefusal | None:
    """What is to be told of calls that are refused without the behaviour."""
    note: NoteRefusal | None = getattr(behaviour, "note_refusal", None)
    return note


class Door:
    """Turns calls of one server away whose gate is shut."""

    def __init__(self, handler_of: Callable[[str], Any]) -> None:
        """`handler_of` gives the handler of a method that has been called before, else None.

        The pool that its behaviour names is the gate of its class.
        """
        self._handler_of = handler_of

    def refusal(self, method: str, metadata: Metadata) -> Refusal | None:
        """How a call is to be turned away; None if it may come in.

        Only who may call at all is told that there is no place; the others learn that they
        may not.
        """
        handler = self._handler_of(method)
        if handler is None:
            return None
        behaviour = handler.stream_unary or handler.stream_stream  # as ClientWaits makes them all
        gate: Gate = behaviour.experimental_thread_pool
        if not gate.is_shut():
            return None
        note = note_of(behaviour)
        if note is None or not may_be_received(behaviour, metadata):
            return None
        error = gate.turn_away()
        note(error)
        return error, gate.let_go


def _insides() -> Any:
    """What gRPC calls `_server`; None if it is not as it is known here."""
    try:
        server: Any = importlib.import_module("grpc._server")
        begin = server._handle_call  # noqa: SLF001  # see above
        known = tuple(inspect.signature(begin).parameters) == _KNOWN
        queue = server.cygrpc
        operations = (
            queue.SendInitialMetadataOperation,
            queue.ReceiveCloseOnServerOperation,
            queue.SendStatusFromServerOperation,
        )
        names = (server._RegisteredMethod.name, server._GenericMethod.name)  # noqa: SLF001
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
    return server if known and all(map(callable, (*operations, *names))) else None


_server = _insides()
_begin: Any = None if _server is None else _server._handle_call  # noqa: SLF001


def hang(door: Door, pool: Any) -> None:
    """Have the calls of the server whose pool this is come to the door first."""
    if _server is not None:
        pool.door = door
        _server._handle_call = _at_the_door  # noqa: SLF001  # it stays: other servers do not mind


def _at_the_door(event: Any, method: Any, pipeline: Any, pool: Any, is_full: bool) -> Any:
    """Begin a call, as gRPC's own `_handle_call` does; return its state and its future."""
    door: Door | None = getattr(pool, "door", None)
    if door is not None and event.success:
        refused = _asked(door, event, method)
        if refused is not None:
            return _refuse(event.call, *refused), None
    return _begin(event, method, pipeline, pool, is_full)


def _asked(door: Door, event: Any, method: Any) -> Refusal | None:
    """What the door says; what goes wrong there does not end the thread that takes calls in."""
    try:
        name = method.name() or event.call_details.method.decode("ascii", "replace")
        return door.refusal(name, event.invocation_metadata)
    except Exception:
        logger.exception("The door let a call pass that it could not judge")
        return None


def _refuse(call: Any, error: KtrdrError, over: Callable[[], None]) -> object:
    """End a call with the status of an error; return what stands for it until `over` is called."""
    queue, state = _server.cygrpc, object()
    code: int = grpc_code(error.code).value[0]
    details = shorten(error.message, MAX_MESSAGE).encode()
    operations: Sequence[Any] = (
        queue.SendInitialMetadataOperation((), 0),
        queue.ReceiveCloseOnServerOperation(0),
        queue.SendStatusFromServerOperation(trailers_of(error), code, details, 0),
    )
    call.start_server_batch(operations, lambda _: (state, (over,)))
    return state
