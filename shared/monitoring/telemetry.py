"""Telemetry: what watches over a process, handed to the parts that are watched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.operations.monitor import UNMONITORED, OperationsMonitor
from shared.rpc.call_monitor import CallMonitorInterceptor
from shared.rpc.interceptors import MethodInterceptor
from shared.settings import ProcessSettings

if TYPE_CHECKING:
    from shared.monitoring.prometheus_monitor import PrometheusMonitor


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a process counts with; by default nothing is counted."""

    monitor: PrometheusMonitor | None = None

    @property
    def operations(self) -> OperationsMonitor:
        """What the operations service tells."""
        return self.monitor or UNMONITORED

    @property
    def served(self) -> Sequence[MethodInterceptor]:
        """What stands around every call that is served."""
        return () if self.monitor is None else (CallMonitorInterceptor(self.monitor),)


SILENT = Telemetry()


def telemetry_of(settings: ProcessSettings) -> Telemetry:
    """What the settings ask for; prometheus_client is imported only if they name a port."""
    if settings.metrics_port is None:
        return SILENT
    from shared.monitoring.prometheus_monitor import PrometheusMonitor

    return Telemetry(PrometheusMonitor())
