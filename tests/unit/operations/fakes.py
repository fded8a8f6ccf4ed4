"""What tests of the pull engine share: a service on a clock, launches, failing stores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import overload

from shared.clock import SystemClock
from shared.operations.bridge import ProgressBridge
from shared.operations.live import LiveOperation
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import (
    Metric,
    Operation,
    OperationRecord,
    OperationStatus,
    OperationType,
    Owner,
    PackedResult,
)
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.source import OperationSource
from shared.operations.starts import NewOperation
from shared.operations.store import OperationFilter, SortKey
from shared.rpc.errors import StoreUnavailableError
from tests.support.clock import FakeClock

DAY = datetime(2026, 1, 1, tzinfo=UTC)
ME = Owner("me", "first", "127.0.0.1:50051")
RESULT = PackedResult("type.googleapis.com/example.Result", b"done")


def metric(step: int) -> Metric:
    """A metric that names its place in the log; `step` is 1-based."""
    return Metric(DAY, "epoch", step, {"loss": 1.0 / step})


def steps(metrics: Sequence[Metric]) -> list[int]:
    """The places of some metrics."""
    return [each.step for each in metrics]


def operation(operation_id: str = "op", **fields: object) -> Operation:
    """A PENDING training, but for `fields`."""
    made = Operation(operation_id, OperationType.TRAINING, OperationStatus.PENDING, DAY, DAY)
    return replace(made, **fields)  # type: ignore[arg-type]  # tests name its fields


def record(operation_id: str = "op", **fields: object) -> OperationRecord:
    """The record of `operation(...)`."""
    return OperationRecord(
        operation(operation_id, **fields), ME, f"request-{operation_id}", "fingerprint"
    )


def new_operation(operation_id: str = "op", fingerprint: str = "fingerprint") -> NewOperation:
    """A training that is to be."""
    return NewOperation(
        operation_id, f"request-{operation_id}", OperationType.TRAINING, fingerprint
    )


class Worker:
    """A bridge with the writers' methods made public, for tests to report through."""

    def __init__(self) -> None:
        self.bridge = ProgressBridge()

    def report(self, percentage: float | None, message: str = "", **fields: object) -> None:
        """Report a state."""
        self.bridge._update_state(percentage, message, **fields)

    def measure(self, *numbers: int) -> None:
        """Append the metrics of these steps."""
        for step in numbers:
            self.bridge._append_metric(metric(step))


@dataclass
class FakeLaunch:
    """A launch that registers a bridge or a source, and counts what is asked of it."""

    service: OperationsService
    elsewhere: bool = False
    bridge: ProgressBridge | None = None
    source: OperationSource | None = None
    reserve_error: BaseException | None = None
    begin_error: BaseException | None = None
    on_begin: Callable[[], None] | None = None
    reserved: int = 0
    begun: list[str] = field(default_factory=list)
    released: int = 0

    def reserve(self) -> None:
        """Count, or raise."""
        if self.reserve_error is not None:
            raise self.reserve_error
        self.reserved += 1

    def begin(self, operation_id: str) -> None:
        """Do what the test set, register, or raise."""
        if self.on_begin is not None:
            self.on_begin()
        if self.begin_error is not None:
            raise self.begin_error
        if self.bridge is not None:
            self.service.register_local_bridge(operation_id, self.bridge)
        if self.source is not None:
            self.service._register(operation_id, self.source)
        self.begun.append(operation_id)

    def release(self) -> None:
        """Count."""
        self.released += 1


