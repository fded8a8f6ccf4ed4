"""Telemetry: what watches over a process, handed to the parts that are watched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.extras import require_otel
from shared.operations.monitor import UNMONITORED, OperationsMonitor
from shared.rpc.call_monitor import CallMonitorInterceptor
from shared.rpc.call_tracing import TracingInterceptor
from shared.rpc.interceptors import MethodInterceptor
from shared.settings import ProcessSettings

if TYPE_CHECKING:
    from shared.monitoring.prometheus_monitor import PrometheusMonitor
    from shared.monitoring.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a process counts with and traces with; by default it does neither."""

    monitor: PrometheusMonitor | None = None
    tracing: Tracing | None = None

    @property
    def operations(self) -> OperationsMonitor:
        """What the operations service tells."""
        return self.monitor or UNMONITORED

    @property
    def served(self) -> Sequence[MethodInterceptor]:
        """What stands around every call that is served."""
        counting = () if self.monitor is None else (CallMonitorInterceptor(self.monitor),)
        tracing = () if self.tracing is None else (TracingInterceptor(self.tracing),)
        return (*counting, *tracing)

    def close(self) -> None:
        """Hand over what is left, once nothing happens any more."""
        if self.tracing is not None:
            self.tracing.close()


SILENT = Telemetry()


def telemetry_of(settings: ProcessSettings, process: str) -> Telemetry:
    """What the settings ask for; what it takes is imported only then.

    Raises SettingsError if that is not installed.
    """
    return Telemetry(_monitor_of(settings), _tracing_of(settings, process))


def _monitor_of(settings: ProcessSettings) -> PrometheusMonitor | None:
    if settings.metrics_port is None:
        return None
    from shared.monitoring.prometheus_monitor import PrometheusMonitor

    return PrometheusMonitor()


def _tracing_of(settings: ProcessSettings, process: str) -> Tracing | None:
    if settings.traces_exporter == "none":
        return None
    require_otel("OTEL_TRACES_EXPORTER")
    from shared.monitoring.tracing import Tracing, exporter_of

    return Tracing(f"ktrdr-{process}", exporter_of(settings.traces_exporter))
