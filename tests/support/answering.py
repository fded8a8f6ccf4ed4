"""Another process on a real socket that answers each call with what the test has set."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from ktrdr.operations.v1 import operations_service_pb2_grpc
from ktrdr.training.v1 import (
    models_service_pb2_grpc,
    training_host_service_pb2_grpc,
    training_service_pb2_grpc,
)
from shared.rpc.host_channel import HostChannel
from shared.rpc.server import RpcServer, ServedService, ServerLimits

Answer = Message | BaseException | Callable[[Any], Message]
"""What to answer, to raise, or to make of the request."""

_ADDS: Mapping[str, Callable[[Any, grpc.Server], None]] = {
    "ktrdr.operations.v1.OperationsService": (
        operations_service_pb2_grpc.add_OperationsServiceServicer_to_server
    ),
    "ktrdr.training.v1.TrainingService": (
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server
    ),
    "ktrdr.training.v1.TrainingHostService": (
        training_host_service_pb2_grpc.add_TrainingHostServiceServicer_to_server
    ),
    "ktrdr.training.v1.ModelsService": (
        models_service_pb2_grpc.add_ModelsServiceServicer_to_server
    ),
}


class Answering:
    """Serves ktrdr's services; `answer` sets what a method answers, `calls` has what came."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self._lock = threading.Lock()  # guards the two fields below
        self._answers: dict[str, deque[Answer]] = {}
        self._calls: list[tuple[str, Any]] = []
        self._server = RpcServer(
            [ServedService(name, self, add) for name, add in _ADDS.items()],
            address,
            ServerLimits(),
            "answering",
        )
        self.address = self._server.bind()
        self._server.start()

    def answer(self, method: str, *answers: Answer) -> None:
        """Answer the next calls of a method so; the last answer is for all that follow."""
        with self._lock:
            self._answers[method] = deque(answers)

    def calls(self, method: str) -> list[Any]:
        """The requests of a method so far."""
        with self._lock:
            return [request for called, request in self._calls if called == method]

    def close(self) -> None:
        """Stop serving at once."""
        self._server.stop(0.0)

    def __getattr__(self, method: str) -> Callable[[Any, grpc.ServicerContext], Message]:
        """The behaviour of any method of the contract."""
        if not method[0].isupper():
            raise AttributeError(method)
        return lambda request, _: self._serve(method, request)

    def _serve(self, method: str, request: Any) -> Message:
        with self._lock:
            self._calls.append((method, request))
            answers = self._answers[method]
            answer = answers[0] if len(answers) == 1 else answers.popleft()
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Message) else answer(request)


@contextmanager
def answering(address: str = "127.0.0.1:0") -> Iterator[Answering]:
    """Serve for as long as the block runs."""
    server = Answering(address)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def channel_to(target: str, instance: str = "me") -> Iterator[HostChannel]:
    """Open the channel of a process to another, and close it after the block."""
    channel = HostChannel(target, instance)
    try:
        yield channel
    finally:
        channel.close()
