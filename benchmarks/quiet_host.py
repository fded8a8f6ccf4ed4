"""A training host whose trainings take no processor, in a process of its own.

The first training rests. Each later one reports a batch whenever it is about to be
read, so that every read of it brings news. All else is what a training host is
made of. A real training would take the processor from what is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from multiprocessing.connection import Connection
from typing import ClassVar
from uuid import uuid4

import grpc

from benchmarks.processes import spawned
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.marketdata.sample import SampleBarSource
from shared.operations.bridge import BridgeSnapshot, waits_for_nothing
from shared.operations.id_prefixes import HOST_TRAINING
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import OperationType, Owner
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.servicer import OperationsServicer, operations_service
from shared.operations.starts import NewOperation
from shared.process import SWITCH_INTERVAL
from shared.rpc.handed_call import Answer
from shared.rpc.server import RpcServer, ServerLimits
from shared.training.bridge import TrainingProgressBridge
from shared.training.launcher import TrainingOrder
from shared.training.servicer import TrainingServicer, training_service

EPOCHS = 100
"""Epochs a training has reported."""
BATCHES = 1_000_000
"""Batches of an epoch; more than there are reads."""
FIGURES = {"train_loss": 0.5, "val_loss": 0.6}


class RestingBridge(TrainingProgressBridge):
    """A bridge that has heard EPOCHS reports and counts how often it is read."""

    def __init__(self) -> None:
        super().__init__(EPOCHS)
        self.reads = 0
        for epoch in range(EPOCHS):
            self.on_epoch(epoch, EPOCHS, FIGURES)

    @waits_for_nothing
    def snapshot(self, cursor: int = 0, limit: int | None = None) -> BridgeSnapshot:
        """Read, and count it."""
        self.reads += 1
        return super().snapshot(cursor, limit)


class MovingBridge(RestingBridge):
    """A bridge whose worker has always done another batch."""

    @waits_for_nothing
    def snapshot(self, cursor: int = 0, limit: int | None = None) -> BridgeSnapshot:
        """Report, then read."""
        self.on_batch(EPOCHS - 1, self.reads % BATCHES, BATCHES)
        return super().snapshot(cursor, limit)


class RestingLaunch:
    """Registers a bridge that needs no work, and no work with it."""

    elsewhere: ClassVar[bool] = False

    def __init__(self, operations: OperationsService, bridge: RestingBridge | None = None) -> None:
        self._operations = operations
        self.bridge = bridge or RestingBridge()

    def reserve(self) -> None:
        """Nothing is needed."""

    def begin(self, operation_id: str) -> None:
        """Register the bridge."""
        self._operations.register_local_bridge(operation_id, self.bridge)

    def release(self) -> None:
        """Nothing was taken."""


class RestingLauncher:
    """Launches a training that rests, then trainings that move."""

    def __init__(self, operations: OperationsService) -> None:
        self._operations = operations
        self.launches: list[RestingLaunch] = []

    def launch(
        self,
        order: TrainingOrder,  # noqa: ARG002  # all rest alike
        deadline: float = inf,  # noqa: ARG002  # it takes no time
    ) -> RestingLaunch:
        """Return the launch of one."""
        bridge = MovingBridge() if self.launches else RestingBridge()
        launch = RestingLaunch(self._operations, bridge)
        self.launches.append(launch)
        return launch


class CountingServicer(OperationsServicer):
    """Counts how often the host is asked for an operation."""

    calls = 0

    def prepare(self, request: pb.GetOperationRequest) -> Answer | None:
        """Count those that are answered at once."""
        answer = super().prepare(request)
        self.calls += answer is not None
        return answer

    def GetOperation(  # noqa: N802  # the contract's name
        self, request: pb.GetOperationRequest, context: grpc.ServicerContext
    ) -> pb.GetOperationResponse:
        """Answer, and count it."""
        self.calls += 1
        return super().GetOperation(request, context)


@contextmanager
def serve_resting(operation_id: str = "op") -> Iterator[str]:
    """Serve one operation that rests, in this process; give the address."""
    owner = Owner(uuid4().hex, uuid4().hex, "")
    operations = OperationsService(MemoryOperationStore(), owner)
    new = NewOperation(operation_id, operation_id, OperationType.TRAINING, "", {})
    operations.start_operation(new, RestingLaunch(operations))
    served = operations_service(OperationsServicer(operations))
    server = RpcServer([served], "127.0.0.1:0", ServerLimits(), owner.instance_id)
    address = server.bind()
    server.start()
    try:
        yield address
    finally:
        server.stop(0.0)


@dataclass(frozen=True, slots=True)
class QuietHost:
    """A quiet host that serves."""

    address: str
    connection: Connection

    def reads(self) -> Mapping[str, int]:
        """How often it was asked for an operation (`calls`) and a bridge was read (`pulls`)."""
        self.connection.send("reads")
        counted: Mapping[str, int] = self.connection.recv()
        return counted


@contextmanager
def quiet_host(cache_ttl: float) -> Iterator[QuietHost]:
    """Serve one in a process of its own."""
    with spawned(_serve, cache_ttl) as (address, connection):
        yield QuietHost(address, connection)


def _serve(told: Connection, cache_ttl: float) -> None:
    with quiet_server(cache_ttl) as server:
        told.send(server.address)
        while told.recv() is not None:
            told.send(server.reads())


@dataclass(frozen=True, slots=True)
class QuietServer:
    """What a quiet host is made of."""

    address: str
    launcher: RestingLauncher
    servicer: CountingServicer

    def reads(self) -> Mapping[str, int]:
        """As QuietHost says."""
        pulls = sum(launch.bridge.reads for launch in self.launcher.launches)
        return {"calls": self.servicer.calls, "pulls": pulls}


@contextmanager
def quiet_server(cache_ttl: float) -> Iterator[QuietServer]:
    """Serve one in this process."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    owner = Owner(uuid4().hex, uuid4().hex, "")
    operations = OperationsService(
        MemoryOperationStore(), owner, limits=OperationsLimits(cache_ttl=cache_ttl)
    )
    launcher, servicer = RestingLauncher(operations), CountingServicer(operations)
    services = [
        operations_service(servicer),
        training_service(
            TrainingServicer(operations, launcher, SampleBarSource(), id_prefix=HOST_TRAINING)
        ),
    ]
    server = RpcServer(services, "127.0.0.1:0", ServerLimits(), owner.instance_id)
    address = server.bind()
    server.start()
    try:
        yield QuietServer(address, launcher, servicer)
    finally:
        server.stop(0.0)
