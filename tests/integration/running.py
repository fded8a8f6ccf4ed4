"""A backend as users meet it: on a real socket, called through the generated stubs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backend.__main__ import build_backend, provider_of
from backend.settings import BackendSettings
from ktrdr.marketdata.v1 import market_data_service_pb2_grpc
from ktrdr.operations.v1 import operation_pb2, operations_service_pb2_grpc
from ktrdr.operations.v1 import operations_service_pb2 as operations_pb
from ktrdr.training.v1 import (
    models_service_pb2_grpc,
    training_pb2,
    training_service_pb2_grpc,
)
from ktrdr.training.v1 import training_service_pb2 as training_pb
from shared.clock import Clock
from shared.instance import Instance
from shared.marketdata.provider import ReadableProvider
from shared.marketdata.sample import SampleBarSource
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.store import OperationStore
from shared.operations.worker_pool import WorkerPool
from shared.process import Process, stop
from shared.rpc.channel import open_channel
from shared.rpc.security import PLAIN, ClientSecurity
from tests.support.scripted_work import ScriptedOperations

STRATEGIES = Path(__file__).parents[2] / "strategies"
SMALL = (STRATEGIES / "small.yaml").read_text("utf-8")
BARS = SampleBarSource()
"""Shared, so that the embedded prices are read once."""

PENDING = operation_pb2.OPERATION_STATUS_PENDING
RUNNING = operation_pb2.OPERATION_STATUS_RUNNING
CANCELLING = operation_pb2.OPERATION_STATUS_CANCELLING
COMPLETED = operation_pb2.OPERATION_STATUS_COMPLETED
FAILED = operation_pb2.OPERATION_STATUS_FAILED
CANCELLED = operation_pb2.OPERATION_STATUS_CANCELLED
TERMINAL = frozenset({COMPLETED, FAILED, CANCELLED})


@dataclass(frozen=True, slots=True)
class RunningBackend:
    """A backend that serves, with stubs on one channel to it."""

    backend: Process
    address: str
    home: Path
    channel: grpc.Channel
    operations: operations_service_pb2_grpc.OperationsServiceStub
    training: training_service_pb2_grpc.TrainingServiceStub
    models: models_service_pb2_grpc.ModelsServiceStub
    market_data: market_data_service_pb2_grpc.MarketDataServiceStub
    scripted: ScriptedOperations

    @property
    def pool(self) -> WorkerPool:
        """The backend's own workers."""
        return _training_pool(self.backend)

    def train(self, strategy: str = SMALL, /, **fields: Any) -> str:
        """Start a training and return its operation's id."""
        request = training_pb.StartTrainingRequest(strategy_yaml=strategy, **fields)
        operation: operation_pb2.Operation = self.training.StartTraining(request).operation
        return operation.operation_id

    def send(self, method: str, data: bytes, timeout: float = 5.0) -> bytes:
        """Call a method by its full name, with any bytes."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        answer: bytes = call(data, timeout=timeout)
        return answer

    def health(self, service: str = "") -> int:
        """Ask how a service is, or the whole server."""
        check: Any = health_pb2_grpc.HealthStub(self.channel).Check  # type: ignore[attr-defined]  # missing in the stubs
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = check(request, timeout=5).status
        return status

    def get(self, operation_id: str, **fields: Any) -> operations_pb.GetOperationResponse:
        """GetOperation; read now unless the fields say otherwise."""
        if not fields.keys() & {"max_staleness", "force_refresh"}:
            fields["force_refresh"] = True
        request = operations_pb.GetOperationRequest(operation_id=operation_id, **fields)
        answer: operations_pb.GetOperationResponse = self.operations.GetOperation(request)
        return answer

    def operation(self, operation_id: str) -> operation_pb2.Operation:
        """Return the operation as it is now."""
        return self.get(operation_id).operation

    def cancel(self, operation_id: str, reason: str = "") -> operation_pb2.Operation:
        """Cancel and return the operation after the call."""
        request = operations_pb.CancelOperationRequest(operation_id=operation_id, reason=reason)
        operation: operation_pb2.Operation = self.operations.CancelOperation(request).operation
        return operation

    def ended(self, operation_id: str) -> operation_pb2.Operation:
        """Wait for an operation's end and return it."""
        request = operations_pb.WaitOperationRequest(operation_id=operation_id)
        operation: operation_pb2.Operation = self.operations.WaitOperation(request).operation
        assert operation.status in TERMINAL
        return operation

    def epochs(self, operation_id: str) -> list[int]:
        """Return the steps of all metrics, in order."""
        return [metric.step for metric in self.get(operation_id, metrics_cursor=0).metrics]

    def vanish(self) -> None:
        """Stop serving at once, recording nothing, as a killed process does."""
        self.backend.server.stop(0.0)

    def stop(self, grace: float = 0.0) -> None:
        """Stop the backend as its process would."""
        stop(self.backend.server, self.backend.operations, self.backend.pools, grace=grace)
        self.backend.close()


@contextmanager
def running_backend(
    home: Path,
    *,
    clock: Clock | None = None,
    provider: ReadableProvider | None = None,
    store: OperationStore | None = None,
    instance: Instance | None = None,
    client: ClientSecurity = PLAIN,
    **settings: Any,
) -> Iterator[RunningBackend]:
    """Serve a backend on a free port; settings by name, `cache_ttl` included.

    Bars come from `provider` in place of the one that the settings name, records
    are in `store`, else in memory. `client` is how the stubs connect.
    """
    values: Mapping[str, Any] = {
        "backend_address": "127.0.0.1:0",
        "home": home,
        "OPERATIONS_CACHE_TTL": settings.pop("cache_ttl", 1.0),
        **settings,
    }
    instance = instance or Instance(uuid4().hex, uuid4().hex)
    store = store or MemoryOperationStore()
    chosen = BackendSettings(**values)
    provider = provider or (BARS if chosen.data_source == "sample" else provider_of(chosen))
    backend = build_backend(chosen, instance, store, provider, clock)
    # A backend that trains on hosts has no workers of its own to script.
    scripted = ScriptedOperations(backend.operations, _training_pool(backend))
    address = backend.server.bind()
    backend.operations.advertise(address)
    backend.operations.recover()
    backend.server.start()
    with open_channel(address, client) as channel:
        running = RunningBackend(
            backend=backend,
            address=address,
            home=home,
            channel=channel,
            operations=operations_service_pb2_grpc.OperationsServiceStub(channel),
            training=training_service_pb2_grpc.TrainingServiceStub(channel),
            models=models_service_pb2_grpc.ModelsServiceStub(channel),
            market_data=market_data_service_pb2_grpc.MarketDataServiceStub(channel),
            scripted=scripted,
        )
        try:
            yield running
        finally:
            scripted.finish_all()
            running.stop()


def result_of(operation: operation_pb2.Operation) -> training_pb2.TrainingResult:
    """Unpack the result of a completed training."""
    result = training_pb2.TrainingResult()
    assert operation.result.Unpack(result)
    return result


def _training_pool(backend: Process) -> WorkerPool:
    """The workers that train; one that trains on hosts has none, and gets none that would."""
    own = [pool for pool in backend.pools if pool.name == "training"]
    return own[0] if own else WorkerPool("none", workers=1, queue_limit=0)
