"""A gRPC server with health, reflection, error mapping, authorization and admission."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from shared.rpc import health
from shared.rpc.admission import READ, START, STREAM, UNLIMITED, AdmissionInterceptor
from shared.rpc.authorization import AuthorizationInterceptor
from shared.rpc.channel import KEEPALIVE_MS
from shared.rpc.errors import KtrdrError
from shared.rpc.interceptors import Chain, ErrorInterceptor, MethodInterceptor
from shared.rpc.security import OPEN, ServerSecurity
from shared.rpc.symbols import MethodAwarePool
from shared.rpc.via import ViaInterceptor

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
)
_JOIN = 1.0
"""Seconds servicers get to notice that their calls have been cancelled."""
_BASE_CLASSES = {
    f"/{health.SERVICE_NAME}/": UNLIMITED,
    f"/{reflection.SERVICE_NAME}/": STREAM,
}


class AddressError(KtrdrError):
    """The server cannot listen where it was told to."""

    reason = "ADDRESS_UNUSABLE"


@dataclass(frozen=True, slots=True)
class ServedService:
    """One service: its full name and how its servicer is put on a server."""

    name: str
    servicer: Any
    add: Callable[[Any, grpc.Server], None]
    """The generated `add_…Servicer_to_server`."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """Admission class by method name; the others are reads."""
    reads: frozenset[str] = frozenset()
    """Methods that change nothing, by name, of a service whose own contract cannot say so."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How many calls may be in the server at once, by class."""

    read: int = 24
    wait: int = 16
    stream: int = 4
    start: int = 4

    @property
    def threads(self) -> int:
        """A thread for each, and two that keep health answering."""
        return self.read + self.wait + self.stream + self.start + 2


class RpcServer:
    """A synchronous gRPC server that owns its threads; `start` binds, `stop` joins."""

    def __init__(
        self,
        services: Sequence[ServedService],
        address: str,
        limits: ServerLimits,
        instance: str,
        security: ServerSecurity = OPEN,
    ) -> None:
        """`instance` is this process's id: calls that have passed it before are refused."""
        self._address = address
        self._credentials = security.credentials
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="rpc")
        classes = dict(_BASE_CLASSES)
        for service in services:
            classes |= {f"/{service.name}/{name}": c for name, c in service.classes.items()}
        admission = AdmissionInterceptor(
            classes, {READ: limits.read, STREAM: limits.stream, START: limits.start}
        )
        # Without tokens nothing is looked at, and a call costs nothing more.
        reads = [f"/{service.name}/{name}" for service in services for name in service.reads]
        who: list[MethodInterceptor] = (
            [AuthorizationInterceptor(security.tokens, reads)] if security.tokens else []
        )
        self._server = grpc.server(
            self._pool,
            interceptors=[Chain(ErrorInterceptor(), *who, ViaInterceptor(instance), admission)],
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=limits.threads * 32,
        )
        self._health = health.HealthServicer([service.name for service in services])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            service.add(service.servicer, self._server)
        if security.reflection:
            self._describe([service.name for service in services])

    def _describe(self, names: Sequence[str]) -> None:
        """Serve reflection."""
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME],
            self._server,
            pool=MethodAwarePool(),  # type: ignore[arg-type]  # only its look-ups are used
        )

    def bind(self) -> str:
        """Take the port and return the real address; `start` serves. Raises AddressError."""
        host = self._address.rpartition(":")[0]
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise AddressError(
                f"Cannot listen on {self._address}: the port is taken or the address is not "
                "this machine's. Choose another, or port 0 for any that is free."
            ) from error
        return f"{host}:{port}"

    def start(self) -> None:
        """Serve at the address that was bound."""
        self._server.start()

    def announce_stopping(self) -> None:
        """Answer NOT_SERVING to health checks from now on; calls are still served."""
        self._health.stop_serving()

    def stop(self, grace: float) -> bool:
        """Take no more calls, give the running ones `grace` seconds, end.

        False if a servicer is still at work on a call that has been cancelled.
        """
        ended = self._server.stop(grace).wait(grace + _JOIN)
        # A pool cannot be joined with a time limit, a thread can.
        joiner = threading.Thread(
            target=partial(self._pool.shutdown, cancel_futures=True), name="rpc-end", daemon=True
        )
        joiner.start()
        joiner.join(_JOIN)
        self._health.join(_JOIN)
        return ended and not joiner.is_alive()
