"""The backend's composition root: settings → stores → services → servicers → server."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from uuid import uuid4

from backend.settings import BackendSettings
from ktrdr.operations.v1 import operations_service_pb2_grpc
from ktrdr.training.v1 import models_service_pb2_grpc, training_service_pb2_grpc
from shared.logs import configure_logging
from shared.marketdata.bars import BarSource
from shared.marketdata.sample import SampleBarSource
from shared.operations.model import Owner
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.servicer import OperationsServicer
from shared.operations.store import MemoryOperationStore, OperationStore
from shared.operations.worker_pool import WorkerPool
from shared.process import guarded, serve_until_stopped
from shared.rpc.admission import START, UNLIMITED
from shared.rpc.server import RpcServer, ServedService, ServerLimits
from shared.settings import load_settings, usable_folder
from shared.training.launcher import LocalTrainingLauncher
from shared.training.model_store import ModelStore
from shared.training.models_servicer import ModelsServicer
from shared.training.servicer import TrainingServicer


@dataclass(frozen=True, slots=True)
class Backend:
    """The parts of a backend that somebody has to start and stop."""

    server: RpcServer
    operations: OperationsService
    pool: WorkerPool


def build_backend(settings: BackendSettings, store: OperationStore, bars: BarSource) -> Backend:
    """Wire a backend from its parts."""
    instance = uuid4().hex
    owner = Owner(instance, incarnation=uuid4().hex, address=settings.backend_address)
    operations = OperationsService(
        store,
        owner,
        limits=OperationsLimits(
            cache_ttl=settings.cache_ttl,
            refresh_waiters=settings.refresh_waiters or max(1, settings.read_limit // 4),
            wait_slots=settings.wait_limit,
        ),
    )
    pool = WorkerPool(
        "training", workers=settings.training_workers, queue_limit=settings.training_queue
    )
    models = ModelStore(settings.models_dir)
    launcher = LocalTrainingLauncher(operations, pool, bars, models, instance)
    services = [
        ServedService(
            "ktrdr.operations.v1.OperationsService",
            OperationsServicer(operations),
            operations_service_pb2_grpc.add_OperationsServiceServicer_to_server,
            {"WaitOperation": UNLIMITED},  # bounded by the service, which answers early
        ),
        ServedService(
            "ktrdr.training.v1.TrainingService",
            TrainingServicer(operations, launcher, bars, id_prefix="op_training_"),
            training_service_pb2_grpc.add_TrainingServiceServicer_to_server,
            {"StartTraining": START},
        ),
        ServedService(
            "ktrdr.training.v1.ModelsService",
            ModelsServicer(models),
            models_service_pb2_grpc.add_ModelsServiceServicer_to_server,
        ),
    ]
    limits = ServerLimits(
        read=settings.read_limit,
        wait=settings.wait_limit,
        stream=settings.stream_limit,
        start=settings.start_limit,
    )
    return Backend(RpcServer(services, settings.backend_address, limits), operations, pool)


def main() -> None:
    """Run a backend until it is told to stop."""
    settings = load_settings(BackendSettings)
    configure_logging(settings.log_level, settings.log_format)
    usable_folder(settings.models_dir, "KTRDR_HOME")
    backend = build_backend(settings, MemoryOperationStore(), SampleBarSource())
    serve_until_stopped(
        "backend",
        backend.server,
        backend.operations,
        backend.pool,
        grace=settings.shutdown_grace,
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
