"""The same design over HTTP: FastAPI, uvicorn and httpx, as the first plan of ktrdr had it.

A host answers for its operations; a backend stands in for one of them behind an
asyncio.Lock, a cache with a TTL and a proxy over httpx.AsyncClient, which asks for
state and metrics with a request each. Served with uvloop and httptools, without an
access log: this is the twin at its fastest.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from benchmarks.processes import spawned
from benchmarks.quiet_host import RestingBridge

HOST_OPERATION, OPERATION = "host_training_bench", "op_training_bench"
METADATA = {
    "symbols": "IBM,GOOG",
    "timeframes": "1d",
    "strategy": "small",
    "session_id": OPERATION,
    "host_operation_id": HOST_OPERATION,
    "host_service_url": "http://127.0.0.1:5002",
}
PATH = "/api/v1/operations"


class Progress(BaseModel):
    """How far the work is."""

    percentage: float | None = None
    message: str = ""
    phase: str = ""
    current_step: int = 0
    total_steps: int | None = None
    items_processed: int = 0
    items_total: int | None = None
    update_time: datetime | None = None
    estimated_remaining: float | None = None
    context: dict[str, str] = {}  # pydantic copies it


class OperationInfo(BaseModel):
    """One operation, as answered."""

    operation_id: str
    type: str
    status: str
    created_at: datetime
    started_at: datetime
    updated_at: datetime
    metadata: dict[str, str]
    progress: Progress
    metrics_count: int


class Metrics(BaseModel):
    """Metrics from a cursor on."""

    metrics: list[dict[str, Any]]
    new_cursor: int


def host_app() -> FastAPI:
    """A host with one operation that rests."""
    app, bridge, now = FastAPI(), RestingBridge(), datetime.now(UTC)

    @app.get(PATH + "/{operation_id}")
    async def get_operation(operation_id: str, force_refresh: bool = False) -> OperationInfo:
        if operation_id != HOST_OPERATION:
            raise HTTPException(404)
        status, snapshot = bridge.get_status(), bridge.snapshot(0, 0)
        assert status is not None
        fields = {name: getattr(status, name) for name in Progress.model_fields}
        return OperationInfo(
            operation_id=operation_id,
            type="training",
            status="running",
            created_at=now,
            started_at=now,
            updated_at=status.update_time or now,
            metadata=METADATA,
            progress=Progress(**fields),
            metrics_count=snapshot.metrics_count,
        )

    @app.get(PATH + "/{operation_id}/metrics")
    async def get_metrics(operation_id: str, cursor: int = 0) -> Metrics:
        metrics, new_cursor = bridge.get_metrics(cursor)
        return Metrics(
            metrics=[{"step": each.step, "values": dict(each.values)} for each in metrics],
            new_cursor=new_cursor,
        )

    return app


class OperationServiceProxy:
    """The host's operations over httpx."""

    def __init__(self, base_url: str) -> None:
        self._client = httpx.AsyncClient(base_url=base_url)

    async def get_operation(self, operation_id: str) -> dict[str, Any]:
        """Ask for the state."""
        answer = await self._client.get(f"{PATH}/{operation_id}", params={"force_refresh": True})
        answer.raise_for_status()
        return dict(answer.json())

    async def get_metrics(self, operation_id: str, cursor: int) -> dict[str, Any]:
        """Ask for the metrics from the cursor on."""
        answer = await self._client.get(f"{PATH}/{operation_id}/metrics", params={"cursor": cursor})
        answer.raise_for_status()
        return dict(answer.json())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def backend_app(host: str, cache_ttl: float) -> FastAPI:
    """A backend that stands in for the host's operation."""
    proxy, lock = OperationServiceProxy(host), asyncio.Lock()
    known: dict[str, OperationInfo] = {}
    read_at, metrics = -cache_ttl, list[dict[str, Any]]()

    @asynccontextmanager
    async def closing(_: FastAPI) -> AsyncIterator[None]:
        yield
        await proxy.close()

    app = FastAPI(lifespan=closing)

    async def refresh(operation_id: str) -> None:
        nonlocal read_at
        info = await proxy.get_operation(HOST_OPERATION)
        known[operation_id] = OperationInfo(**{**info, "operation_id": operation_id})
        delta = await proxy.get_metrics(HOST_OPERATION, len(metrics))
        metrics.extend(delta["metrics"])
        read_at = monotonic()

    @app.get(PATH + "/{operation_id}")
    async def get_operation(
        operation_id: str, force_refresh: bool = False
    ) -> OperationInfo:  # FastAPI's shape
        if operation_id != OPERATION:
            raise HTTPException(404)
        async with lock:
            if force_refresh or monotonic() - read_at >= cache_ttl:
                await refresh(operation_id)
            return known[operation_id]

    return app


@contextmanager
def http_twin(cache_ttl: float) -> Iterator[str]:
    """Serve host and backend in processes of their own; give the backend's URL."""
    with (
        spawned(_serve, host_app) as (host, _),
        spawned(_serve, backend_app, host, cache_ttl) as (backend, _),
    ):
        yield backend


def _serve(told: Connection, make: Callable[..., FastAPI], *arguments: object) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    app = make(*arguments)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=300,  # its clients rest longer than the 5 s that it allows by itself
    )
    server = uvicorn.Server(config)

    def stop_when_told() -> None:
        told.recv()
        server.should_exit = True

    threading.Thread(target=stop_when_told, daemon=True).start()
    told.send(f"http://127.0.0.1:{listening.getsockname()[1]}")
    server.run(sockets=[listening])
