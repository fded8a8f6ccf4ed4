"""Operations whose work a test carries out step by step, on a real worker thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import ClassVar

from shared.operations.bridge import BridgeSnapshot
from shared.operations.model import OperationType, PackedResult
from shared.operations.service import OperationsService
from shared.operations.starts import NewOperation
from shared.operations.worker_pool import Job, WorkerPool
from shared.rpc.errors import OperationCancelledError
from shared.training.bridge import TrainingProgressBridge

RESULT = PackedResult("type.googleapis.com/ktrdr.training.v1.TrainingResult", b"")
"""An empty TrainingResult, packed."""
FIGURES = {"train_loss": 0.5, "val_loss": 0.6}
PATIENCE = 20.0
"""Seconds a test waits for a step; it takes microseconds unless something is broken."""

Step = Callable[[TrainingProgressBridge], None]
_Order = tuple[Step, Future[None]]


class CountingBridge(TrainingProgressBridge):
    """A training's bridge that counts how often it is read."""

    def __init__(self, total_epochs: int) -> None:
        super().__init__(total_epochs)
        self.reads = 0

    def snapshot(self, cursor: int = 0, limit: int | None = None) -> BridgeSnapshot:
        """Read, and count it."""
        self.reads += 1
        return super().snapshot(cursor, limit)


class ScriptedWork:
    """Work of one operation: it takes steps when told and looks at nothing by itself.

    A step that raises ends the work with its error. So does `notice_cancel`, if
    a cancellation was asked for: until then the work is deaf to it.
    """

    def __init__(self, operation_id: str, epochs: int = 10) -> None:
        self.operation_id = operation_id
        self.bridge = CountingBridge(epochs)
        self.result = RESULT
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._epochs = epochs

    def step(self, step: Step) -> None:
        """Have the worker take a step and wait until it is taken; raises what it raises."""
        taken: Future[None] = Future()
        self._orders.put((step, taken))
        taken.result(PATIENCE)

    def report_epochs(self, count: int, first: int = 0) -> None:
        """Have the worker report epochs, 0-based from `first` on."""
        self.step(lambda bridge: _report(bridge, range(first, first + count), self._epochs))

    def report_epochs_deaf(self, count: int) -> None:
        """Have the worker report epochs, though it was told to stop."""

        def report(bridge: TrainingProgressBridge) -> None:
            for epoch in range(count):
                with suppress(OperationCancelledError):
                    bridge.on_epoch(epoch, self._epochs, FIGURES)

        self.step(report)

    def fail(self, error: BaseException) -> None:
        """Have the work raise."""

        def raise_it(_: TrainingProgressBridge) -> None:
            raise error

        self._orders.put((raise_it, Future()))

    def notice_cancel(self) -> None:
        """Have the work look at its cancel signal, which ends it if that is set."""
        self._orders.put((lambda bridge: bridge.cancel.raise_if_requested(), Future()))

    def finish(self) -> None:
        """Have the work end with a result; more than once does no harm."""
        self._orders.put(None)

    def run(self) -> PackedResult:
        """What the worker does."""
        while (order := self._orders.get()) is not None:
            step, taken = order
            try:
                step(self.bridge)
            except BaseException as error:
                taken.set_exception(error)
                raise
            taken.set_result(None)
        return self.result


class ScriptedOperations:
    """Starts scripted work in a backend, on the backend's own pool."""

    def __init__(self, operations: OperationsService, pool: WorkerPool) -> None:
        self._operations, self._pool = operations, pool
        self._works: list[ScriptedWork] = []

    def start(self, *, epochs: int = 10, request_id: str = "") -> ScriptedWork:
        """Start an operation; it runs, or queues if all workers are taken."""
        name = request_id or f"scripted_{len(self._works) + 1:04}"
        work = ScriptedWork(f"op_training_{name}", epochs)
        self._works.append(work)
        new = NewOperation(
            operation_id=work.operation_id,
            request_id=work.operation_id.removeprefix("op_training_"),
            type=OperationType.TRAINING,
            fingerprint="scripted",
            metadata={"strategy": "scripted"},
        )
        self._operations.start_operation(new, ScriptedLaunch(self._operations, self._pool, work))
        return work

    def start_running(self, *, epochs: int = 10, request_id: str = "") -> ScriptedWork:
        """Start an operation and wait until a worker is at it."""
        work = self.start(epochs=epochs, request_id=request_id)
        work.step(lambda _: None)
        return work

    def finish_all(self) -> None:
        """Let all work end."""
        for work in self._works:
            work.finish()


class ScriptedLaunch:
    """Starts scripted work on a pool."""

    elsewhere: ClassVar[bool] = False

    def __init__(self, operations: OperationsService, pool: WorkerPool, work: ScriptedWork) -> None:
        self._operations, self._pool, self._work = operations, pool, work

    def reserve(self) -> None:
        """Take a worker or a place in the queue."""
        self._pool.reserve()

    def begin(self, operation_id: str) -> None:
        """Register the bridge, then hand the work to the pool."""
        operations, work = self._operations, self._work
        operations.register_local_bridge(operation_id, work.bridge)
        run = lambda: operations.run_operation(operation_id, work.run)  # noqa: E731  # a job's body
        self._pool.submit(Job(run, work.bridge.cancel))

    def release(self) -> None:
        """Give it back."""
        self._pool.release()


def _report(bridge: TrainingProgressBridge, epochs: range, total: int) -> None:
    for epoch in epochs:
        bridge.on_epoch(epoch, total, FIGURES)
