"""StartTraining once, however often and concurrently it is asked for, or not at all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from shared.operations.starts import Launch, NewOperation
from shared.operations.views import OperationView
from shared.training.launcher import LocalTrainingLauncher, TrainingOrder
from shared.training.orchestrator import TrainingOrchestrator
from shared.training.result import TrainingResult
from tests.integration.refusals import refused
from tests.integration.running import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    PENDING,
    RUNNING,
    SMALL,
    RunningBackend,
    running_backend,
)
from tests.support.eventually import eventually
from tests.support.scripted_work import PATIENCE

QUICK = {"model.training.epochs": "1"}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts the trainings that really run."""
    runs: list[str] = []
    run = TrainingOrchestrator.run

    def counted(orchestrator: TrainingOrchestrator) -> TrainingResult:
        runs.append(threading.current_thread().name)
        return run(orchestrator)

    monkeypatch.setattr(TrainingOrchestrator, "run", counted)
    return runs


def _count(running: RunningBackend) -> int:
    listed = running.operations.ListOperations(pb.ListOperationsRequest())
    assert len(listed.operations) == listed.total_count
    return int(listed.total_count)


def test_identical_concurrent_starts_give_one_operation_and_one_training(
    tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = 8
    arrived: list[str] = []
    with running_backend(tmp_path, start_limit=callers) as running:
        operations, pool = running.backend.operations, running.pool
        start_operation, reserve = operations.start_operation, pool.reserve

        def note_arrival(new: NewOperation, launch: Launch, *, deadline: float) -> OperationView:
            arrived.append(new.operation_id)
            return start_operation(new, launch, deadline=deadline)

        def reserve_once_all_are_there() -> None:
            eventually(lambda: len(arrived) == callers)
            reserve()

        monkeypatch.setattr(operations, "start_operation", note_arrival)
        monkeypatch.setattr(pool, "reserve", reserve_once_all_are_there)
        with ThreadPoolExecutor(callers) as clients:
            starts = [
                clients.submit(running.train, request_id="same", seed=3, overrides=QUICK)
                for _ in range(callers)
            ]
            ids = {start.result(PATIENCE) for start in starts}
        assert {"op_training_same"} == ids
        assert COMPLETED == running.ended("op_training_same").status
        assert 1 == len(trainings)
        assert 1 == _count(running)


def test_a_start_that_fails_halfway_leaves_nothing_and_may_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(launcher: LocalTrainingLauncher, order: TrainingOrder, operation_id: str) -> None:
        raise MemoryError("no room for a thread")

    with running_backend(tmp_path, training_workers=1, training_queue=0) as running:
        with monkeypatch.context() as patch:
            patch.setattr(LocalTrainingLauncher, "begin", broken)
            refusal = refused(lambda: running.train(request_id="unlucky", overrides=QUICK))
        # A defect of ours: the client gets its name, the log the rest.
        assert grpc.StatusCode.INTERNAL == refusal.code
        assert refusal.metadata["incident"] in caplog.text
        assert "no room" not in refusal.message
        assert 0 == _count(running)
        operation_id = running.train(request_id="unlucky", overrides=QUICK)
        assert COMPLETED == running.ended(operation_id).status


def test_a_repeat_finds_the_operation_as_it_is_now(tmp_path: Path, trainings: list[str]) -> None:
    with running_backend(tmp_path) as running:
        operation_id = running.train(request_id="again", overrides=QUICK)
        end = running.ended(operation_id)
        request = training_pb.StartTrainingRequest(
            request_id="again", strategy_yaml=SMALL, overrides=QUICK
        )
        again = running.training.StartTraining(request)
        assert end == again.operation
        assert "again" == again.session_id
        assert 1 == len(trainings)


def test_a_request_that_says_the_same_in_other_words_is_the_same(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        first = running.train(request_id="same", overrides=QUICK)
        reworded = SMALL.replace("epochs: 10", "epochs: 1") + "\n# a comment\n"
        assert first == running.train(reworded, request_id="same")
        assert 1 == _count(running)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 4},
        {"symbols": ["GOOG"]},
        {"timeframes": ["1w"]},
        {"overrides": {"model.training.epochs": "2"}},
        {"start_time": {"seconds": 1_000_000_000}},
        {"end_time": {"seconds": 1_300_000_000}},
    ],
)
def test_a_request_id_cannot_be_used_for_another_request(
    running: RunningBackend, changed: dict[str, object]
) -> None:
    asked: dict[str, object] = {"request_id": "taken", "seed": 3, "overrides": QUICK}
    running.train(**asked)
    before = _count(running)
    refusal = refused(lambda: running.train(**{**asked, **changed}))
    assert grpc.StatusCode.ALREADY_EXISTS == refusal.code
    assert "REQUEST_ID_REUSED" == refusal.reason
    assert "ktrdr" == refusal.domain
    assert {"request_id": "taken", "operation_id": "op_training_taken"} == dict(refusal.metadata)
    assert before == _count(running)


