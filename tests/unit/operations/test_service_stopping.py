from __future__ import annotations

import threading

import pytest

from shared.operations.bridge import ProgressBridge
from shared.operations.model import OperationStatus
from shared.operations.worker_pool import Job, WorkerPool
from shared.rpc.errors import OperationCancelledError, ProcessStoppingError
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import (
    RESULT,
    Background,
    FakeLaunch,
    Setup,
    Worker,
    metric,
    new_operation,
    operation,
    steps,
)

S = OperationStatus


@pytest.fixture
def setup() -> Setup:
    return Setup()


def reason_of(setup: Setup, operation_id: str = "op") -> str:
    error = setup.service.get_operation(operation_id).operation.error
    assert error is not None
    return error.reason


def test_a_worker_is_told_and_its_operation_ends_process_stopped(setup: Setup) -> None:
    worker = setup.running()
    setup.service.refuse_starts()
    setup.service.interrupt_work()
    with pytest.raises(OperationCancelledError, match="stopping") as told:
        worker.report(1, "")
    setup.service.fail_operation("op", told.value)

    assert (S.FAILED, "PROCESS_STOPPED") == (setup.status(), reason_of(setup))


def test_work_that_finishes_while_the_process_stops_keeps_its_result(setup: Setup) -> None:
    setup.running()
    setup.service.refuse_starts()
    setup.service.complete_operation("op", RESULT)
    setup.service.interrupt_work()
    setup.service.end_unfinished()

    assert S.COMPLETED is setup.status()


def test_what_does_not_stop_ends_process_stopped_with_what_it_had(setup: Setup) -> None:
    worker = setup.running()
    worker.measure(1, 2)
    setup.pending("queued")
    setup.service.refuse_starts()
    setup.service.end_unfinished()

    view = setup.service.get_operation("op", metrics_limit=10)
    assert (S.FAILED, [1, 2]) == (view.operation.status, steps(view.metrics))
    assert ["PROCESS_STOPPED"] * 2 == [reason_of(setup), reason_of(setup, "queued")]
    assert not setup.service.complete_operation("op", RESULT)


def test_what_was_being_cancelled_ends_cancelled(setup: Setup) -> None:
    setup.running()
    setup.service.cancel_operation("op")
    setup.service.refuse_starts()
    setup.service.end_unfinished()

    assert S.CANCELLED is setup.status()


def test_work_elsewhere_goes_on(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING), log=[metric(1)])
    setup.remote(source)
    setup.service.refuse_starts()
    setup.service.interrupt_work()
    setup.service.end_unfinished()

    assert S.RUNNING is setup.status()
    assert [] == source.cancels


def test_an_end_that_could_not_be_stored_is_tried_once_more(setup: Setup) -> None:
    setup.running()
    setup.store.away = True
    setup.service.complete_operation("op", RESULT)
    setup.store.away = False
    setup.service.refuse_starts()
    setup.service.end_unfinished()

    kept = setup.store.get("op")
    assert kept is not None
    assert (S.COMPLETED, RESULT) == (kept.operation.status, kept.operation.result)


def test_a_store_that_is_away_does_not_keep_the_process(setup: Setup) -> None:
    setup.running("a")
    setup.running("b")
    setup.store.away = True
    setup.service.end_unfinished()

    assert 2 == setup.store.finishes


def test_operations_that_end_while_the_process_stops_do_not_disturb_it() -> None:
    for _ in range(100):
        setup = Setup()
        for name in "abc":
            setup.running(name)
        ending = Background(
            lambda setup=setup: [setup.service.complete_operation(name, RESULT) for name in "abc"]  # type: ignore[misc]  # bound now
        )
        setup.service.refuse_starts()
        setup.service.interrupt_work()
        setup.service.end_unfinished()
        ending.result()
        assert all(setup.status(name).terminal for name in "abc")
        assert {} == setup.service._registry._live


class PoolLaunch(FakeLaunch):
    """A launch as the real one: a place in the pool, then a job."""

    def __init__(self, setup: Setup, pool: WorkerPool, work: threading.Event) -> None:
        super().__init__(setup.service)
        self._pool = pool
        self._work = work
        self.worker = Worker()

    def reserve(self) -> None:
        """Take a place."""
        self._pool.reserve()

    def release(self) -> None:
        """Give it back."""
        self._pool.release()

    def begin(self, operation_id: str) -> None:
        """Register the bridge and hand in the job."""
        self.service.register_local_bridge(operation_id, self.worker.bridge)
        self._pool.submit(Job(lambda: self._run(operation_id), self.worker.bridge.cancel))

    def _run(self, operation_id: str) -> None:
        def work() -> object:
            while not self._work.wait(0.005):
                self.worker.report(1, "working")
            return RESULT

        self.service.run_operation(operation_id, work)  # type: ignore[arg-type]  # it returns RESULT


def test_a_process_stops_in_order(setup: Setup) -> None:
    pool = WorkerPool("stopping", workers=1, queue_limit=2)
    never = threading.Event()
    for name in "ab":
        setup.service.start_operation(new_operation(name), PoolLaunch(setup, pool, never))
    setup.service.refuse_starts()
    pool.close()
    assert not pool.join(0.0)
    setup.service.interrupt_work()
    assert pool.join(5)
    setup.service.end_unfinished()

    assert ["PROCESS_STOPPED"] * 2 == [reason_of(setup, name) for name in "ab"]
    assert {} == setup.service._registry._live
    assert not [each for each in threading.enumerate() if each.name.startswith("stopping-")]


def test_a_start_that_meets_a_closed_pool_leaves_nothing(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = WorkerPool("late", workers=1, queue_limit=0)
    launch = PoolLaunch(setup, pool, threading.Event())
    register = setup.service.register_local_bridge

    def register_and_close(operation_id: str, bridge: ProgressBridge) -> None:
        register(operation_id, bridge)
        pool.close()

    monkeypatch.setattr(setup.service, "register_local_bridge", register_and_close)

    with pytest.raises(ProcessStoppingError):
        setup.service.start_operation(new_operation(), launch)

    assert (0, {}) == (pool._reserved, setup.service._registry._live)
    assert setup.store.get("op") is None
