"""Training hosts on real sockets whose work a test carries out step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc

from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.clock import Clock
from shared.instance import Instance
from shared.marketdata.sample import SampleBarSource
from shared.operations.id_prefixes import HOST_TRAINING
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import Owner
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.servicer import OperationsServicer, operations_service
from shared.operations.starts import Launch
from shared.operations.store import OperationStore
from shared.operations.worker_pool import WorkerPool
from shared.process import stop
from shared.rpc.security import OPEN, ServerSecurity
from shared.rpc.server import RpcServer, ServedService, ServerLimits
from shared.training.launcher import TrainingOrder
from shared.training.model_store import ModelStore
from shared.training.models_servicer import ModelsServicer, models_service
from shared.training.servicer import TrainingServicer, training_service
from tests.support.eventually import eventually
from tests.support.scripted_work import ScriptedLaunch, ScriptedWork
from training_host.servicer import TrainingHostServicer, training_host_service

BARS = SampleBarSource()
"""Shared, so that the embedded prices are read once."""


def new_instance() -> Instance:
    """Nobody that was there before."""
    return Instance(uuid4().hex, uuid4().hex)


class CountingServicer(OperationsServicer):
    """Counts the calls that reach the host, and does what a test wants around each."""

    def __init__(self, operations: OperationsService, clock: Clock | None) -> None:
        super().__init__(operations, clock)
        self.calls: Counter[str] = Counter()
        self.before: Callable[[str], None] = lambda _: None
        self.after_get: Callable[[], None] = lambda: None

    def _count(self, method: str) -> None:
        self.calls[method] += 1
        self.before(method)

    def prepare(self, request: pb.GetOperationRequest) -> None:  # all alike
        """Answer nothing at once: what a test does around a call may wait."""

    def GetOperation(  # noqa: N802  # the contract's name
        self, request: pb.GetOperationRequest, context: grpc.ServicerContext
    ) -> pb.GetOperationResponse:
        """Count, answer, and do what is wanted after it."""
        self._count("GetOperation")
        answer = super().GetOperation(request, context)
        self.after_get()
        return answer

    def ListOperations(  # noqa: N802  # the contract's name
        self, request: pb.ListOperationsRequest, context: grpc.ServicerContext
    ) -> pb.ListOperationsResponse:
        """Count, then answer."""
        self._count("ListOperations")
        return super().ListOperations(request, context)

    def CancelOperation(  # noqa: N802  # the contract's name
        self, request: pb.CancelOperationRequest, context: grpc.ServicerContext
    ) -> pb.CancelOperationResponse:
        """Count, then answer."""
        self._count("CancelOperation")
        return super().CancelOperation(request, context)

    def WaitOperation(  # noqa: N802  # the contract's name
        self, request: pb.WaitOperationRequest, context: grpc.ServicerContext
    ) -> pb.WaitOperationResponse:
        """Count, then answer."""
        self._count("WaitOperation")
        return super().WaitOperation(request, context)


class ScriptedHost:
    """A training host that takes trainings and lets the test do the work.

    Everything but the work is what a training host is made of. `before_start`
    runs in each StartTraining once the request has been checked.
    """

    def __init__(
        self,
        home: Path,
        *,
        address: str = "127.0.0.1:0",
        instance: Instance | None = None,
        store: OperationStore | None = None,
        cache_ttl: float = 1.0,
        workers: int = 4,
        queue_limit: int = 4,
        wait_slots: int = 16,
        limits: ServerLimits | None = None,
        clock: Clock | None = None,
        security: ServerSecurity = OPEN,
    ) -> None:
        self.instance = instance or new_instance()
        self.works: dict[str, ScriptedWork] = {}
        self.before_start: Callable[[], object] = lambda: None
        owner = Owner(self.instance.id, self.instance.incarnation, address)
        self.operations = OperationsService(
            store or MemoryOperationStore(),
            owner,
            limits=OperationsLimits(cache_ttl=cache_ttl, wait_slots=wait_slots),
            clock=clock,
        )
        self.pool = WorkerPool("training", workers=workers, queue_limit=queue_limit)
        self.models = ModelStore(home / "models")
        self.servicer = CountingServicer(self.operations, clock)
        self.server = RpcServer(
            self._services(clock), address, limits or ServerLimits(), self.instance.id, security
        )
        self.address = self.server.bind()
        self.operations.advertise(self.address)
        self.server.start()

    def _services(self, clock: Clock | None) -> list[ServedService]:
        trainings = TrainingServicer(
            self.operations, self, BARS, id_prefix=HOST_TRAINING, clock=clock
        )
        old = TrainingHostServicer(self.operations, id_prefix=HOST_TRAINING, clock=clock)
        return [
            operations_service(self.servicer),
            training_service(trainings),
            training_host_service(old),
            models_service(ModelsServicer(self.models)),
        ]

    @property
    def calls(self) -> Counter[str]:
        """How often each method of the Operations service was called."""
        return self.servicer.calls

    def launch(self, order: TrainingOrder, deadline: float = inf) -> Launch:
        """Launch scripted work in place of a training."""
        self.before_start()
        operation_id = HOST_TRAINING + order.request_id  # the same for a repeated start
        work = self.works.setdefault(operation_id, ScriptedWork(operation_id))
        return ScriptedLaunch(self.operations, self.pool, work)

    def work(self, operation_id: str) -> ScriptedWork:
        """The work behind a backend's operation, once a worker is at it."""
        eventually(lambda: HOST_TRAINING + operation_id in self.works)
        work = self.works[HOST_TRAINING + operation_id]
        work.step(lambda _: None)
        return work

    def close(self) -> None:
        """Let all work end and stop the host as its process would."""
        for work in self.works.values():
            work.finish()
        self.pool.join(5.0)  # else stopping gives watchers a last look, which takes its time
        stop(self.server, self.operations, [self.pool], grace=5.0)

    def vanish(self) -> None:
        """Stop serving at once, recording nothing, as a killed process does."""
        self.server.stop(0.0)


@contextmanager
def scripted_host(home: Path, **options: Any) -> Iterator[ScriptedHost]:
    """Serve a scripted host; options as ScriptedHost's."""
    host = ScriptedHost(home, **options)
    try:
        yield host
    finally:
        host.close()
