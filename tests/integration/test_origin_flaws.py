"""What went wrong the first time this was built, flaw by flaw: one test that would have shown it.

The numbers are those of the list that was made of them. What is about another
process goes over real sockets.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import grpc
import pytest
from grpc import StatusCode

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1 import training_service_pb2 as training_pb
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub
from shared.operations.model import OperationStatus, PackedResult
from shared.operations.store import OperationFilter
from shared.rpc.errors import UnavailableError
from tests.integration.hosted import Hosted, backend_on, host_id, hosted, let_end, restarted
from tests.integration.refusals import outcome_of, refused
from tests.integration.running import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    SMALL,
    RunningBackend,
    result_of,
    running_backend,
)
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.relay import Relay
from tests.support.scripted_work import PATIENCE

_EVERYTHING = OperationFilter()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Hosted]:
    """A backend and its host; every look asks the host."""
    with hosted(tmp_path) as pair:
        yield pair


@pytest.fixture
def local(tmp_path: Path) -> Iterator[RunningBackend]:
    """A backend that does the work itself, on two workers."""
    with running_backend(tmp_path, training_workers=2, training_queue=2) as local:
        yield local


def _on_host(pair: Hosted, operation_id: str) -> operation_pb2.Operation:
    """The operation as its host tells it."""
    with grpc.insecure_channel(pair.host.address) as channel:
        request = pb.GetOperationRequest(operation_id=host_id(operation_id), force_refresh=True)
        operation: operation_pb2.Operation = (
            OperationsServiceStub(channel).GetOperation(request).operation
        )
        return operation


# ------------------------------------------------------------------ remote pull


def test_flaw_01_metrics_read_in_deltas_arrive_flat_and_each_once(pair: Hosted) -> None:
    operation_id, work = pair.training(3)
    cursor, steps = 0, []
    for reported in range(4, 8):
        answer = pair.running.get(operation_id, metrics_cursor=cursor)
        steps += [metric.step for metric in answer.metrics]
        assert cursor + len(answer.metrics) == answer.new_cursor
        cursor = answer.new_cursor
        work.report_epochs(1, first=reported - 1)
    assert [1, 2, 3, 4, 5, 6] == steps
    page = pair.running.operations.GetMetrics(
        pb.GetMetricsRequest(operation_id=operation_id, cursor=cursor)
    )
    assert ([7], 7) == ([metric.step for metric in page.metrics], page.new_cursor)
    assert {"train_loss", "val_loss"} == set(page.metrics[0].values)


def test_flaw_02_an_end_is_not_shown_before_the_last_of_its_metrics(pair: Hosted) -> None:
    operation_id, work = pair.training(1)
    work.report_epochs(1500, first=1)
    work.finish()
    let_end(pair.host)
    pages = pair.host.calls["GetOperation"]

    def lose_the_second_page(method: str) -> None:
        if pair.host.calls["GetOperation"] == pages + 2:
            raise UnavailableError("The second page is lost.")

    pair.host.servicer.before = lose_the_second_page
    partly = pair.look(operation_id).operation
    assert RUNNING == partly.status
    assert partly.freshness.HasField("refresh_error")
    assert not partly.HasField("end_time")
    whole = pair.running.operation(operation_id)
    assert (COMPLETED, 1501) == (whole.status, whole.metrics_count)


@pytest.mark.parametrize("ends", ["completed", "failed"])
def test_flaw_03_the_outcome_and_the_time_of_the_end_are_the_hosts(pair: Hosted, ends: str) -> None:
    operation_id, work = pair.training(1)
    if ends == "completed":
        work.finish()
    else:
        work.fail(UnavailableError("No bars today.", reason="NO_BARS"))
    let_end(pair.host)
    here, there = pair.running.operation(operation_id), _on_host(pair, operation_id)
    assert there.status == here.status
    assert there.end_time == here.end_time
    assert (there.result, there.error) == (here.result, here.error)
    assert here == pair.running.operation(operation_id)  # its duration grows no more


def test_flaw_04_a_training_that_queues_on_its_host_is_seen_to_begin(tmp_path: Path) -> None:
    with hosted(tmp_path, workers=1) as pair:
        _, first = pair.training(1)
        queued = pair.running.train()
        for _ in range(3):
            assert PENDING == pair.running.operation(queued).status
        first.finish()
        pair.host.work(queued).report_epochs(2)
        assert RUNNING == pair.running.operation(queued).status
        assert [1, 2] == pair.epochs(queued)


def test_flaw_05_a_forced_read_reaches_the_worker_and_brings_its_context(tmp_path: Path) -> None:
    with hosted(tmp_path, cache_ttl=60.0) as pair:  # of the backend; the host's is a second
        operation_id, work = pair.training(1)
        for epoch in range(1, 6):
            work.report_epochs(1, first=epoch)
            here = pair.running.operation(operation_id)
            assert epoch + 1 == here.progress.current_step
        work.step(lambda bridge: bridge.on_symbol_processing("IBM", 1, 1, "loading_data"))
        here, there = pair.running.operation(operation_id), _on_host(pair, operation_id)
        assert there.progress.context
        assert there.progress.context == here.progress.context


def test_flaw_06_a_read_that_failed_is_not_repeated_by_every_poll(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "host") as host,
        backend_on(tmp_path, host.address, cache_ttl=60.0) as running,
    ):
        operation_id = running.train()
        host.work(operation_id)

        def fail(method: str) -> None:
            raise UnavailableError("Not now.")

        host.servicer.before = fail
        asked = host.calls["GetOperation"]
        refused(lambda: running.operation(operation_id))
        bounded = pb.GetOperationRequest(operation_id=operation_id)
        bounded.max_staleness.FromMicroseconds(1)
        for _ in range(20):
            assert (
                StatusCode.UNAVAILABLE
                == refused(lambda: running.operations.GetOperation(bounded)).code
            )
        assert asked + 1 == host.calls["GetOperation"]
        let_end(host)


def test_flaw_06_what_a_restarted_host_does_not_know_is_not_running_for_ever(
    pair: Hosted, tmp_path: Path
) -> None:
    operation_id, _ = pair.training(1)
    with restarted(pair.host, tmp_path):
        lost = pair.running.operation(operation_id)
    assert (FAILED, "OPERATION_LOST") == (lost.status, lost.error.reason)


def test_flaw_06_a_backend_that_stops_closes_its_connections(tmp_path: Path) -> None:
    with scripted_host(tmp_path) as host, closing(Relay(host.address)) as relay:
        with backend_on(tmp_path, relay.address) as running:
            running.train()
            assert any(each.fileno() >= 0 for each in relay._open)
        eventually(lambda: all(each.fileno() < 0 for each in relay._open))
        let_end(host)


def test_flaw_07_a_start_whose_answer_is_lost_starts_one_training(pair: Hosted) -> None:
    def lose_the_answer() -> None:
        pair.host.before_start = lambda: None
        pair.relay.cut()
        pair.relay.restore()

    pair.host.before_start = lose_the_answer
    operation_id = pair.running.train(request_id="abc")
    pair.host.work(operation_id)
    assert operation_id == pair.running.train(request_id="abc")
    assert RUNNING == pair.running.operation(operation_id).status
    assert [host_id(operation_id)] == list(pair.host.works)
    assert 1 == pair.host.operations.list_operations(_EVERYTHING, None, 10).total_count


def test_flaw_08_there_is_one_way_to_the_host_and_one_scale(pair: Hosted) -> None:
    operation_id, work = pair.training(1)
    before = pair.host.calls.copy()
    for epoch in range(1, 9):
        work.report_epochs(1, first=epoch)
        told = work.bridge.snapshot().progress
        assert told is not None
        assert told.percentage == pair.running.operation(operation_id).progress.percentage
    assert {"GetOperation": 8} == dict(pair.host.calls - before)


# -------------------------------------------------------------- locks and races


def test_flaw_09_a_host_that_stands_still_holds_up_no_other_operation(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "still") as still,
        scripted_host(tmp_path / "well") as well,
        closing(Relay(still.address)) as relay,
        backend_on(tmp_path, relay.address, well.address, cache_ttl=0.0) as running,
        ThreadPoolExecutor(2) as clients,
    ):
        stuck, free = running.train(request_id="stuck"), running.train(request_id="free")
        still.work(stuck)
        work = well.work(free)
        relay.freeze()
        reading = clients.submit(outcome_of, lambda: running.operation(stuck))
        cancelling = clients.submit(outcome_of, lambda: running.cancel(stuck))
        eventually(lambda: running.backend.operations._registry._live[stuck].flight is not None)
        work.report_epochs(2)
        assert [1, 2] == running.epochs(free)
        assert CANCELLING == running.cancel(free).status
        work.notice_cancel()
        assert CANCELLED == running.ended(free).status
        assert not reading.done()
        assert not cancelling.done()
        relay.thaw()
        assert {StatusCode.OK} == {reading.result(PATIENCE), cancelling.result(PATIENCE)}
        let_end(still, well)


def test_flaw_10_trainings_that_run_together_have_signals_of_their_own(
    local: RunningBackend,
) -> None:
    first, second = local.scripted.start_running(), local.scripted.start_running()
    local.cancel(first.operation_id)
    second.notice_cancel()
    second.report_epochs(1)
    assert RUNNING == local.operation(second.operation_id).status
    first.notice_cancel()
    assert CANCELLED == local.ended(first.operation_id).status
    second.finish()
    assert COMPLETED == local.ended(second.operation_id).status


def test_flaw_11_an_end_stands_whatever_comes_after(local: RunningBackend) -> None:
    work = local.scripted.start_running()
    local.cancel(work.operation_id)
    work.fail(RuntimeError("broken on its way out"))
    cancelled = local.ended(work.operation_id)
    assert CANCELLED == cancelled.status  # not FAILED

    operations = local.backend.operations
    late = PackedResult("type.googleapis.com/ktrdr.training.v1.TrainingResult", b"")
    assert not operations.complete_operation(work.operation_id, late)
    assert not operations.fail_operation(work.operation_id, RuntimeError("late"))
    assert not operations.begin_operation(work.operation_id)
    assert cancelled == local.operation(work.operation_id)


def test_flaw_12_a_cancellation_before_the_worker_came_is_not_forgotten(
    local: RunningBackend,
) -> None:
    running = [local.scripted.start_running() for _ in range(2)]
    queued = local.scripted.start()
    assert CANCELLED == local.cancel(queued.operation_id).status
    for work in running:
        work.finish()
        local.ended(work.operation_id)
    last = local.scripted.start_running()  # came after it in the queue
    assert CANCELLED == local.operation(queued.operation_id).status
    assert not local.operation(queued.operation_id).HasField("start_time")
    last.finish()
    local.ended(last.operation_id)
    assert not local.backend.operations._registry._live  # no signal, bridge or cursor is kept


def test_flaw_13_when_the_worker_has_gone_the_end_is_on_record(local: RunningBackend) -> None:
    works = [local.scripted.start_running() for _ in range(2)]
    works[0].report_epochs(3)
    works[0].finish()
    works[1].fail(UnavailableError("No bars today.", reason="NO_BARS"))
    assert local.pool.join(PATIENCE)
    records = [local.backend.operations._store.get(work.operation_id) for work in works]
    ended = [record.operation for record in records if record is not None]
    assert [OperationStatus.COMPLETED, OperationStatus.FAILED] == [each.status for each in ended]
    assert [3, 0] == [each.metrics_count for each in ended]


class SetBack:
    """A clock whose wall can be set, as of a machine that is; monotonic time goes on."""

    def __init__(self) -> None:
        self.wrong_by = timedelta()

    def monotonic(self) -> float:
        """Seconds, never set."""
        return monotonic()

    def now(self) -> datetime:
        """What the wall clock says."""
        return datetime.now(UTC) + self.wrong_by


@pytest.mark.parametrize("days", [-1, 1])
def test_flaw_14_a_wall_clock_that_is_set_makes_no_answer_older_or_younger(
    tmp_path: Path, days: int
) -> None:
    clock = SetBack()
    with running_backend(tmp_path, cache_ttl=60.0, clock=clock) as local:
        work = local.scripted.start_running()
        local.operation(work.operation_id)
        work.report_epochs(1)
        clock.wrong_by = timedelta(days=days)
        request = pb.GetOperationRequest(operation_id=work.operation_id)
        freshness = local.operations.GetOperation(request).operation.freshness
        assert freshness.cached  # still within its time to live
        assert 0 <= freshness.age.ToTimedelta().total_seconds() < 60
        request.force_refresh = True
        fresh = local.operations.GetOperation(request).operation
        assert (1, False) == (fresh.metrics_count, fresh.freshness.cached)


# ------------------------------------------------------- cancellation on the host


def test_flaw_15_a_cancellation_travels_to_the_host_and_stops_the_work(pair: Hosted) -> None:
    operation_id, work = pair.training(2)
    assert CANCELLING == pair.running.cancel(operation_id, "enough").status
    there = _on_host(pair, operation_id)
    assert (CANCELLING, "enough") == (there.status, there.cancel_reason)
    work.notice_cancel()
    assert CANCELLED == pair.running.ended(operation_id).status
    assert operation_id == pair.running.operation(operation_id).metadata["session_id"]


def test_flaw_16_what_is_cancelled_ends_cancelled_on_host_and_backend_alike(
    tmp_path: Path,
) -> None:
    with hosted(tmp_path, workers=1) as pair:
        running, work = pair.training(1)
        queued = pair.running.train()
        assert CANCELLED == pair.running.cancel(queued).status
        pair.running.cancel(running)
        work.fail(RuntimeError("broken on its way out"))
        assert CANCELLED == pair.running.ended(running).status
        for operation_id in (running, queued):
            assert CANCELLED == _on_host(pair, operation_id).status
        eventually(lambda: not pair.host.pool._threads)


def test_flaw_17_starts_that_come_together_get_as_many_places_as_there_are(
    tmp_path: Path,
) -> None:
    with scripted_host(tmp_path, workers=2, queue_limit=1) as host:
        together = threading.Barrier(8)
        outcomes = _start_at_once(host, together)
        assert 3 == outcomes.count(StatusCode.OK)
        assert 5 == outcomes.count(StatusCode.RESOURCE_EXHAUSTED)
        let_end(host)


def _start_at_once(host: ScriptedHost, together: threading.Barrier) -> list[StatusCode]:
    """How as many different starts end as the barrier lets pass at once."""

    def start(number: int) -> StatusCode:
        with grpc.insecure_channel(host.address) as channel:
            stub = TrainingServiceStub(channel)
            request = training_pb.StartTrainingRequest(
                strategy_yaml=SMALL, request_id=f"number-{number}"
            )
            together.wait(PATIENCE)
            return outcome_of(lambda: stub.StartTraining(request, timeout=PATIENCE))

    with ThreadPoolExecutor(together.parties) as clients:
        return list(clients.map(start, range(together.parties)))


# ------------------------------------------------------------------ bookkeeping


def test_flaw_18_what_was_measured_before_a_failure_is_kept_unread(pair: Hosted) -> None:
    operation_id, work = pair.training(1)
    work.report_epochs(3, first=1)
    work.fail(UnavailableError("No bars today.", reason="NO_BARS"))
    assert FAILED == pair.running.ended(operation_id).status
    assert [1, 2, 3, 4] == pair.epochs(operation_id)


def test_flaw_18_what_was_measured_before_a_stop_is_kept_unread(pair: Hosted) -> None:
    operation_id, work = pair.training(0)
    pair.running.cancel(operation_id)
    work.report_epochs_deaf(2)
    work.notice_cancel()
    assert CANCELLED == pair.running.ended(operation_id).status
    assert [1, 2] == pair.epochs(operation_id)


def test_flaw_18_the_best_epoch_is_told_by_pulling_alone(local: RunningBackend) -> None:
    operation_id = local.train(seed=3, overrides={"model.training.epochs": "4"})
    ended = local.ended(operation_id)
    assert COMPLETED == ended.status
    metrics = local.get(operation_id, metrics_cursor=0).metrics
    best = min(metrics, key=lambda metric: metric.values["val_loss"])
    assert 4 == len(metrics)
    assert best.step == result_of(ended).best_epoch