class FlakyStore(MemoryOperationStore):
    """A store that takes no writes while `away`, is not there while `gone`, and counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.gone = False
        self.gets = 0
        self.saves = 0
        self.finishes = 0
        self.finish_gate = threading.Event()
        self.finish_gate.set()
        self.finishing = threading.Event()

    def _reach(self) -> None:
        if self.away or self.gone:
            raise StoreUnavailableError("The store is away.")

    def _reach_to_read(self) -> None:
        if self.gone:
            raise StoreUnavailableError("The store is gone.")

    def get(self, operation_id: str) -> OperationRecord | None:
        """Return a record, unless gone."""
        self.gets += 1
        self._reach_to_read()
        return super().get(operation_id)

    def page(
        self, wanted: OperationFilter, after: SortKey | None, limit: int
    ) -> Sequence[OperationRecord]:
        """Return a page, unless gone."""
        self._reach_to_read()
        return super().page(wanted, after, limit)

    def mark_read(self, operation_id: str) -> None:
        """Note that an end is known, unless away."""
        self._reach()
        super().mark_read(operation_id)

    def prune(self, keep: int, ended_before: datetime, limit: int) -> Sequence[str]:
        """Forget what is beyond the retention, unless away."""
        self._reach()
        return super().prune(keep, ended_before, limit)

    def create(self, record: OperationRecord) -> OperationRecord:
        """Keep a new record, unless away."""
        self._reach()
        return super().create(record)

    def discard(self, record: OperationRecord) -> None:
        """Forget an operation, unless away."""
        self._reach()
        super().discard(record)

    def save(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord | None:
        """Replace a record, unless away."""
        self.saves += 1
        self._reach()
        return super().save(record, metrics, first)

    def finish(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord | None:
        """Keep a terminal record, unless away; blocks while the gate is closed."""
        self.finishes += 1
        self.finishing.set()
        assert self.finish_gate.wait(10), "the test never opened the gate"
        self._reach()
        return super().finish(record, metrics, first)


class WantedLock:
    """The lock of an operation's writes, telling when somebody waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.wanted = threading.Event()

    @classmethod
    def of(cls, live: LiveOperation) -> WantedLock:
        """Take the place of an operation's lock."""
        lock = cls()
        live.store_lock = lock  # type: ignore[assignment]  # it is one, as far as is needed
        return lock

    def acquire(self, *, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it."""
        if blocking and self._lock.locked():
            self.wanted.set()
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Give it back."""
        self._lock.release()


class LongLog(Sequence[Metric]):
    """Metrics of an operation, made while they are written; calls back in their midst."""

    def __init__(self, length: int, midst: Callable[[], object]) -> None:
        self._length = length
        self._midst = midst

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Metric: ...
    @overload
    def __getitem__(self, place: slice) -> list[Metric]: ...
    def __getitem__(self, place: int | slice) -> Metric | list[Metric]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(self._length))]
        if place == self._length // 2:
            self._midst()
        return metric(place + 1)


class Setup:
    """A service on a fake clock and a store that can fail, with shortcuts."""

    def __init__(
        self,
        *,
        cache_ttl: float = 1.0,
        refresh_waiters: int = 6,
        wait_slots: int = 16,
        real_time: bool = False,
    ) -> None:
        self.clock = FakeClock()
        self.store = FlakyStore()
        limits = OperationsLimits(cache_ttl, refresh_waiters, wait_slots)
        self.service = OperationsService(
            self.store, ME, limits=limits, clock=SystemClock() if real_time else self.clock
        )

    def pending(self, operation_id: str = "op") -> Worker:
        """Start an operation whose worker has not taken it up."""
        worker = Worker()
        self.service.start_operation(
            new_operation(operation_id), FakeLaunch(self.service, bridge=worker.bridge)
        )
        return worker

    def running(self, operation_id: str = "op") -> Worker:
        """Start an operation and take it up on this thread; nothing is cached."""
        worker = self.pending(operation_id)
        assert self.service.begin_operation(operation_id)
        self.clock.advance(10)
        return worker

    def remote(self, source: OperationSource, operation_id: str = "op") -> LiveOperation:
        """Start an operation that runs at `source`; it has not been read."""
        live = self.unread(operation_id)
        live.source = source
        return live

    def unread(self, operation_id: str = "op") -> LiveOperation:
        """Start an operation without a source."""
        self.service.start_operation(new_operation(operation_id), FakeLaunch(self.service))
        self.clock.advance(10)
        return self.service._registry._live[operation_id]

    def status(self, operation_id: str = "op") -> OperationStatus:
        """The state as a reader sees it."""
        return self.service.get_operation(operation_id).operation.status


def in_threads(count: int, work: Callable[[int], object]) -> list[BaseException]:
    """Run `work(0..count-1)` on threads at once; return what they raised, all joined."""
    raised: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(index: int) -> None:
        barrier.wait(10)
        try:
            work(index)
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            raised.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return raised


class Background:
    """One call on a thread of its own; `result()` joins it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._value: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # noqa: BLE001  # raised again by `result`
            self._error = error

    @property
    def running(self) -> bool:
        """Whether the call has not returned."""
        return self._thread.is_alive()

    def result(self, within: float = 10.0) -> object:
        """Join and return or raise what the call did."""
        self._thread.join(within)
        assert not self._thread.is_alive(), f"the call has not returned within {within} s"
        if self._error is not None:
            raise self._error
        return self._value
