"""Cancelling over the wire, in every phase of a training and in every state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ktrdr.operations.v1 import operation_pb2
from ktrdr.training.v1 import models_service_pb2 as models_pb
from shared.training.bridge import TrainingProgressBridge
from tests.integration.refusals import refused
from tests.integration.running import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    RunningBackend,
    running_backend,
)
from tests.support.eventually import eventually
from tests.support.scripted_work import PATIENCE, ScriptedWork


class Hold:
    """Keeps a training's worker at one report until the test lets it go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._reached = threading.Event()
        self._released = threading.Event()

    def at(self, method: str, first_argument: object) -> None:
        """Hold at the report with this first argument, once it is recorded."""
        report = getattr(TrainingProgressBridge, method)

        def held(
            bridge: TrainingProgressBridge, first: object, *rest: object, **more: object
        ) -> None:
            report(bridge, first, *rest, **more)
            if first == first_argument:
                self._reached.set()
                assert self._released.wait(PATIENCE)

        self._patch.setattr(TrainingProgressBridge, method, held)

    def reached(self) -> None:
        """Wait until the worker is held."""
        assert self._reached.wait(PATIENCE)

    def release(self) -> None:
        """Let the worker go on."""
        self._released.set()


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    hold = Hold(monkeypatch)
    yield hold
    hold.release()


@pytest.fixture
def work(running: RunningBackend) -> Iterator[ScriptedWork]:
    """Work that runs until the test has ended."""
    work = running.scripted.start_running()
    yield work
    work.finish()


def _models(running: RunningBackend) -> list[str]:
    listed = running.models.ListModels(models_pb.ListModelsRequest())
    return [model.name for model in listed.models]


PHASES = [
    ("preprocessing", "on_phase", "preprocessing"),
    ("preprocessing", "on_symbol_processing", "IBM"),
    ("preparation", "on_preparation_phase", "splitting_data"),
    ("preparation", "on_preparation_phase", "creating_model"),
    ("training", "on_phase", "training"),
    ("evaluation", "on_phase", "evaluation"),
    ("saving", "on_phase", "saving"),
]


@pytest.mark.parametrize(("phase", "method", "argument"), PHASES)
def test_a_training_cancelled_in_any_phase_ends_cancelled_and_leaves_no_model(
    running: RunningBackend, hold: Hold, phase: str, method: str, argument: str
) -> None:
    hold.at(method, argument)
    operation_id = running.train(seed=1, overrides={"model.training.epochs": "2"})
    hold.reached()
    assert phase == running.operation(operation_id).progress.phase

    answer = running.cancel(operation_id, "enough")
    assert CANCELLING == answer.status
    assert CANCELLING == running.operation(operation_id).status
    hold.release()

    end = running.ended(operation_id)
    assert CANCELLED == end.status
    assert "enough" == end.cancel_reason
    assert end.HasField("cancel_time")
    assert end.HasField("end_time")
    assert "CANCELLED" == end.error.reason
    assert grpc.StatusCode.CANCELLED.value[0] == end.error.code
    assert "cancelled" == end.progress.phase
    assert not end.HasField("liveness")
    assert [] == _models(running)
    assert [] == list(running.home.glob("models/*/*"))


def test_cancelling_takes_effect_within_a_batch(running: RunningBackend, hold: Hold) -> None:
    hold.at("on_epoch", 2)
    operation_id = running.train(seed=1)
    hold.reached()
    running.cancel(operation_id)
    hold.release()
    assert CANCELLED == running.ended(operation_id).status
    assert [1, 2, 3] == running.epochs(operation_id)


def test_cancelling_between_batches_adds_no_epoch(running: RunningBackend, hold: Hold) -> None:
    hold.at("on_batch", 1)
    operation_id = running.train(seed=1)
    hold.reached()
    running.cancel(operation_id)
    hold.release()
    end = running.ended(operation_id)
    assert CANCELLED == end.status
    assert [1] == running.epochs(operation_id)


def test_what_waits_in_the_queue_is_cancelled_at_once(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=1, training_queue=1) as running:
        running.scripted.start_running()
        waiting = running.scripted.start()
        assert PENDING == running.operation(waiting.operation_id).status

        end = running.cancel(waiting.operation_id, "changed my mind")
        assert CANCELLED == end.status
        assert "changed my mind" == end.cancel_reason
        assert not end.HasField("start_time")
        replacement = running.scripted.start()  # its place in the queue is free again
        assert PENDING == running.operation(replacement.operation_id).status


