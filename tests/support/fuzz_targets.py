"""One real process of every kind, and what its own reflection says that it serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from backend.program import Program
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1 import operations_service_pb2_grpc
from tests.support.eventually import eventually
from tests.support.fuzz_values import QUICK, THERE, VALID

FEW: Mapping[str, str] = {
    "KTRDR_KEEP_FINISHED": "20",
    "KTRDR_TRAINING_QUEUE": "0",
    "KTRDR_DATA_QUEUE": "0",
    "KTRDR_IB_OUTAGE": "1",
    "KTRDR_SHUTDOWN_GRACE": "0.2",
    "KTRDR_LOG_LEVEL": "ERROR",
}
"""Settings under which what starts by chance neither lasts nor adds up."""


@dataclass(frozen=True)
class Target:
    """A process to fuzz."""

    kind: str
    pid: int
    address: str
    channel: grpc.Channel
    log: Path

    @cached_property
    def methods(self) -> Mapping[str, MethodDescriptor]:
        """Every method it serves, by full name, as it describes them itself."""
        database = ProtoReflectionDescriptorDatabase(self.channel)
        pool = DescriptorPool(database)
        services = [pool.FindServiceByName(name) for name in database.get_services()]
        return {
            f"/{service.full_name}/{method.name}": method
            for service in services
            for method in service.methods
        }

    def send(self, method: str, data: bytes, timeout: float, metadata: Any = None) -> object:
        """Send bytes as the one request of a call; return its answer, the first of a stream's."""
        kind = self.methods[method]
        if not kind.client_streaming and not kind.server_streaming:
            unary: Any = self.channel.unary_unary(method)
            return unary(data, timeout=timeout, metadata=metadata)
        stream: Any
        if kind.client_streaming:
            stream = self.channel.stream_stream(method)
            answers = stream(iter([data]), timeout=timeout, metadata=metadata)
        else:
            stream = self.channel.unary_stream(method)
            answers = stream(data, timeout=timeout, metadata=metadata)
        try:
            return next(answers, None)
        finally:
            answers.cancel()

    def request(self, method: str, **fields: Any) -> Message:
        """The request of a method with these fields."""
        return GetMessageClass(self.methods[method].input_type)(**fields)

    def active(self) -> Sequence[str]:
        """The operations that have not ended."""
        stub = operations_service_pb2_grpc.OperationsServiceStub(self.channel)
        answer = stub.ListOperations(pb.ListOperationsRequest(active_only=True), timeout=10)
        return [operation.operation_id for operation in answer.operations]

    def cancel_everything(self) -> None:
        """End what has not ended."""
        stub = operations_service_pb2_grpc.OperationsServiceStub(self.channel)
        for operation_id in self.active():
            stub.CancelOperation(pb.CancelOperationRequest(operation_id=operation_id), timeout=10)
        eventually(lambda: not self.active(), within=60.0)

    def status(self, name: str) -> int:
        """A figure from the process's status: Threads, or VmRSS in KiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines()
        (line,) = (line for line in lines if line.startswith(f"{name}:"))
        return int(line.split()[1])


@contextmanager
def fuzz_targets(home: Path) -> Iterator[Sequence[Target]]:
    """Run a backend, a training host, an IB host, and a backend that works through these two."""
    with ExitStack() as stack, ThreadPoolExecutor() as starters:

        def start(kind: str, name: str, **settings: str) -> Future[Target]:
            log = home / f"{kind}.log"
            return starters.submit(target, kind, name, log, {**FEW, **settings})

        def target(kind: str, name: str, log: Path, settings: Mapping[str, str]) -> Target:
            process = stack.enter_context(Program(name, home / kind, log, settings))
            channel = stack.enter_context(grpc.insecure_channel(process.address))
            return Target(kind, process.process.pid, process.address, channel, log)

        backend = start("backend", "backend")
        host = start("training_host", "training_host")
        ib_host = start("ib_host", "ib_host", KTRDR_IB_GATEWAY="simulator")
        front = start(
            "backend_on_hosts",
            "backend",
            KTRDR_TRAINING_MODE="host",
            TRAINING_HOST_SERVICE_URL=host.result().address,
            KTRDR_DATA_SOURCE="ib",
            IB_HOST_SERVICE_URL=ib_host.result().address,
        )
        targets = [started.result() for started in (backend, host, ib_host, front)]
        yield targets
        for each in targets:
            each.cancel_everything()  # so that stopping takes no time


def give_it_something(target: Target) -> None:
    """Have a load and a training carried out, so that there are operations, bars and a model.

    What has been started by chance is cancelled, so that there are workers for it.
    """
    target.cancel_everything()
    for method, fields in (
        ("/ktrdr.marketdata.v1.MarketDataService/StartDataLoad", VALID["StartDataLoadRequest"][0]),
        ("/ktrdr.training.v1.TrainingService/StartTraining", {"strategy_yaml": QUICK}),
    ):
        if method in target.methods:
            message = target.request(method, request_id=THERE, **fields)
            target.send(method, message.SerializeToString(), 30.0)
    eventually(lambda: not target.active(), within=60.0)
