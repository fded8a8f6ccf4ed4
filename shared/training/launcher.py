"""How a checked training gets going: the port, and the way of this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Protocol

from shared.marketdata.bars import BarSource
from shared.operations.cancellation import CancelSignal
from shared.operations.model import PackedResult
from shared.operations.service import OperationsService
from shared.operations.starts import Launch
from shared.operations.worker_pool import Job, PoolLaunch, WorkerPool
from shared.training.bridge import TrainingProgressBridge
from shared.training.conversion import pack_result
from shared.training.model_store import ModelStore
from shared.training.orchestrator import TrainingOrchestrator
from shared.training.request import TrainingRequest
from shared.training.strategy import Strategy


@dataclass(frozen=True, slots=True)
class TrainingOrder:
    """A training that has been checked and may start."""

    request_id: str
    strategy: Strategy
    """With overrides applied."""
    request: TrainingRequest

    @property
    def fingerprint(self) -> str:
        """Digest of what was asked for, to tell a repeat from a reuse of the id."""
        asked = {**asdict(self.request), "strategy": self.strategy.to_yaml()}
        return hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the operation says about the request."""
        complete = self.request.completed(self.strategy)
        facts = {
            "session_id": self.request_id,
            "strategy": self.strategy.name,
            "symbols": ",".join(complete.symbols),
            "timeframes": ",".join(complete.timeframes),
            "start_time": complete.start.isoformat() if complete.start else "",
            "end_time": complete.end.isoformat() if complete.end else "",
            "seed": "" if complete.seed is None else str(complete.seed),
        }
        return {name: fact for name, fact in facts.items() if fact}


class TrainingLauncher(Protocol):
    """Gets trainings going, here or elsewhere."""

    def launch(self, order: TrainingOrder, deadline: float = inf) -> Launch:
        """Return the launch of one training; nothing has begun yet.

        `deadline` is when whoever asked stops listening, on the monotonic clock.
        """
        ...


class LocalTrainingLauncher:
    """Trains on this process's own workers."""

    def __init__(
        self,
        operations: OperationsService,
        pool: WorkerPool,
        bars: BarSource,
        models: ModelStore,
        instance: str,
    ) -> None:
        self._operations = operations
        self._pool = pool
        self._bars = bars
        self._models = models
        self._instance = instance

    def launch(self, order: TrainingOrder, deadline: float = inf) -> Launch:  # noqa: ARG002  # at once
        """Return the launch of one training on a worker of this process."""
        return PoolLaunch(self._pool, lambda operation_id: self.begin(order, operation_id))

    def begin(self, order: TrainingOrder, operation_id: str) -> None:
        """Register the bridge, then hand the work to the pool."""
        cancel = CancelSignal()
        epochs = order.strategy.model.training.epochs
        bridge = TrainingProgressBridge(epochs, cancel=cancel)
        self._operations.register_local_bridge(operation_id, bridge)

        def work() -> PackedResult:
            orchestrator = TrainingOrchestrator(
                order.strategy,
                self._bars,
                bridge,
                cancel,
                request=order.request,
                models=self._models,
                instance=self._instance,
            )
            return pack_result(orchestrator.run())

        self._pool.submit(Job(lambda: self._operations.run_operation(operation_id, work), cancel))