def test_an_operation_is_cancelling_until_its_worker_has_stopped(
    running: RunningBackend, work: ScriptedWork
) -> None:
    assert CANCELLING == running.cancel(work.operation_id).status
    work.report_epochs_deaf(2)
    seen = running.operation(work.operation_id)
    assert CANCELLING == seen.status
    assert seen.liveness.worker_alive
    assert 2 == seen.metrics_count
    work.notice_cancel()
    end = running.ended(work.operation_id)
    assert CANCELLED == end.status
    assert 2 == end.metrics_count


def test_a_repeated_cancel_keeps_the_first_reason_and_time(
    running: RunningBackend, work: ScriptedWork
) -> None:
    first = running.cancel(work.operation_id, "first")
    second = running.cancel(work.operation_id, "second")
    assert CANCELLING == second.status
    assert "first" == second.cancel_reason
    assert first.cancel_time == second.cancel_time


def test_a_result_that_comes_while_cancelling_wins(
    running: RunningBackend, work: ScriptedWork
) -> None:
    running.cancel(work.operation_id, "too late")
    work.finish()
    end = running.ended(work.operation_id)
    assert COMPLETED == end.status
    assert "too late" == end.cancel_reason


def test_an_error_while_cancelling_ends_cancelled_and_names_its_cause(
    running: RunningBackend, work: ScriptedWork
) -> None:
    running.cancel(work.operation_id)
    work.fail(ValueError("a part came loose"))
    end = running.ended(work.operation_id)
    assert CANCELLED == end.status
    assert "WORKER_RAISED" == end.error.metadata["cause_reason"]
    assert "a part came loose" in end.error.metadata["cause_message"]


@pytest.mark.parametrize("ending", ["COMPLETED", "FAILED", "CANCELLED"])
def test_cancelling_what_has_ended_is_ok_and_changes_nothing(
    running: RunningBackend, work: ScriptedWork, ending: str
) -> None:
    if ending == "CANCELLED":
        running.cancel(work.operation_id, "first")
        work.notice_cancel()
    elif ending == "FAILED":
        work.fail(ValueError("broken"))
    else:
        work.finish()
    before = running.ended(work.operation_id)
    assert operation_pb2.OperationStatus.Value(f"OPERATION_STATUS_{ending}") == before.status
    assert before == running.cancel(work.operation_id, "again")
    assert before == running.operation(work.operation_id)


def test_concurrent_cancels_all_succeed_and_agree(
    running: RunningBackend, work: ScriptedWork
) -> None:
    barrier = threading.Barrier(6)
    answers: list[operation_pb2.Operation] = []

    def cancel(reason: str) -> None:
        barrier.wait(PATIENCE)
        answers.append(running.cancel(work.operation_id, reason))

    clients = [threading.Thread(target=cancel, args=(f"client {n}",)) for n in range(6)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(PATIENCE)
    final = running.operation(work.operation_id)
    assert 6 == len(answers)
    assert {CANCELLING} == {answer.status for answer in answers if answer.cancel_reason}
    assert {final.cancel_reason} == {answer.cancel_reason for answer in answers} - {""}


def test_the_worker_is_free_again_after_a_cancel(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=1, training_queue=0) as running:
        work = running.scripted.start_running()
        running.cancel(work.operation_id)
        work.notice_cancel()
        running.ended(work.operation_id)
        eventually(lambda: not running.pool._threads)
        after = running.scripted.start_running()
        assert RUNNING == running.operation(after.operation_id).status


def test_an_unknown_operation_cannot_be_cancelled(running: RunningBackend) -> None:
    refusal = refused(lambda: running.cancel("op_training_nobody"))
    assert grpc.StatusCode.NOT_FOUND == refusal.code
    assert "OPERATION_NOT_FOUND" == refusal.reason


def test_a_failed_status_is_never_a_cancelled_one(
    running: RunningBackend, work: ScriptedWork
) -> None:
    work.fail(ValueError("broken"))
    end = running.ended(work.operation_id)
    assert FAILED == end.status
    assert not end.HasField("cancel_time")
    assert "" == end.cancel_reason
