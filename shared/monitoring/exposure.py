"""Where a process lets others read what it counts, if its settings name a port for that."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from shared.monitoring.telemetry import Telemetry
from shared.operations.service import OperationsService
from shared.operations.worker_pool import WorkerPool
from shared.rpc.addresses import is_local
from shared.settings import ProcessSettings, SettingsError

if TYPE_CHECKING:
    from shared.monitoring.prometheus_monitor import PrometheusMonitor

logger = logging.getLogger("ktrdr.monitoring")


def exposed(
    settings: ProcessSettings,
    address: str,
    telemetry: Telemetry,
    operations: OperationsService,
    pools: Sequence[WorkerPool],
) -> AbstractContextManager[None]:
    """Let others read what a process that listens at `address` counts, while in the block.

    On the same addresses of the machine as the process itself. Raises
    SettingsError if the port cannot be had.
    """
    if settings.metrics_port is None or telemetry.monitor is None:
        return nullcontext()
    return _exposed(address, settings.metrics_port, telemetry.monitor, operations, pools)


@contextmanager
def _exposed(
    address: str,
    port: int,
    monitor: PrometheusMonitor,
    operations: OperationsService,
    pools: Sequence[WorkerPool],
) -> Iterator[None]:
    from prometheus_client import ProcessCollector

    from shared.monitoring.endpoint import MetricsEndpoint
    from shared.monitoring.gauges import Gauges

    ProcessCollector(registry=monitor.registry)
    monitor.registry.register(Gauges(monitor, operations, pools))
    host = address.rpartition(":")[0]
    try:
        endpoint = MetricsEndpoint(host.strip("[]"), port, monitor.registry)
    except OSError as error:
        raise SettingsError(
            f"KTRDR_METRICS_PORT: cannot listen on {host}:{port} ({error.strerror}); choose "
            "another port, or 0 for any that is free"
        ) from error
    endpoint.start()
    logger.info("Metrics on http://%s:%d/metrics", host, endpoint.port)
    if not is_local(address):
        logger.warning("KTRDR_METRICS_PORT: whoever reaches %s:%d reads the metrics", host, port)
    try:
        yield
    finally:
        endpoint.close()
