"""Wiring that every process has: its operations, its server and limits, as the settings say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shared.clock import Clock
from shared.instance import Instance
from shared.monitoring.telemetry import SILENT, Telemetry
from shared.operations.model import Owner
from shared.operations.remote import RemoteOperationStub
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.store import OperationStore
from shared.rpc.host_channels import HostChannels
from shared.rpc.limits import RequestLimits
from shared.rpc.server import RpcServer, ServedService, ServerLimits
from shared.security import server_security
from shared.settings import ProcessSettings, TrainingSettings


def operations_limits(settings: ProcessSettings) -> OperationsLimits:
    """What the settings say about the operations service."""
    return OperationsLimits(
        cache_ttl=settings.cache_ttl,
        refresh_waiters=settings.refresh_waiters or max(1, settings.read_limit // 4),
        wait_slots=settings.wait_limit,
        keep_finished=settings.keep_finished,
        keep_finished_days=settings.keep_finished_days,
    )


def operations_of(
    settings: ProcessSettings,
    instance: Instance,
    address: str,
    store: OperationStore,
    channels: HostChannels,
    clock: Clock | None = None,
    telemetry: Telemetry = SILENT,
) -> OperationsService:
    """The operations of a process that is told to listen at `address`."""
    return OperationsService(
        store,
        Owner(instance.id, instance.incarnation, address),
        limits=operations_limits(settings),
        stub_of=lambda target: RemoteOperationStub(channels.to(target)),
        clock=clock,
        monitor=telemetry.operations,
    )


def server_of(
    settings: ProcessSettings,
    instance: Instance,
    variable: str,
    address: str,
    services: Sequence[ServedService],
    telemetry: Telemetry = SILENT,
) -> RpcServer:
    """The server of a process that is told by `variable` to listen at `address`."""
    return RpcServer(
        services,
        address,
        server_limits(settings),
        instance.id,
        server_security(settings, variable, address),
        telemetry.served,
    )


def server_limits(settings: ProcessSettings) -> ServerLimits:
    """What the settings say about the server."""
    return ServerLimits(
        read=settings.read_limit,
        wait=settings.wait_limit,
        early=settings.wait_queue,
        stream=settings.stream_limit,
        start=settings.start_limit,
        backlog=settings.backlog_limit or settings.read_limit,
        calls=settings.call_limit,
        connections=settings.connection_limit,
        connection_calls=settings.connection_call_limit,
        watchers=settings.watch_limit,
        request_bytes=settings.max_request_bytes,
        patience=settings.client_patience,
    )


def request_limits(settings: ProcessSettings) -> RequestLimits:
    """What the settings say about single requests and their answers."""
    limits = RequestLimits(
        operation_id=settings.max_operation_id,
        cancel_reason=settings.max_reason,
        wait=settings.max_wait,
        symbols=settings.max_symbols,
        page_rows=settings.max_page_rows,
        page_metrics=settings.max_page_metrics,
        page_bytes=settings.max_page_bytes,
    )
    if not isinstance(settings, TrainingSettings):
        return limits
    return replace(
        limits,
        timeframes=settings.max_timeframes,
        strategy_bytes=settings.max_strategy_bytes,
        overrides=settings.max_overrides,
    )
