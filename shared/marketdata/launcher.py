"""How a checked data load gets going: the port, and the way of this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Protocol

from shared.marketdata.bridge import DataLoadingProgressBridge
from shared.marketdata.conversion import pack_result
from shared.marketdata.loader import DataLoader
from shared.marketdata.provider import BarProvider
from shared.marketdata.request import LoadRequest
from shared.marketdata.store import BarStore
from shared.operations.cancellation import CancelSignal
from shared.operations.model import PackedResult
from shared.operations.service import OperationsService
from shared.operations.starts import Launch
from shared.operations.worker_pool import Job, PoolLaunch, WorkerPool


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """A data load that has been checked and may start."""

    request_id: str
    request: LoadRequest

    @property
    def fingerprint(self) -> str:
        """Digest of what was asked for, to tell a repeat from a reuse of the id."""
        return hashlib.sha256(json.dumps(asdict(self.request), default=str).encode()).hexdigest()

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the operation says about the request."""
        request = self.request
        facts = {
            "session_id": self.request_id,
            "symbols": ",".join(request.symbols),
            "timeframe": request.timeframe,
            "start_time": request.start.isoformat() if request.start else "",
            "end_time": request.end.isoformat() if request.end else "",
            "mode": request.mode.value.lower(),
        }
        return {name: fact for name, fact in facts.items() if fact}


class DataLoadLauncher(Protocol):
    """Gets data loads going, here or elsewhere."""

    def launch(self, order: LoadOrder, deadline: float = inf) -> Launch:
        """Return the launch of one load; nothing has begun yet.

        `deadline` is when whoever asked stops listening, on the monotonic clock.
        """
        ...


class LocalDataLoadLauncher:
    """Loads on this process's own workers, from its provider into its store."""

    def __init__(
        self,
        operations: OperationsService,
        pool: WorkerPool,
        store: BarStore,
        provider: BarProvider,
    ) -> None:
        self._operations = operations
        self._pool = pool
        self._store = store
        self._provider = provider

    def launch(self, order: LoadOrder, deadline: float = inf) -> Launch:  # noqa: ARG002  # at once
        """Return the launch of one load on a worker of this process."""
        return PoolLaunch(self._pool, lambda operation_id: self.begin(order, operation_id))

    def begin(self, order: LoadOrder, operation_id: str) -> None:
        """Register the bridge, then hand the work to the pool."""
        cancel = CancelSignal()
        bridge = DataLoadingProgressBridge(cancel=cancel)
        self._operations.register_local_bridge(operation_id, bridge)

        def work() -> PackedResult:
            loader = DataLoader(self._store, self._provider, bridge, cancel)
            return pack_result(loader.run(order.request))

        self._pool.submit(Job(lambda: self._operations.run_operation(operation_id, work), cancel))