def test_starts_without_a_request_id_are_different_trainings(running: RunningBackend) -> None:
    first, second = running.train(overrides=QUICK), running.train(overrides=QUICK)
    assert first != second


def test_a_start_that_finds_no_worker_is_told_when_to_come_back_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    with running_backend(tmp_path, training_workers=1, training_queue=1) as running:
        work = running.scripted.start_running()
        queued = running.train(request_id="queued", overrides=QUICK)
        assert PENDING == running.operation(queued).status

        refusal = refused(lambda: running.train(request_id="late", overrides=QUICK))
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == refusal.code
        assert "WORKERS_BUSY" == refusal.reason
        assert refusal.retry_after
        assert {"workers": "1", "queued": "1"} == dict(refusal.metadata)
        assert 2 == _count(running)
        unknown = refused(lambda: running.operation("op_training_late"))
        assert grpc.StatusCode.NOT_FOUND == unknown.code

        # A known request needs no room; a refused one may come again, even changed.
        assert queued == running.train(request_id="queued", overrides=QUICK)
        work.finish()
        running.ended(work.operation_id)
        late = running.train(request_id="late", seed=9, overrides=QUICK)
        assert COMPLETED == running.ended(queued).status
        assert COMPLETED == running.ended(late).status


def test_many_starts_at_once_take_no_more_than_the_places_there_are(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=1, training_queue=2, start_limit=12) as running:
        work = running.scripted.start_running()

        def start(n: int) -> str:
            try:
                return running.train(request_id=f"n{n}", overrides=QUICK)
            except grpc.RpcError:
                return ""

        with ThreadPoolExecutor(12) as clients:
            accepted = [answer for answer in clients.map(start, range(12)) if answer]
        assert 2 == len(accepted)
        assert 3 == _count(running)
        work.finish()
        assert {COMPLETED} == {running.ended(operation_id).status for operation_id in accepted}


def test_queued_trainings_run_in_the_order_they_came(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=1, training_queue=3) as running:
        work = running.scripted.start_running()
        ids = [running.train(overrides=QUICK) for _ in range(3)]
        assert {PENDING} == {running.operation(operation_id).status for operation_id in ids}
        assert RUNNING == running.operation(work.operation_id).status
        work.finish()
        begun = [running.ended(operation_id).start_time.ToDatetime() for operation_id in ids]
        assert sorted(begun) == begun


def test_a_start_cut_short_by_its_deadline_can_be_repeated(
    tmp_path: Path, trainings: list[str]
) -> None:
    with running_backend(tmp_path) as running:
        request = training_pb.StartTrainingRequest(
            request_id="hasty", strategy_yaml=SMALL, overrides=QUICK
        )
        for timeout in (1e-4, 1e-3, 5e-3, 5.0):
            call = running.training.StartTraining.future(request, timeout=timeout)
            assert call.exception() is None or call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert COMPLETED == running.ended("op_training_hasty").status
        assert 1 == len(trainings)


def test_a_cancel_that_overtakes_its_start_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = LocalTrainingLauncher.begin
    cancels: list[grpc.Future[pb.CancelOperationResponse]] = []
    with running_backend(tmp_path) as running:

        def overtaken(
            launcher: LocalTrainingLauncher, order: TrainingOrder, operation_id: str
        ) -> None:
            request = pb.CancelOperationRequest(operation_id=operation_id, reason="never mind")
            cancels.append(running.operations.CancelOperation.future(request))
            begin(launcher, order, operation_id)

        monkeypatch.setattr(LocalTrainingLauncher, "begin", overtaken)
        operation_id = running.train(overrides={"model.training.epochs": "10000"})
        (cancel,) = cancels
        assert cancel.result(PATIENCE).operation.status in {CANCELLING, CANCELLED}
        end = running.ended(operation_id)
        assert CANCELLED == end.status
        assert "never mind" == end.cancel_reason
        eventually(lambda: not running.pool._threads)
        assert 0 == running.pool._reserved
