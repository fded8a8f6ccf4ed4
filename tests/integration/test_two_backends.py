"""Two backends on one PostgreSQL: each shows all the work, and says whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import grpc
import pytest

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from shared.instance import Instance
from tests.integration.running import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    SMALL,
    RunningBackend,
)
from tests.integration.sharing import on
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost
from tests.support.postgres import PostgresServer
from tests.unit.operations.fakes import in_threads

REMOTE = operation_pb2.FRESHNESS_SOURCE_REMOTE
BRIDGE = operation_pb2.FRESHNESS_SOURCE_BRIDGE
RECORD = operation_pb2.FRESHNESS_SOURCE_RECORD


@dataclass(frozen=True)
class Pair:
    """Two backends on one database."""

    first: RunningBackend
    second: RunningBackend


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def pair(url: str, tmp_path: Path) -> Iterator[Pair]:
    with on(url, tmp_path / "a") as first, on(url, tmp_path / "b") as second:
        yield Pair(first, second)


def listed(backend: RunningBackend, **fields: Any) -> pb.ListOperationsResponse:
    page: pb.ListOperationsResponse = backend.operations.ListOperations(
        pb.ListOperationsRequest(**fields), timeout=10
    )
    return page


def ids(page: pb.ListOperationsResponse) -> list[str]:
    return [each.operation_id for each in page.operations]


def best_known(backend: RunningBackend, operation_id: str) -> operation_pb2.Operation:
    """The operation as a caller gets it who sets no bound."""
    operation: operation_pb2.Operation = backend.operations.GetOperation(
        pb.GetOperationRequest(operation_id=operation_id), timeout=10
    ).operation
    return operation


def test_both_list_everything_alike(pair: Pair) -> None:
    mine, theirs = pair.first.scripted.start_running(), pair.second.scripted.start(request_id="x")
    mine.finish()
    pair.first.ended(mine.operation_id)

    assert (
        ids(listed(pair.first))
        == ids(listed(pair.second))
        == [
            theirs.operation_id,
            mine.operation_id,
        ]
    )
    assert (2, 1) == (listed(pair.first).total_count, listed(pair.first).active_count)


def test_what_the_other_runs_is_pulled_from_it(pair: Pair) -> None:
    work = pair.first.scripted.start_running()
    work.report_epochs(3)

    answer = pair.second.get(work.operation_id, metrics_cursor=0)

    assert RUNNING == answer.operation.status
    assert [1, 2, 3] == [metric.step for metric in answer.metrics]
    assert [REMOTE, BRIDGE] == [hop.source for hop in answer.operation.freshness.path]
    assert answer.operation.liveness.worker_alive
    work.report_epochs(2, first=3)
    assert [1, 2, 3, 4, 5] == pair.second.epochs(work.operation_id)
    assert pair.first.epochs(work.operation_id) == pair.second.epochs(work.operation_id)


def test_the_other_waits_for_its_end_and_reads_its_result(pair: Pair) -> None:
    work = pair.first.scripted.start_running()
    work.report_epochs(2)
    pair.second.operation(work.operation_id)
    work.finish()

    ended = pair.second.ended(work.operation_id)

    assert (COMPLETED, 2) == (ended.status, ended.metrics_count)
    assert ended.HasField("result")
    assert [1, 2] == pair.second.epochs(work.operation_id)


def test_the_other_can_cancel_it(pair: Pair) -> None:
    work = pair.first.scripted.start_running()
    assert CANCELLING == pair.second.cancel(work.operation_id, "from there").status
    work.notice_cancel()

    ended = pair.first.ended(work.operation_id)

    assert (CANCELLED, "from there") == (ended.status, ended.cancel_reason)
    assert CANCELLED == pair.second.operation(work.operation_id).status


def test_either_deletes_what_has_ended(pair: Pair) -> None:
    work = pair.first.scripted.start_running()
    request = pb.DeleteOperationRequest(operation_id=work.operation_id)
    with pytest.raises(grpc.RpcError) as refused:
        pair.second.operations.DeleteOperation(request)
    work.finish()
    pair.first.ended(work.operation_id)
    pair.second.operations.DeleteOperation(request)

    assert grpc.StatusCode.FAILED_PRECONDITION is refused.value.code()
    assert [] == ids(listed(pair.first))
    with pytest.raises(grpc.RpcError) as gone:
        pair.first.operation(work.operation_id)
    assert grpc.StatusCode.NOT_FOUND is gone.value.code()


def test_one_request_to_both_starts_one_training(pair: Pair) -> None:
    request = training_pb.StartTrainingRequest(
        request_id="once", strategy_yaml=SMALL, overrides={"model.training.epochs": "2"}
    )
    backends = [pair.first, pair.second]

    raised = in_threads(8, lambda i: backends[i % 2].training.StartTraining(request, timeout=30))

    assert [] == raised
    assert ["op_training_once"] == ids(listed(pair.first))
    assert COMPLETED == pair.first.ended("op_training_once").status
    assert pair.first.operation("op_training_once").result == (
        pair.second.operation("op_training_once").result
    )


def test_while_the_owner_is_away_the_other_says_so(url: str, tmp_path: Path) -> None:
    with on(url, tmp_path / "b") as second:
        with on(url, tmp_path / "a") as first:
            work = first.scripted.start_running()
            work.report_epochs(2)
            first.operation(work.operation_id)  # so that there is something stored
            known = second.operation(work.operation_id)
            first.vanish()

            eventually(
                lambda: (
                    best_known(second, work.operation_id).freshness.refresh_error.reason
                    == "HOST_UNREACHABLE"
                )
            )
            left = best_known(second, work.operation_id)
            page = listed(second)

            assert (RUNNING, 2) == (left.status, left.metrics_count)
            assert known.freshness.age.ToTimedelta() < left.freshness.age.ToTimedelta()
            assert [first.address] == list(page.unreachable)
            first.stop()  # with its work unfinished
        # It has recorded what it ran, though nobody can ask it any more.
        eventually(lambda: best_known(second, work.operation_id).status == FAILED, within=10)
        ended = best_known(second, work.operation_id)
        assert ("PROCESS_STOPPED", RECORD) == (ended.error.reason, ended.freshness.source)
        assert [1, 2] == second.epochs(work.operation_id)


def test_one_that_never_saw_it_shows_what_its_owner_last_stored(url: str, tmp_path: Path) -> None:
    with on(url, tmp_path / "a") as first:
        work = first.scripted.start_running()
        work.report_epochs(2)
        first.operation(work.operation_id)
        first.vanish()
        with on(url, tmp_path / "b") as second:
            left = best_known(second, work.operation_id)

            assert (RUNNING, 2, RECORD) == (
                left.status,
                left.metrics_count,
                left.freshness.source,
            )
            assert "HOST_UNREACHABLE" == left.freshness.refresh_error.reason
            assert not left.HasField("liveness")


def test_once_the_owner_is_back_both_know_that_it_was_cut_off(url: str, tmp_path: Path) -> None:
    me = uuid4().hex
    with (
        on(url, tmp_path / "b") as second,
        on(url, tmp_path / "a", instance=Instance(me, "first")) as first,
    ):
        work = first.scripted.start_running()
        work.report_epochs(2)
        second.operation(work.operation_id)
        first.operation(work.operation_id)
        first.vanish()
        # The next life ends what the last one ran before that can say anything.
        with on(url, tmp_path / "again", instance=Instance(me, "second")) as again:
            eventually(lambda: best_known(second, work.operation_id).status == FAILED)
            for backend in (again, second):
                ended = best_known(backend, work.operation_id)
                assert "PROCESS_RESTARTED" == ended.error.reason
                assert [1, 2] == backend.epochs(work.operation_id)


def test_a_hosts_work_is_read_by_both_from_the_host(
    url: str, tmp_path: Path, host: ScriptedHost
) -> None:
    on_host: dict[str, Any] = {
        "training_mode": "host",
        "TRAINING_HOST_SERVICE_URL": host.address,
    }
    with on(url, tmp_path / "a", **on_host) as first, on(url, tmp_path / "b", **on_host) as second:
        operation_id = first.train(request_id="hosted")
        work = host.work(operation_id)
        work.report_epochs(3)

        assert [1, 2, 3] == first.epochs(operation_id) == second.epochs(operation_id)
        path = second.operation(operation_id).freshness.path
        assert [second.backend.operations.owner.instance_id, host.instance.id] == [
            hop.instance for hop in path
        ]
        first.vanish()
        work.report_epochs(1, first=3)
        work.finish()
        assert COMPLETED == second.ended(operation_id).status
        assert [1, 2, 3, 4] == second.epochs(operation_id)


def test_what_one_is_just_telling_a_host_the_other_leaves_open(
    url: str, tmp_path: Path, host: ScriptedHost
) -> None:
    on_host: dict[str, Any] = {
        "training_mode": "host",
        "TRAINING_HOST_SERVICE_URL": host.address,
    }
    with on(url, tmp_path / "a", **on_host) as first, on(url, tmp_path / "b", **on_host) as second:
        told: list[operation_pb2.Operation] = []
        # The host has been told and has no record yet, when somebody asks the other backend.
        host.before_start = lambda: told.append(best_known(second, "op_training_hosted"))
        operation_id = first.train(request_id="hosted")

        assert [(PENDING, "START_UNKNOWN")] == [
            (each.status, each.freshness.refresh_error.reason) for each in told
        ]
        host.work(operation_id).finish()
        assert COMPLETED == first.ended(operation_id).status == second.ended(operation_id).status


def test_a_database_that_is_away_stops_no_work_and_is_used_again_when_it_is_back(
    url: str, tmp_path: Path, postgres: PostgresServer
) -> None:
    with on(url, tmp_path / "a", cache_ttl=0.1) as backend:
        work = backend.scripted.start_running()
        with postgres.stopped():
            work.report_epochs(3)

            def reason() -> str:
                return str(best_known(backend, work.operation_id).freshness.refresh_error.reason)

            eventually(lambda: reason() == "STORE_UNAVAILABLE")
            assert [1, 2, 3] == [
                metric.step
                for metric in backend.get(
                    work.operation_id, metrics_cursor=0, max_staleness={"seconds": 5}
                ).metrics
            ]
            with pytest.raises(grpc.RpcError) as refused:
                backend.train(request_id="refused")
            work.finish()
            eventually(lambda: best_known(backend, work.operation_id).status == RUNNING)

        eventually(lambda: best_known(backend, work.operation_id).status == COMPLETED, within=20)
        assert grpc.StatusCode.UNAVAILABLE is refused.value.code()
        assert [1, 2, 3] == backend.epochs(work.operation_id)
        assert [work.operation_id] == ids(listed(backend))


def test_a_database_that_answers_nothing_holds_up_nobody_for_long(
    url: str, tmp_path: Path, postgres: PostgresServer
) -> None:
    with on(url, tmp_path / "a", cache_ttl=0.1) as backend:
        work = backend.scripted.start_running()
        with postgres.frozen():
            work.report_epochs(3)
            asked_at = monotonic()
            eventually(lambda: best_known(backend, work.operation_id).metrics_count == 3)
            for _ in range(20):
                best_known(backend, work.operation_id)
            took = monotonic() - asked_at
            known = best_known(backend, work.operation_id)
            assert 1 == backend.health()

        assert "STORE_UNAVAILABLE" == known.freshness.refresh_error.reason
        assert took < 10, "one waited for the database, the others did not"
        work.finish()
        eventually(lambda: best_known(backend, work.operation_id).status == COMPLETED, within=20)
