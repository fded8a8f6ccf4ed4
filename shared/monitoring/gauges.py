"""What is told at a scrape and counted by nobody before: how much is open, queued, away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.monitoring.prometheus_monitor import PREFIX, PrometheusMonitor
from shared.operations.model import ACTIVE_STATUSES, OperationType
from shared.operations.service import OperationsService
from shared.operations.worker_pool import WorkerPool


class Gauges(Collector):
    """Looks at a process when somebody scrapes it."""

    def __init__(
        self,
        monitor: PrometheusMonitor,
        operations: OperationsService,
        pools: Sequence[WorkerPool],
    ) -> None:
        self._monitor = monitor
        self._operations = operations
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        """Give every gauge as it is now."""
        yield self._active()
        yield self._hit_ratios()
        yield self._unreachable()
        yield from self._workers()

    def _active(self) -> Metric:
        active = _gauge("operations_active", "Open operations in memory.", "type", "status")
        counts = self._operations.open_operations()
        for type_ in OperationType:
            for status in ACTIVE_STATUSES:
                active.add_metric([type_.value, status.value], counts[type_, status])
        return active

    def _hit_ratios(self) -> Metric:
        ratios = _gauge("cache_hit_ratio", "Hits of all such queries, since the start.", "type")
        for type_ in OperationType:
            ratio = self._monitor.hit_ratio(type_)
            if ratio is not None:
                ratios.add_metric([type_.value], ratio)
        return ratios

    def _unreachable(self) -> Metric:
        gauge = _gauge("targets_unreachable", "Processes that did not answer when last asked.")
        gauge.add_metric([], len(self._operations.unreachable()))
        return gauge

    def _workers(self) -> Iterator[Metric]:
        loads = [(pool.name, pool.load()) for pool in self._pools]
        limit = _gauge("workers", "Workers there may be.", "pool")
        busy = _gauge("workers_busy", "Workers at work.", "pool")
        queued = _gauge("worker_queue_length", "Operations that wait for a worker.", "pool")
        for name, load in loads:
            limit.add_metric([name], load.workers)
            busy.add_metric([name], load.busy)
            queued.add_metric([name], load.queued)
        yield from (limit, busy, queued)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)
