"""A real server with a service of the test's own, a channel to it, and its errors unpacked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import status_pb2

from shared.rpc.channel import open_channel
from shared.rpc.interceptors import MethodInterceptor
from shared.rpc.security import OPEN, PLAIN, ClientSecurity, ServerSecurity
from shared.rpc.server import RpcServer, ServedService, ServerLimits
from shared.rpc.status import DETAILS_KEY

PROBE = "test.v1.ProbeService"
LOOPBACK = "127.0.0.1:0"
TIMEOUT = 10.0
"""Seconds after which a call of a test has failed; none comes near it."""

Behaviour = Callable[[Any, grpc.ServicerContext], Any]
DetailT = TypeVar("DetailT", bound=Message)


@dataclass(frozen=True, slots=True)
class Wire:
    """A server that serves, and a channel to it."""

    server: RpcServer
    address: str
    channel: Any
    """A grpc.Channel; its stubs do not type calls with raw bytes."""

    def call(self, method: str, request: bytes = b"", service: str = PROBE) -> bytes:
        """Send raw bytes to a unary method; raises grpc.RpcError."""
        answer: bytes = self.channel.unary_unary(f"/{service}/{method}")(request, timeout=TIMEOUT)
        return answer

    def begin(self, method: str, request: bytes = b"", service: str = PROBE) -> grpc.Future[bytes]:
        """Send raw bytes to a unary method and go on."""
        future: grpc.Future[bytes] = self.channel.unary_unary(f"/{service}/{method}").future(
            request, timeout=TIMEOUT
        )
        return future

    def failure(self, method: str, request: bytes = b"", service: str = PROBE) -> grpc.RpcError:
        """Return the error a unary call ends with; fail if it is answered."""
        return failure_of(lambda: self.call(method, request, service))


def failure_of(call: Callable[[], object]) -> grpc.RpcError:
    """Return the grpc.RpcError that `call` raises; fail if it does not."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call was answered")


def code_of(call: Callable[[], object]) -> str:
    """Return the name of the code a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def trailers(error: grpc.RpcError) -> dict[str, Any]:
    """The trailing metadata a failed call arrived with."""
    return {item.key: item.value for item in error.trailing_metadata() or ()}


def status_in(error: grpc.RpcError) -> status_pb2.Status:
    """The google.rpc.Status a failed call arrived with."""
    return status_pb2.Status.FromString(trailers(error)[DETAILS_KEY])


def detail(status: status_pb2.Status, kind: type[DetailT]) -> DetailT | None:
    """The first detail of a kind in a status."""
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            return message
    return None


def required(status: status_pb2.Status, kind: type[DetailT]) -> DetailT:
    """The first detail of a kind in a status; fail if it has none."""
    found = detail(status, kind)
    assert found is not None, f"no {kind.__name__} in {status}"
    return found


class Gate:
    """A behaviour that lets nobody pass until it is opened, and knows who waits."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self._lock = threading.Lock()  # guards calls
        self.calls: list[grpc.ServicerContext] = []

    @property
    def waiting(self) -> int:
        """How many have come."""
        with self._lock:
            return len(self.calls)

    def __call__(self, request: Any, context: grpc.ServicerContext) -> bytes:
        """Wait; answer `passed`."""
        with self._lock:
            self.calls.append(context)
        assert self.opened.wait(TIMEOUT)
        return b"passed"


def probe(
    unary: Mapping[str, Behaviour] | None = None,
    streams: Mapping[str, Behaviour] | None = None,
    classes: Mapping[str, str] | None = None,
    *,
    typed: bool = False,
) -> ServedService:
    """Build a service of these methods.

    `streams` answer with streams. Messages are bytes, or StringValue if `typed`.
    """
    parse: Any = StringValue.FromString if typed else None
    serialize: Any = StringValue.SerializeToString if typed else None
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(behaviour, parse, serialize)
        for name, behaviour in (unary or {}).items()
    }
    for name, behaviour in (streams or {}).items():
        handlers[name] = grpc.unary_stream_rpc_method_handler(behaviour, parse, serialize)
    return service_of(handlers, classes)


def service_of(
    handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
    classes: Mapping[str, str] | None = None,
    *,
    name: str = PROBE,
) -> ServedService:
    """Build a service of these handlers."""

    def add(_servicer: Any, server: grpc.Server) -> None:
        generic = grpc.method_handlers_generic_handler(name, dict(handlers))
        server.add_generic_rpc_handlers((generic,))

    return ServedService(name, None, add, classes or {})


@contextmanager
def served(
    services: Sequence[ServedService],
    limits: ServerLimits | None = None,
    security: ServerSecurity = OPEN,
    client: ClientSecurity = PLAIN,
    around: Sequence[MethodInterceptor] = (),
) -> Iterator[Wire]:
    """Serve on a free port for as long as the block runs; `client` is how the channel connects."""
    limits = limits or ServerLimits()
    server = RpcServer(services, LOOPBACK, limits, "probe", security, around)
    address = server.bind()
    server.start()
    channel = open_channel(address, client)
    try:
        yield Wire(server, address, channel)
    finally:
        channel.close()
        server.stop(0.0)
