"""A gRPC server with health, reflection, error mapping, authorization and admission."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from shared.rpc import health
from shared.rpc.admission import HEALTH, READ, START, STREAM, WAIT, AdmissionInterceptor
from shared.rpc.authorization import AuthorizationInterceptor
from shared.rpc.backlog import Backlog, BacklogInterceptor
from shared.rpc.call_pool import CallPool
from shared.rpc.channel import KEEPALIVE_MS
from shared.rpc.client_waits import ClientWaitInterceptor
from shared.rpc.door import Door, hang
from shared.rpc.errors import KtrdrError
from shared.rpc.handed_call import Prepare
from shared.rpc.interceptors import Chain, ErrorInterceptor, MethodInterceptor
from shared.rpc.security import OPEN, ServerSecurity
from shared.rpc.server_calls import ServerCalls
from shared.rpc.symbols import MethodAwarePool
from shared.rpc.via import ViaInterceptor

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_channelz", 1),  # counts calls, also those that have not been taken in
    ("grpc.max_channel_trace_event_memory_per_node", 0),  # what nobody reads makes counts slow
    ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.server_handshake_timeout_ms", 10_000),  # a connection that says nothing is closed
)
_JOIN = 1.0
"""Seconds servicers get to notice that their calls have been cancelled."""
_HEALTH = 32
"""Health checks at once; one takes microseconds, a watcher who left its place until it is seen."""
_HEALTH_PATIENCE = 0.5
_EARLY = 4
"""Threads that answer those who find no place to wait."""
_FENCE = 4 * 1024 * 1024
"""Bytes of a request that gRPC reads before it refuses it by itself, without details; at least."""
_SPARED = {HEALTH, WAIT}
"""Classes whose calls are not turned away for being many: waits are answered early instead."""
_BASE_CLASSES = {
    f"/{health.SERVICE_NAME}/": HEALTH,
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
    at_once: Mapping[str, Prepare] = field(default_factory=dict)
    """By the name of a method with one message and one answer: what prepares those of its
    answers that the thread which takes calls in may give."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much a server takes on at once."""

    read: int = 24
    wait: int = 16
    early: int = 2000
    """Calls that find no place to wait and are answered early, in turn."""
    stream: int = 4
    start: int = 4
    backlog: int = 24
    """Calls that may wait to be taken in before others are turned away."""
    calls: int = 5000
    """Of all classes; beyond it gRPC refuses."""
    connections: int = 2000
    connection_calls: int = 1000
    """Calls on one connection; its client holds further ones back."""
    watchers: int = 1000
    """Clients that watch health; they hold no threads."""
    request_bytes: int = 1024 * 1024
    patience: float = 5.0
    """Seconds a call may wait for its client while others want its place."""

    @property
    def classes(self) -> Mapping[str, tuple[int, int]]:
        """Threads and places of each class."""
        return {
            READ: (self.read, self.read),
            WAIT: (self.wait + _EARLY, self.wait + self.early),
            STREAM: (self.stream, self.stream),
            START: (self.start, self.start),
            HEALTH: (_HEALTH, _HEALTH),
        }

    @property
    def threads(self) -> int:
        """Those of all classes."""
        return sum(threads for threads, _ in self.classes.values())

    @property
    def options(self) -> tuple[tuple[str, int], ...]:
        """What gRPC itself keeps to, before a call is handed out."""
        return (
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_concurrent_streams", self.connection_calls),
            ("grpc.max_receive_message_length", max(_FENCE, 2 * self.request_bytes)),
            ("grpc.server.max_pending_requests", self.calls),
            ("grpc.server.max_pending_requests_hard_limit", 2 * self.calls),
        )


class RpcServer:
    """A synchronous gRPC server that owns its threads; `start` binds, `stop` joins."""

    def __init__(
        self,
        services: Sequence[ServedService],
        address: str,
        limits: ServerLimits,
        instance: str,
        security: ServerSecurity = OPEN,
        around: Sequence[MethodInterceptor] = (),
    ) -> None:
        """`instance` is this process's id: calls that have passed it before are refused.

        `around` stand outside all other interceptors and see the status of each call.
        """
        self._address = address
        self._credentials = security.credentials
        self.connections = limits.connections
        """The most there are at once."""
        self._calls = ServerCalls()
        backlog = Backlog(limits.backlog, self._calls.under_way, _SPARED)
        self._pools = _pools(limits, backlog)
        admission = AdmissionInterceptor(_classes(services), self._pools)
        chain = Chain(
            BacklogInterceptor(backlog),
            *around,
            ErrorInterceptor(limits.request_bytes),
            *_who(services, security),  # a call that may not pass does not learn how many do
            admission,
            ViaInterceptor(instance),
            ClientWaitInterceptor(admission.waits_of, _at_once(services)),
        )
        self._server = self._calls.count(
            lambda: grpc.server(
                self._pools[0],  # every method names its own
                interceptors=[chain],
                options=SERVER_OPTIONS + limits.options,
                maximum_concurrent_rpcs=limits.calls,
            )
        )
        hang(Door(chain.handler_of), self._pools[0])
        self._health = health.HealthServicer(
            [service.name for service in services], limits.watchers
        )
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
        joiner = threading.Thread(target=self._join_pools, name="rpc-end", daemon=True)
        joiner.start()
        joiner.join(_JOIN)
        self._health.join(_JOIN)
        return ended and not joiner.is_alive()

    def _join_pools(self) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


def _who(services: Sequence[ServedService], security: ServerSecurity) -> list[MethodInterceptor]:
    """What asks for a token; without tokens nothing is looked at, and a call costs no more."""
    if not security.tokens:
        return []
    reads = [f"/{service.name}/{name}" for service in services for name in service.reads]
    return [AuthorizationInterceptor(security.tokens, reads)]


def _at_once(services: Sequence[ServedService]) -> Mapping[str, Prepare]:
    """What prepares answers, by full method name."""
    return {
        f"/{service.name}/{name}": prepare
        for service in services
        for name, prepare in service.at_once.items()
    }


def _pools(limits: ServerLimits, backlog: Backlog) -> list[CallPool]:
    """One for each class of calls."""
    pools = [
        CallPool(class_, threads, places, _patience(class_, limits), backlog)
        for class_, (threads, places) in limits.classes.items()
    ]
    for pool in pools:
        pool.neighbours = [other for other in pools if other is not pool]
    return pools


def _classes(services: Sequence[ServedService]) -> Mapping[str, str]:
    """The class of each method, or of all methods of a service."""
    classes = dict(_BASE_CLASSES)
    for service in services:
        classes |= {f"/{service.name}/{name}": c for name, c in service.classes.items()}
    return classes


def _patience(class_: str, limits: ServerLimits) -> float:
    """Health is asked in a few bytes that come at once, or by nobody who wants to know."""
    return min(limits.patience, _HEALTH_PATIENCE) if class_ == HEALTH else limits.patience
