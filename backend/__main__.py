"""The backend's composition root: settings → stores → services → servicers → server."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass

from backend.data_adapter import DataAdapter, IbHost
from backend.market_data_servicer import HostMarketDataServicer
from backend.models_servicer import HostModelsServicer
from backend.settings import BackendSettings
from backend.training_adapter import TrainingAdapter, TrainingHost
from shared.clock import Clock
from shared.extras import require_training
from shared.instance import Instance, claimed_instance
from shared.logs import configure_logging
from shared.marketdata.bars import BarSource
from shared.marketdata.bars_stub import RemoteBars
from shared.marketdata.csv_folder import CsvFolder
from shared.marketdata.launcher import LocalDataLoadLauncher
from shared.marketdata.provider import ReadableProvider
from shared.marketdata.sample import SampleBarSource
from shared.marketdata.servicer import MarketDataServicer, market_data_service
from shared.marketdata.source import StoredBarSource
from shared.marketdata.store import BarStore
from shared.monitoring.telemetry import SILENT, Telemetry, telemetry_of
from shared.operations.database import open_store
from shared.operations.id_prefixes import BACKEND_DATA, BACKEND_TRAINING
from shared.operations.longrunning_servicer import longrunning_service
from shared.operations.service import OperationsService
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


@dataclass(frozen=True, slots=True)
class Training:
    """How a backend trains."""

    servicer: TrainingServicer
    models: ModelsServicer | HostModelsServicer
    pool: WorkerPool | None = None
    """Its own workers, if it trains itself."""


@dataclass(frozen=True, slots=True)
class MarketData:
    """Where a backend has its bars."""

    servicer: MarketDataServicer | HostMarketDataServicer
    bars: BarSource
    """What its own trainings read."""
    pool: WorkerPool | None = None
    """Its own workers, if it loads itself."""


def train_here(
    settings: BackendSettings,
    instance: Instance,
    operations: OperationsService,
    bars: BarSource,
    clock: Clock | None = None,
) -> Training:
    """Wire trainings on the backend's own workers."""
    pool = WorkerPool(
        "training", workers=settings.training_workers, queue_limit=settings.training_queue
    )
    models = ModelStore(settings.models_dir)
    launcher = LocalTrainingLauncher(operations, pool, bars, models, instance.id)
    limits = request_limits(settings)
    servicer = TrainingServicer(
        operations, launcher, bars, id_prefix=BACKEND_TRAINING, clock=clock, limits=limits
    )
    return Training(servicer, ModelsServicer(models, limits), pool)


def train_on_hosts(
    settings: BackendSettings,
    channels: HostChannels,
    operations: OperationsService,
    clock: Clock | None = None,
) -> Training:
    """Wire trainings on other hosts: no orchestrator, no bridge, no worker here."""
    hosts = [channels.to(target) for target in settings.training_hosts]
    adapter = TrainingAdapter(operations, [TrainingHost(channel) for channel in hosts], clock)
    limits = request_limits(settings)
    servicer = TrainingServicer(
        operations, adapter, None, id_prefix=BACKEND_TRAINING, clock=clock, limits=limits
    )
    own = ModelsServicer(ModelStore(settings.models_dir), limits)
    return Training(servicer, HostModelsServicer(own, hosts, clock, limits))


def load_here(
    settings: BackendSettings,
    operations: OperationsService,
    provider: ReadableProvider,
    clock: Clock | None = None,
) -> MarketData:
    """Wire data loads on the backend's own workers."""
    pool = WorkerPool("data", workers=settings.data_workers, queue_limit=settings.data_queue)
    store = BarStore(settings.data_dir)
    launcher = LocalDataLoadLauncher(operations, pool, store, provider)
    servicer = MarketDataServicer(
        operations,
        launcher,
        store,
        provider,
        id_prefix=BACKEND_DATA,
        clock=clock,
        limits=request_limits(settings),
    )
    return MarketData(servicer, StoredBarSource(store, provider), pool)


def load_at_ib_host(
    settings: BackendSettings,
    channels: HostChannels,
    operations: OperationsService,
    clock: Clock | None = None,
) -> MarketData:
    """Wire data loads on the IB host: no loader and no store here."""
    channel = channels.to(settings.ib_host)
    adapter = DataAdapter(operations, IbHost(channel), clock)
    starts = MarketDataServicer(
        operations,
        adapter,
        BarStore(settings.data_dir),
        None,
        id_prefix=BACKEND_DATA,
        clock=clock,
        limits=request_limits(settings),
    )
    servicer = HostMarketDataServicer(starts, channel, clock)
    return MarketData(servicer, RemoteBars(channel))


def build_backend(
    settings: BackendSettings,
    instance: Instance,
    store: OperationStore,
    provider: ReadableProvider | None,
    clock: Clock | None = None,
    telemetry: Telemetry = SILENT,
) -> Process:
    """Wire a backend from its parts; the machine's clock unless given another.

    Without a provider the IB host loads.
    """
    address, security = settings.backend_address, client_security(settings, settings.called)
    channels = HostChannels(instance.id, security, telemetry.tracing)
    operations = operations_of(settings, instance, address, store, channels, clock, telemetry)
    if provider is None:
        data = load_at_ib_host(settings, channels, operations, clock)
    else:
        data = load_here(settings, operations, provider, clock)
    if settings.training_mode == "host":
        training = train_on_hosts(settings, channels, operations, clock)
    else:
        training = train_here(settings, instance, operations, data.bars, clock)
    servicer = OperationsServicer(operations, clock, request_limits(settings))
    services = [
        operations_service(servicer),
        longrunning_service(servicer),
        training_service(training.servicer),
        models_service(training.models),
        market_data_service(data.servicer),
    ]
    server = server_of(settings, instance, "KTRDR_BACKEND_ADDRESS", address, services, telemetry)
    pools = tuple(pool for pool in (training.pool, data.pool) if pool is not None)
    return Process(server, operations, pools, channels)


def provider_of(settings: BackendSettings) -> ReadableProvider | None:
    """Where the settings say that bars come from; None if that is the IB host."""
    if settings.data_source == "ib":
        return None
    if settings.data_source == "csv" and settings.csv_folder is not None:
        return CsvFolder(settings.csv_folder, settings.max_csv_bytes)
    return SampleBarSource()


def main() -> None:
    """Run a backend until it is told to stop."""
    settings = load_settings(BackendSettings)
    configure_logging(settings.log_level, settings.log_format)
    if settings.training_mode == "local":
        require_training("KTRDR_TRAINING_MODE", ", or set it to host")
    for folder in (settings.models_dir, settings.data_dir):
        usable_folder(folder, "KTRDR_HOME")
    with (
        claimed_instance(settings.state_dir, "backend") as instance,
        closing(open_store(settings, "backend")) as store,
    ):
        telemetry = telemetry_of(settings, "backend")
        backend = build_backend(
            settings, instance, store, provider_of(settings), telemetry=telemetry
        )
        run("backend", backend, settings, settings.backend_address, telemetry)


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
