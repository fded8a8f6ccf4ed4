"""A backend that says what a test has written down, over the real wire."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from ktrdr.marketdata.v1 import market_data_service_pb2
from ktrdr.operations.v1 import operations_service_pb2
from ktrdr.training.v1 import models_service_pb2, training_service_pb2
from shared.rpc.channel import open_channel

_SERVICES: tuple[ServiceDescriptor, ...] = (
    operations_service_pb2.DESCRIPTOR.services_by_name["OperationsService"],
    training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"],
    models_service_pb2.DESCRIPTOR.services_by_name["ModelsService"],
    market_data_service_pb2.DESCRIPTOR.services_by_name["MarketDataService"],
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A scripted error, as a ktrdr server sends it."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    violations: Sequence[tuple[str, str]] = ()
    retry_after: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)

    def trailer(self) -> bytes:
        """The google.rpc.Status with the details."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self._details():
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        trailer: bytes = status.SerializeToString()
        return trailer

    def _details(self) -> list[Message]:
        details: list[Message] = []
        if self.reason:
            info = error_details_pb2.ErrorInfo(
                reason=self.reason, domain="ktrdr", metadata=self.metadata
            )
            details.append(info)
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for field, description in self.violations:
                bad.field_violations.add(field=field, description=description)
            details.append(bad)
        if self.retry_after:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(round(self.retry_after * 1e9))
            details.append(retry)
        return details


Reply = Message | Refusal | Callable[[Any], "Message | Refusal"]
"""What is answered, or how that follows from the request."""
_UNIMPLEMENTED = Refusal(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


class ScriptedBackend:
    """Answers each RPC with its replies in turn, the last of them for ever.

    One that streams sends all of its replies each time; a refusal ends them.
    An RPC without a script is UNIMPLEMENTED, as on a server that lacks it.
    """

    def __init__(self) -> None:
        self.requests: dict[str, list[Any]] = defaultdict(list)
        """What came in, by RPC."""
        self._script: dict[str, list[Reply]] = {}
        self._port = 0
        self._server = self._serve()

    @property
    def address(self) -> str:
        """Where it listens; the same after a restart."""
        return f"127.0.0.1:{self._port}"

    def script(self, rpc: str, *replies: Reply) -> None:
        """Write down the replies to an RPC."""
        self._script[rpc] = list(replies)

    def stop(self) -> None:
        """Go away."""
        self._server.stop(None).wait()

    def restart(self) -> None:
        """Come back at the same address."""
        self._server = self._serve()

    def await_connection(self) -> None:
        """Wait until the command's channel can be connected again.

        Channels of one process with the same target and options share their
        connection, so this one is ready when the command's is.
        """
        with open_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(timeout=10)

    def _serve(self) -> grpc.Server:
        server: grpc.Server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers([self._handler(service) for service in _SERVICES])
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        server.start()
        return server

    def _handler(self, service: ServiceDescriptor) -> grpc.GenericRpcHandler:
        methods = {method.name: self._method(method) for method in service.methods}
        handler: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(
            service.full_name, methods
        )
        return handler

    def _method(self, method: MethodDescriptor) -> Any:
        read = GetMessageClass(method.input_type).FromString
        write = GetMessageClass(method.output_type).SerializeToString
        if method.server_streaming:
            stream = partial(self._stream, method.name)
            return grpc.unary_stream_rpc_method_handler(stream, read, write)
        return grpc.unary_unary_rpc_method_handler(partial(self._answer, method.name), read, write)

    def _stream(
        self, rpc: str, request: Message, context: grpc.ServicerContext
    ) -> Iterator[Message]:
        self.requests[rpc].append(request)
        for reply in self._script.get(rpc, [_UNIMPLEMENTED]):
            yield _give(reply, request, context)

    def _answer(self, rpc: str, request: Message, context: grpc.ServicerContext) -> Message:
        self.requests[rpc].append(request)
        replies = self._script.get(rpc)
        if not replies:
            return _refuse(context, _UNIMPLEMENTED)
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return _give(reply, request, context)


def _give(reply: Reply, request: Message, context: grpc.ServicerContext) -> Message:
    given = reply if isinstance(reply, Message | Refusal) else reply(request)
    return _refuse(context, given) if isinstance(given, Refusal) else given


def _refuse(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    if refusal.reason or refusal.violations:
        context.set_trailing_metadata((("grpc-status-details-bin", refusal.trailer()),))
    context.abort(refusal.code, refusal.message)
    raise AssertionError("abort raises")
