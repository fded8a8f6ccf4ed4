"""The training host's composition root: settings → stores → services → servicers → server."""

from __future__ import annotations

import sys
from contextlib import closing

from shared.extras import require_training
from shared.instance import Instance, claimed_instance
from shared.logs import configure_logging
from shared.marketdata.provider import ReadableProvider
from shared.marketdata.sample import SampleBarSource
from shared.marketdata.source import StoredBarSource
from shared.marketdata.store import BarStore
from shared.monitoring.telemetry import SILENT, Telemetry, telemetry_of
from shared.operations.database import open_store
from shared.operations.id_prefixes import HOST_TRAINING
from shared.operations.longrunning_servicer import longrunning_service
from shared.operations.servicer import OperationsServicer, operations_service
from shared.operations.store import OperationStore
from shared.operations.worker_pool import WorkerPool
from shared.process import Process, guarded, run
from shared.rpc.host_channels import HostChannels
from shared.security import client_security
from shared.settings import load_settings, usable_folder
from shared.training.launcher import LocalTrainingLauncher
from shared.training.model_store import ModelStore
from shared.training.models_servicer import ModelsServicer, models_service
from shared.training.servicer import TrainingServicer, training_service
from shared.wiring import operations_of, request_limits, server_of
from training_host.servicer import TrainingHostServicer, training_host_service
from training_host.settings import TrainingHostSettings


def build_training_host(
    settings: TrainingHostSettings,
    instance: Instance,
    store: OperationStore,
    provider: ReadableProvider,
    telemetry: Telemetry = SILENT,
) -> Process:
    """Wire a training host from its parts."""
    channels = HostChannels(instance.id, client_security(settings, ()), telemetry.tracing)
    address = settings.training_host_address
    operations = operations_of(settings, instance, address, store, channels, telemetry=telemetry)
    pool = WorkerPool(
        "training", workers=settings.training_workers, queue_limit=settings.training_queue
    )
    models = ModelStore(settings.models_dir)
    bars = StoredBarSource(BarStore(settings.data_dir), provider)
    launcher = LocalTrainingLauncher(operations, pool, bars, models, instance.id)
    limits = request_limits(settings)
    servicer = OperationsServicer(operations, limits=limits)
    services = [
        operations_service(servicer),
        longrunning_service(servicer),
        training_service(
            TrainingServicer(operations, launcher, bars, id_prefix=HOST_TRAINING, limits=limits)
        ),
        training_host_service(
            TrainingHostServicer(operations, id_prefix=HOST_TRAINING, limits=limits)
        ),
        models_service(ModelsServicer(models, limits)),
    ]
    server = server_of(
        settings, instance, "KTRDR_TRAINING_HOST_ADDRESS", address, services, telemetry
    )
    return Process(server, operations, (pool,), channels)


def main() -> None:
    """Run a training host until it is told to stop."""
    settings = load_settings(TrainingHostSettings)
    configure_logging(settings.log_level, settings.log_format)
    require_training("The training host")
    usable_folder(settings.models_dir, "KTRDR_HOME")
    with (
        claimed_instance(settings.state_dir, "training_host") as instance,
        closing(open_store(settings, "training_host")) as store,
    ):
        telemetry = telemetry_of(settings, "training_host")
        host = build_training_host(settings, instance, store, SampleBarSource(), telemetry)
        run("training_host", host, settings, settings.training_host_address, telemetry)


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
