from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from shared.operations.cancellation import CancelSignal
from shared.operations.worker_pool import Job, WorkerPool
from shared.rpc.errors import ProcessStoppingError, ResourceExhaustedError
from tests.support.eventually import eventually
from tests.unit.operations.fakes import in_threads


def pool(workers: int = 1, queue_limit: int = 2) -> WorkerPool:
    return WorkerPool("training", workers=workers, queue_limit=queue_limit)


def submit(to: WorkerPool, run: Callable[[], None], cancel: CancelSignal | None = None) -> None:
    to.reserve()
    to.submit(Job(run, cancel or CancelSignal()))


class Blocking:
    """A job that the test lets end."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.let_end = threading.Event()

    def __call__(self) -> None:
        self.running.set()
        assert self.let_end.wait(10)


def threads_of(name: str = "training") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


def test_a_job_runs_and_leaves_no_thread() -> None:
    workers, ran = pool(), threading.Event()
    submit(workers, ran.set)

    assert ran.wait(5)
    assert workers.join(5)
    eventually(lambda: threads_of() == [])
    assert set() == workers._threads


def test_an_idle_pool_has_no_thread() -> None:
    workers = pool(workers=4)
    workers.reserve()

    assert [] == threads_of()


def test_jobs_beyond_the_workers_queue_in_order() -> None:
    workers, block, ran = pool(), Blocking(), []
    submit(workers, block)
    assert block.running.wait(5)
    submit(workers, lambda: ran.append(1))
    submit(workers, lambda: ran.append(2))
    assert [] == ran
    block.let_end.set()

    assert workers.join(5)
    assert [1, 2] == ran


def test_a_full_pool_refuses_and_says_when_to_return() -> None:
    workers, block = pool(queue_limit=1), Blocking()
    submit(workers, block)
    workers.reserve()

    with pytest.raises(ResourceExhaustedError) as refusal:
        workers.reserve()

    assert ("WORKERS_BUSY", 5.0) == (refusal.value.reason, refusal.value.retry_after)
    workers.release()
    workers.reserve()
    block.let_end.set()
    assert workers.join(5)


def test_a_cancelled_job_in_the_queue_makes_room_and_never_runs() -> None:
    workers, block, cancel, ran = pool(queue_limit=1), Blocking(), CancelSignal(), []
    submit(workers, block)
    assert block.running.wait(5)
    submit(workers, lambda: ran.append("cancelled"), cancel)
    cancel.request()
    submit(workers, lambda: ran.append("next"))
    block.let_end.set()

    assert workers.join(5)
    assert ["next"] == ran


def test_a_job_cancelled_while_it_queues_is_dropped_by_the_worker() -> None:
    workers, block, cancel, ran = pool(), Blocking(), CancelSignal(), []
    submit(workers, block)
    submit(workers, lambda: ran.append("cancelled"), cancel)
    cancel.request()
    block.let_end.set()

    assert workers.join(5)
    assert [] == ran


def test_a_job_that_raises_does_not_stop_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    workers, block, ran = pool(), Blocking(), []

    def fail() -> None:
        block()
        raise SystemExit("of all things")

    submit(workers, fail)
    submit(workers, lambda: ran.append(1))
    with caplog.at_level(logging.ERROR, "ktrdr.workers"):
        block.let_end.set()
        assert workers.join(5)

    assert [1] == ran
    assert ["A training job raised"] == [each.message for each in caplog.records]


def test_a_closed_pool_refuses_as_a_stopping_process_does() -> None:
    workers = pool()
    workers.close()

    with pytest.raises(ProcessStoppingError):
        workers.reserve()


def test_a_place_reserved_before_the_close_is_refused_and_can_be_given_back() -> None:
    workers = pool()
    workers.reserve()
    workers.close()

    with pytest.raises(ProcessStoppingError):
        workers.submit(Job(lambda: None, CancelSignal()))
    workers.release()

    assert 0 == workers._reserved


def test_closing_forgets_the_queue_and_lets_running_jobs_end() -> None:
    workers, block, ran = pool(), Blocking(), []
    submit(workers, block)
    assert block.running.wait(5)
    submit(workers, lambda: ran.append(1))
    workers.close()

    assert not workers.join(0.0)
    block.let_end.set()
    assert workers.join(5)
    assert [] == ran


def test_a_thread_that_cannot_start_leaves_the_place_reserved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers, ran = pool(), []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers.reserve()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            workers.submit(Job(lambda: ran.append("lost"), CancelSignal()))
    workers.release()

    assert (0, 0, set()) == (workers._reserved, len(workers._queue), workers._threads)
    submit(workers, lambda: ran.append("next"))
    assert workers.join(5)
    assert ["next"] == ran


def test_no_job_is_lost_or_run_twice_and_no_more_run_at_once_than_allowed() -> None:
    workers = pool(workers=2, queue_limit=1000)
    lock = threading.Lock()
    ran: list[int] = []
    inside, most = [0], [0]

    def job(number: int) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            ran.append(number)
        with lock:
            inside[0] -= 1

    def hand_in(index: int) -> None:
        for number in range(100):
            submit(workers, lambda number=index * 100 + number: job(number))  # type: ignore[misc]  # bound now

    assert [] == in_threads(4, hand_in)
    assert workers.join(10)
    assert list(range(400)) == sorted(ran)
    assert most[0] <= 2
    assert 0 == workers._reserved
