"""Work that fails: the operation says why and keeps what it had; the call itself is OK."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import models_service_pb2 as models_pb
from shared.rpc.errors import Code, FailedPreconditionError
from shared.training.model_store import ModelStore
from tests.integration.running import COMPLETED, FAILED, RunningBackend, running_backend
from tests.support.scripted_work import FIGURES

DIVERGING = {
    "model.training.optimizer": "sgd",
    "model.training.learning_rate": "10",
    "model.training.weight_decay": "1",
    "model.features.scale_features": "false",
}


def test_work_that_raises_ends_failed_with_its_words_and_keeps_its_metrics(
    running: RunningBackend, caplog: pytest.LogCaptureFixture
) -> None:
    work = running.scripted.start_running()
    work.report_epochs(3)
    work.fail(ValueError("the bar has no close"))
    end = running.ended(work.operation_id)
    assert FAILED == end.status
    assert "error" == end.WhichOneof("outcome")
    assert Code.INTERNAL == end.error.code
    assert "WORKER_RAISED" == end.error.reason
    assert "ValueError: the bar has no close" in end.error.message
    assert {"exception": "ValueError"} == dict(end.error.metadata)
    assert not end.error.retryable
    assert [1, 2, 3] == running.epochs(work.operation_id)
    assert "the bar has no close" in caplog.text  # with its trace, for whoever mends it


def test_an_error_of_the_domain_keeps_its_code_reason_and_facts(running: RunningBackend) -> None:
    work = running.scripted.start_running()
    work.fail(FailedPreconditionError("Too dry.", reason="NO_WATER", metadata={"litres": "0"}))
    error = running.ended(work.operation_id).error
    assert Code.FAILED_PRECONDITION == error.code
    assert "NO_WATER" == error.reason
    assert "Too dry." == error.message
    assert {"litres": "0"} == dict(error.metadata)


@pytest.mark.parametrize(
    "words", ["x" * 5_000_000, "a name of \udcff\udcfe bytes", "漢" * 2_000_000]
)
def test_whatever_work_raises_its_operation_can_still_be_read_and_listed(
    running: RunningBackend, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    caplog.set_level(logging.CRITICAL, "ktrdr")  # a report with half a character cannot be sent
    work = running.scripted.start_running()
    work.fail(OSError(words))
    error = running.ended(work.operation_id).error
    assert "WORKER_RAISED" == error.reason
    assert error.message.startswith(f"The work failed with OSError: {words[:6]}")
    assert len(error.message) < 5000
    listed = running.operations.ListOperations(pb.ListOperationsRequest())
    assert work.operation_id == listed.operations[0].operation_id


@pytest.mark.parametrize("epoch", [10**30, "first"], ids=["beyond 64 bits", "a text"])
def test_a_report_that_no_answer_could_hold_harms_only_what_is_new_of_its_operation(
    tmp_path: Path, epoch: int
) -> None:
    with running_backend(tmp_path, training_workers=2, cache_ttl=0.0) as running:
        good, bad = running.scripted.start_running(), running.scripted.start_running()
        bad.report_epochs(2)
        assert [1, 2] == running.epochs(bad.operation_id)

        bad.step(lambda bridge: bridge.on_epoch(epoch, 10, FIGURES))

        listed = running.operations.ListOperations(pb.ListOperationsRequest()).operations
        assert [bad.operation_id, good.operation_id] == [each.operation_id for each in listed]
        request = pb.GetOperationRequest(operation_id=bad.operation_id, metrics_cursor=0)
        answer = running.operations.GetOperation(request)
        assert "BRIDGE_UNREADABLE" == answer.operation.freshness.refresh_error.reason
        assert [1, 2] == [metric.step for metric in answer.metrics]
        bad.finish()
        assert COMPLETED == running.ended(bad.operation_id).status
        good.finish()


def test_counts_of_numpy_are_told_like_others(running: RunningBackend) -> None:
    work = running.scripted.start_running()
    work.step(lambda bridge: bridge.on_batch(np.int64(0), np.int64(3), np.int64(10)))  # type: ignore[arg-type]  # which workers count with
    work.step(lambda bridge: bridge.on_epoch(np.int64(0), 10, FIGURES))  # type: ignore[arg-type]  # as above
    work.finish()
    end = running.ended(work.operation_id)
    assert (COMPLETED, 1) == (end.status, end.progress.current_step)
    assert [1] == running.epochs(work.operation_id)


def test_the_cause_of_a_cancelled_end_is_cut_to_a_readable_size(running: RunningBackend) -> None:
    work = running.scripted.start_running()
    running.cancel(work.operation_id)
    work.fail(OSError("x" * 5_000_000))
    cause = running.ended(work.operation_id).error.metadata["cause_message"]
    assert 100 < len(cause) < 5000


def test_a_worker_survives_work_that_raises(running: RunningBackend) -> None:
    for _ in range(3):
        work = running.scripted.start_running()
        work.fail(KeyError("x"))
        assert FAILED == running.ended(work.operation_id).status


def test_even_an_exit_raised_by_work_only_ends_its_operation(running: RunningBackend) -> None:
    work = running.scripted.start_running()
    work.fail(SystemExit(3))
    end = running.ended(work.operation_id)
    assert FAILED == end.status
    assert "SystemExit" == end.error.metadata["exception"]


def test_too_few_bars_end_failed_insufficient_data(running: RunningBackend) -> None:
    operation_id = running.train(
        start_time=datetime(2004, 1, 5, tzinfo=UTC), end_time=datetime(2004, 2, 1, tzinfo=UTC)
    )
    end = running.ended(operation_id)
    assert FAILED == end.status
    assert Code.FAILED_PRECONDITION == end.error.code
    assert "INSUFFICIENT_DATA" == end.error.reason
    assert "IBM" == end.error.metadata["symbol"]
    assert "200" == end.error.metadata["required"]
    assert 0 < int(end.error.metadata["bars"]) < 200
    assert "history_required" in end.error.message


@pytest.mark.parametrize(
    "times",
    [
        {"start_time": datetime(1, 1, 1, tzinfo=UTC)},
        {"end_time": datetime(9999, 12, 31, tzinfo=UTC)},
    ],
)
def test_the_widest_ranges_are_ranges_like_others(
    running: RunningBackend, times: dict[str, datetime]
) -> None:
    operation_id = running.train(overrides={"model.training.epochs": "1"}, **times)
    assert "result" == running.ended(operation_id).WhichOneof("outcome")


def test_a_training_that_diverges_ends_failed_with_the_mend(running: RunningBackend) -> None:
    end = running.ended(running.train(seed=1, overrides=DIVERGING))
    assert FAILED == end.status
    assert "TRAINING_DIVERGED" == end.error.reason
    assert "learning_rate" in end.error.message


def test_a_model_that_cannot_be_written_ends_failed_with_the_mend(
    running: RunningBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: object, model: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shared.training.model_store._write", full)
    end = running.ended(running.train(seed=1, overrides={"model.training.epochs": "3"}))
    assert FAILED == end.status
    assert "MODEL_NOT_SAVED" == end.error.reason
    assert "No space left" in end.error.message
    assert 3 == end.metrics_count


def test_a_failed_training_leaves_no_model(running: RunningBackend) -> None:
    before = {model.name for model in ModelStore(running.home / "models").list().models}
    running.ended(running.train(seed=1, overrides=DIVERGING))
    listed = running.models.ListModels(models_pb.ListModelsRequest())
    assert before == {model.name for model in listed.models}
    assert [] == list(listed.unreadable)


def test_a_failed_operation_is_listed_with_its_error(running: RunningBackend) -> None:
    work = running.scripted.start_running()
    work.fail(ValueError("broken"))
    running.ended(work.operation_id)
    listed = running.operations.ListOperations(pb.ListOperationsRequest(statuses=[FAILED]))
    assert work.operation_id in {operation.operation_id for operation in listed.operations}
    assert all(operation.error.reason for operation in listed.operations)
