"""The IB host's composition root: settings → stores → services → servicers → server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ib_host.gateway.connection import GatewayAddress
from ib_host.gateway.gateway import Gateway
from ib_host.pacing import Pacing
from ib_host.provider import IbProvider, Patience
from ib_host.settings import SIMULATOR, IbHostSettings
from ib_host.simulator.server import TwsSimulator
from shared.extras import require_ib
from shared.instance import Instance, claimed_instance
from shared.logs import configure_logging
from shared.marketdata.launcher import LocalDataLoadLauncher
from shared.marketdata.provider import BarProvider
from shared.marketdata.servicer import MarketDataServicer, market_data_service
from shared.marketdata.store import BarStore
from shared.monitoring.telemetry import SILENT, Telemetry, telemetry_of
from shared.operations.database import open_store
from shared.operations.id_prefixes import HOST_DATA
from shared.operations.longrunning_servicer import longrunning_service
from shared.operations.servicer import OperationsServicer, operations_service
from shared.operations.store import OperationStore
from shared.operations.worker_pool import WorkerPool
from shared.process import Process, guarded, run
from shared.rpc.host_channels import HostChannels
from shared.security import client_security
from shared.settings import load_settings, usable_folder
from shared.wiring import operations_of, request_limits, server_of


def build_ib_host(
    settings: IbHostSettings,
    instance: Instance,
    store: OperationStore,
    provider: BarProvider,
    telemetry: Telemetry = SILENT,
) -> Process:
    """Wire an IB host from its parts."""
    channels = HostChannels(instance.id, client_security(settings, ()), telemetry.tracing)
    address = settings.ib_host_address
    operations = operations_of(settings, instance, address, store, channels, telemetry=telemetry)
    pool = WorkerPool("data", workers=settings.data_workers, queue_limit=settings.data_queue)
    bars = BarStore(settings.data_dir)
    launcher = LocalDataLoadLauncher(operations, pool, bars, provider)
    limits = request_limits(settings)
    servicer = OperationsServicer(operations, limits=limits)
    services = [
        operations_service(servicer),
        longrunning_service(servicer),
        market_data_service(
            MarketDataServicer(
                operations, launcher, bars, provider, id_prefix=HOST_DATA, limits=limits
            )
        ),
    ]
    server = server_of(settings, instance, "KTRDR_IB_HOST_ADDRESS", address, services, telemetry)
    return Process(server, operations, (pool,), channels)


@contextmanager
def ib_provider(settings: IbHostSettings, telemetry: Telemetry = SILENT) -> Iterator[IbProvider]:
    """Give IB's bars, through a gateway that is stopped at the end."""
    with gateway_address(settings) as where:
        host, _, port = where.rpartition(":")
        address = GatewayAddress(
            host.strip("[]"),
            int(port),
            client_id=settings.ib_client_id,
            connect_timeout=settings.ib_connect_timeout,
            answer_timeout=settings.ib_timeout,
        )
        gateway = Gateway(address)
        try:
            yield IbProvider(
                gateway,
                Pacing(monitor=telemetry.monitor),
                patience=Patience(outage=settings.ib_outage),
                regular_hours=settings.ib_regular_hours,
            )
        finally:
            gateway.stop()


@contextmanager
def gateway_address(settings: IbHostSettings) -> Iterator[str]:
    """Give the address of IB's gateway, or of a simulator that runs meanwhile."""
    if settings.ib_gateway != SIMULATOR:
        yield settings.ib_gateway
        return
    with TwsSimulator() as simulator:
        yield simulator.address


def main() -> None:
    """Run an IB host until it is told to stop."""
    settings = load_settings(IbHostSettings)
    configure_logging(settings.log_level, settings.log_format)
    require_ib("The IB host")
    usable_folder(settings.data_dir, "KTRDR_HOME")
    telemetry = telemetry_of(settings, "ib_host")
    with (
        claimed_instance(settings.state_dir, "ib_host") as instance,
        closing(open_store(settings, "ib_host")) as store,
        ib_provider(settings, telemetry) as provider,
    ):
        host = build_ib_host(settings, instance, store, provider, telemetry)
        run("ib_host", host, settings, settings.ib_host_address, telemetry)


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
