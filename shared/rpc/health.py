"""grpc.health.v1: overall and per service, with watchers that hold no threads.

The servicer of grpcio-health-checking sends under the lock that the end of a
watch needs too. The end runs on the one thread that completes sends, so a
watcher that leaves while another comes stops its server for good. Here nothing
is sent under a lock that the end of a call takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.rpc.errors import NotFoundError, ResourceExhaustedError

SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
OVERALL = ""
_RESPONSE = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Serves the health of a server: all its services serve, or it is stopping."""

    def __init__(self, services: Sequence[str], watchers: int = 1000) -> None:
        """At most so many clients may watch at once."""
        self._most = watchers
        self._lock = threading.Lock()  # guards the fields below; nothing waits under it
        self._statuses: dict[str, int] = dict.fromkeys([OVERALL, *services], _RESPONSE.SERVING)
        self._watchers: set[_Watcher] = set()
        self._teller: threading.Thread | None = None

    def Check(  # noqa: N802  # the contract's name
        self, request: health_pb2.HealthCheckRequest, _context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer with the status of a service; raises NotFoundError for an unknown one."""
        status = self.status_of(request.service)
        if status == _RESPONSE.SERVICE_UNKNOWN:
            raise NotFoundError(
                f"There is no service {request.service!r} here; "
                "server reflection lists those there are.",
                reason="SERVICE_NOT_FOUND",
                metadata={"service": request.service},
            )
        return _RESPONSE(status=status)

    def List(  # noqa: N802  # the contract's name
        self, _request: Any, _context: grpc.ServicerContext
    ) -> Any:
        """Answer with the status of every service."""
        with self._lock:
            statuses = dict(self._statuses)
        answer = health_pb2.HealthListResponse()  # type: ignore[attr-defined]  # missing in the stubs
        for service, status in statuses.items():
            answer.statuses[service].status = status
        return answer

    def Watch(  # type: ignore[override]  # noqa: N802  # the contract's name, and `send`
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send: Callable[[Any], None],
    ) -> None:
        """Send the status of a service now and whenever it changes.

        Raises ResourceExhaustedError if as many watch as may.
        """
        watcher = _Watcher(self, request.service, send)

        def leave() -> None:
            with self._lock:
                self._watchers.discard(watcher)

        with self._lock:
            if len(self._watchers) >= self._most:
                raise ResourceExhaustedError(
                    f"{self._most} clients watch already; check now and then instead.",
                    retry_after=30.0,
                    reason="TOO_MANY_WATCHERS",
                    metadata={"limit": str(self._most)},
                )
            self._watchers.add(watcher)
        if not context.add_callback(leave):
            leave()
        watcher.tell()

    # gRPC passes `send` instead of keeping a thread at an iterator.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]  # read by gRPC

    def status_of(self, service: str) -> int:
        """The status of a service; SERVICE_UNKNOWN if there is none of this name."""
        with self._lock:
            return int(self._statuses.get(service, _RESPONSE.SERVICE_UNKNOWN))

    def stop_serving(self) -> None:
        """Answer NOT_SERVING from now on; watchers are told while the caller goes on."""
        with self._lock:
            self._statuses = dict.fromkeys(self._statuses, _RESPONSE.NOT_SERVING)
            watchers = list(self._watchers)
        # A client that no longer reads may keep a send waiting.
        self._teller = threading.Thread(
            target=_tell, args=(watchers,), name="rpc-health", daemon=True
        )
        self._teller.start()

    def join(self, timeout: float) -> None:
        """Wait until the watchers have been told; one that does not read is given up."""
        if self._teller is not None:
            self._teller.join(timeout)


def _tell(watchers: Sequence[_Watcher]) -> None:
    for watcher in watchers:
        watcher.tell()


class _Watcher:
    """One client that watches one service."""

    def __init__(self, health: HealthServicer, service: str, send: Callable[[Any], None]) -> None:
        self._health = health
        self._service = service
        self._send = send
        self._lock = threading.Lock()  # keeps statuses in order; held while sending
        self._told: int | None = None

    def tell(self) -> None:
        """Send the status as it is now, unless it was sent already."""
        with self._lock:
            status = self._health.status_of(self._service)
            if status != self._told:
                self._told = status
                self._send(_RESPONSE(status=status))
