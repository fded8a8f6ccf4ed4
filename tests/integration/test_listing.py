"""Listings over the wire: newest first, page by page, with honest counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import models_service_pb2 as models_pb
from shared.operations.model import (
    Operation,
    OperationRecord,
    OperationStatus,
    OperationType,
    Owner,
)
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

START = datetime(2026, 1, 1, tzinfo=UTC)
TRAINING = operation_pb2.OPERATION_TYPE_TRAINING
DATA_LOADING = operation_pb2.OPERATION_TYPE_DATA_LOADING


def _list(running: RunningBackend, **fields: object) -> pb.ListOperationsResponse:
    answer: pb.ListOperationsResponse = running.operations.ListOperations(
        pb.ListOperationsRequest(**fields)  # type: ignore[arg-type]  # fields as a test names them
    )
    return answer


def _ids(answer: pb.ListOperationsResponse) -> list[str]:
    return [operation.operation_id for operation in answer.operations]


def _all_ids(running: RunningBackend, **fields: object) -> list[str]:
    """Walk the pages to the end."""
    ids: list[str] = []
    token = ""
    while True:
        answer = _list(running, page_token=token, **fields)
        ids += _ids(answer)
        token = answer.next_page_token
        if not token:
            return ids


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """A backend that remembers 1201 finished operations, some of the same instant."""
    with running_backend(tmp_path_factory.mktemp("home")) as running:
        store = running.backend.operations._store
        for index in range(1201):
            at = START + timedelta(seconds=index // 3)
            operation = Operation(
                operation_id=f"op_{index:05}",
                type=OperationType.TRAINING if index % 2 else OperationType.DATA_LOADING,
                status=OperationStatus.COMPLETED if index % 3 else OperationStatus.FAILED,
                create_time=at,
                update_time=at,
            )
            store.create(OperationRecord(operation, Owner("i", "n", "a"), "r", "f"))
        yield running


def test_a_page_holds_50_unless_asked_and_500_at_most(archive: RunningBackend) -> None:
    for size, sent in {0: 50, 1: 1, 500: 500, 501: 500, 2**31 - 1: 500}.items():
        answer = _list(archive, page_size=size)
        assert sent == len(answer.operations)
        assert answer.next_page_token
        assert 1201 == answer.total_count
        assert 0 == answer.active_count


@pytest.mark.parametrize("size", [7, 50, 500])
def test_pages_join_to_the_whole_listing_newest_first(archive: RunningBackend, size: int) -> None:
    expected = [f"op_{index:05}" for index in range(1200, -1, -1)]
    assert expected == _all_ids(archive, page_size=size)


def test_filters_hold_on_every_page_and_in_the_total(archive: RunningBackend) -> None:
    failed = _all_ids(archive, statuses=[FAILED], types=[TRAINING], page_size=33)
    assert [f"op_{i:05}" for i in range(1200, -1, -1) if i % 3 == 0 and i % 2] == failed
    answer = _list(archive, statuses=[FAILED], types=[TRAINING])
    assert len(failed) == answer.total_count
    either = _list(archive, statuses=[FAILED, COMPLETED], types=[TRAINING, DATA_LOADING])
    assert 1201 == either.total_count
    nothing = _list(archive, statuses=[CANCELLED])
    assert [] == list(nothing.operations)
    assert 0 == nothing.total_count
    assert not nothing.next_page_token


@pytest.mark.parametrize(
    "changed", [{"statuses": [FAILED]}, {"types": [TRAINING]}, {"active_only": True}]
)
def test_a_token_is_refused_with_other_filters(
    archive: RunningBackend, changed: dict[str, object]
) -> None:
    token = _list(archive).next_page_token
    refusal = refused(lambda: _list(archive, page_token=token, **changed))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert "other filters" in refusal.fields["page_token"]


def test_a_token_may_come_with_another_page_size(archive: RunningBackend) -> None:
    token = _list(archive, page_size=5).next_page_token
    assert ["op_01195", "op_01194"] == _ids(_list(archive, page_size=2, page_token=token))


def test_operations_that_come_between_pages_do_not_shift_them(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=4) as running:
        first = [running.scripted.start_running().operation_id for _ in range(4)]
        page = _list(running, page_size=2)
        running.scripted.start()
        rest = _list(running, page_size=2, page_token=page.next_page_token)
        assert first[::-1] == _ids(page) + _ids(rest)
        assert not rest.next_page_token
        assert 5 == rest.total_count


def test_states_of_every_kind_are_filtered_and_counted(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=2, training_queue=20) as running:
        completed = running.scripted.start_running()
        completed.finish()
        running.ended(completed.operation_id)
        failed = running.scripted.start_running()
        failed.fail(ValueError("broken"))
        running.ended(failed.operation_id)
        stopped = running.scripted.start_running()
        running.cancel(stopped.operation_id)
        stopped.notice_cancel()
        running.ended(stopped.operation_id)
        stopping = running.scripted.start_running()
        running.cancel(stopping.operation_id)
        busy = running.scripted.start_running()
        queued = running.scripted.start()

        for status, work in {
            COMPLETED: completed,
            FAILED: failed,
            CANCELLED: stopped,
            CANCELLING: stopping,
            RUNNING: busy,
            PENDING: queued,
        }.items():
            answer = _list(running, statuses=[status])
            assert [work.operation_id] == _ids(answer)
            assert 1 == answer.total_count
            assert 3 == answer.active_count
        active = _list(running, active_only=True)
        assert [w.operation_id for w in (queued, busy, stopping)] == _ids(active)
        assert 3 == active.total_count == active.active_count
        assert 6 == _list(running).total_count


def test_rows_carry_progress_and_freshness_but_no_metrics(tmp_path: Path) -> None:
    with running_backend(tmp_path, cache_ttl=0.0) as running:
        work = running.scripted.start_running()
        work.report_epochs(3)
        (row,) = _list(running).operations
        assert 3 == row.metrics_count
        assert 3 == row.progress.current_step
        assert row.liveness.worker_alive
        assert operation_pb2.FRESHNESS_SOURCE_BRIDGE == row.freshness.source


def test_only_the_page_is_refreshed(tmp_path: Path) -> None:
    with running_backend(tmp_path, cache_ttl=0.0, training_workers=4) as running:
        works = [running.scripted.start_running() for _ in range(4)]
        before = [work.bridge.reads for work in works]
        _list(running, page_size=2)
        reads = [work.bridge.reads - count for work, count in zip(works, before, strict=True)]
        assert [0, 0, 1, 1] == reads


def test_models_are_listed_page_by_page_newest_first(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        assert [] == list(running.models.ListModels(models_pb.ListModelsRequest()).models)
        for _ in range(5):
            running.ended(running.train(overrides={"model.training.epochs": "1"}))
        names: list[str] = []
        token = ""
        sizes = []
        while True:
            request = models_pb.ListModelsRequest(page_size=2, page_token=token)
            answer = running.models.ListModels(request)
            assert 5 == answer.total_count
            sizes.append(len(answer.models))
            names += [model.name for model in answer.models]
            token = answer.next_page_token
            if not token:
                break
        assert [2, 2, 1] == sizes
        assert [f"small/1d_v{version}" for version in (5, 4, 3, 2, 1)] == names


def test_a_model_folder_that_cannot_be_read_is_named_beside_the_others(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        running.ended(running.train(overrides={"model.training.epochs": "1"}))
        broken = tmp_path / "models" / "small" / "1d_v7"
        broken.mkdir()
        answer = running.models.ListModels(models_pb.ListModelsRequest())
        assert ["small/1d_v1"] == [model.name for model in answer.models]
        assert ["small/1d_v7"] == list(answer.unreadable)
        request = models_pb.GetModelRequest(name="small/1d_v7")
        refusal = refused(lambda: running.models.GetModel(request))
        assert grpc.StatusCode.FAILED_PRECONDITION == refusal.code
        assert "MODEL_UNREADABLE" == refusal.reason
