"""The end of a process: no new work, time to finish, and an honest record of the rest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations.model import Operation, OperationStatus
from shared.operations.store import ACTIVE
from tests.integration.refusals import refusal_of, refused
from tests.integration.running import RUNNING, RunningBackend, running_backend
from tests.support.eventually import eventually
from tests.support.scripted_work import PATIENCE, ScriptedWork


@contextmanager
def _stopping(running: RunningBackend, work: ScriptedWork) -> Iterator[None]:
    """Stop the backend beside the test; its grace lasts until the work has ended."""
    stopping = threading.Thread(target=running.stop, args=(PATIENCE,))
    stopping.start()
    eventually(lambda: running.pool._closed)
    try:
        yield
    finally:
        work.finish()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


def _record(running: RunningBackend, work: ScriptedWork) -> Operation:
    """Return the operation as the stopped process keeps it."""
    return running.backend.operations.get_operation(work.operation_id).operation


def test_work_that_finishes_within_the_grace_is_completed(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        with _stopping(running, work):
            work.report_epochs(2)
        assert OperationStatus.COMPLETED is _record(running, work).status
        assert 2 == _record(running, work).metrics_count


def test_work_that_does_not_finish_ends_process_stopped_and_may_be_tried_again(
    tmp_path: Path,
) -> None:
    with running_backend(tmp_path) as running:
        operation_id = running.train(overrides={"model.training.epochs": "10000"})
        eventually(lambda: running.operation(operation_id).metrics_count > 1)
        running.stop(grace=0.0)
        operation = running.backend.operations.get_operation(operation_id).operation
        assert OperationStatus.FAILED is operation.status
        assert operation.error is not None
        assert "PROCESS_STOPPED" == operation.error.reason
        assert operation.error.retryable
        assert operation.metrics_count > 1
        assert [] == list(running.home.glob("models/*/*"))


def test_work_that_does_not_even_notice_ends_process_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.process._INTERRUPT_GRACE", 0.1)
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        work.report_epochs(3)
        running.stop(grace=0.1)
        operation = _record(running, work)
        assert operation.error is not None
        assert "PROCESS_STOPPED" == operation.error.reason
        assert 3 == operation.metrics_count
        work.finish()  # too late: what is recorded stays
        eventually(lambda: not running.pool._threads)
        assert operation == _record(running, work)


def test_work_that_was_still_queued_ends_process_stopped(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=1) as running:
        work = running.scripted.start_running()
        waiting = running.scripted.start()
        with _stopping(running, work):
            pass
        operation = _record(running, waiting)
        assert OperationStatus.FAILED is operation.status
        assert operation.start_time is None
        assert operation.error is not None
        assert "PROCESS_STOPPED" == operation.error.reason


def test_what_was_cancelled_ends_cancelled_also_in_a_shutdown(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        running.cancel(work.operation_id, "before the end")
        with _stopping(running, work):
            work.notice_cancel()
        assert OperationStatus.CANCELLED is _record(running, work).status


def test_starts_are_refused_while_stopping_and_leave_nothing(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        with _stopping(running, work):
            refusal = refused(running.train)
            assert grpc.StatusCode.UNAVAILABLE == refusal.code
            assert "PROCESS_STOPPING" == refusal.reason
            assert refusal.retry_after
            assert "grpc-retry-pushback-ms" in refusal.trailers
            assert 1 == running.operations.ListOperations(pb.ListOperationsRequest()).total_count


def test_a_start_that_was_accepted_is_found_again_while_stopping(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=1) as running:
        work = running.scripted.start_running()
        operation_id = running.train(request_id="once")
        with _stopping(running, work):
            assert operation_id == running.train(request_id="once")


def test_reads_and_cancels_are_served_while_stopping_and_health_says_so(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        with _stopping(running, work):
            work.report_epochs(2)
            assert [1, 2] == running.epochs(work.operation_id)
            assert RUNNING == running.operation(work.operation_id).status
            for service in ("", "ktrdr.operations.v1.OperationsService"):
                assert health_pb2.HealthCheckResponse.NOT_SERVING == running.health(service)
            assert "stop now" == running.cancel(work.operation_id, "stop now").cancel_reason


def test_a_stopped_backend_answers_nobody_and_stops_again_without_harm(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        running.stop()
        refusal = refused(lambda: running.operation("op_training_any"))
        assert grpc.StatusCode.UNAVAILABLE == refusal.code
        running.stop()


def test_starts_that_race_with_the_end_are_refused_or_recorded(tmp_path: Path) -> None:
    with running_backend(
        tmp_path, training_workers=2, training_queue=1000, start_limit=8
    ) as running:
        accepted: list[str] = []
        reasons: list[str] = []

        def start_until_refused(client: int) -> None:
            for n in range(1000):
                try:
                    accepted.append(running.train(request_id=f"c{client}-{n}"))
                except grpc.RpcError as error:
                    reasons.append(refusal_of(error).reason)
                    return

        clients = [threading.Thread(target=start_until_refused, args=(n,)) for n in range(4)]
        for client in clients:
            client.start()
        eventually(lambda: len(accepted) > 8)
        running.stop()
        for client in clients:
            client.join(PATIENCE)
        # A client may also find the server gone.
        assert {"PROCESS_STOPPING", ""} >= set(reasons)
        assert 4 == len(reasons)
        operations = running.backend.operations
        ends = {operations.get_operation(one).operation.status for one in accepted}
        assert ends <= {OperationStatus.COMPLETED, OperationStatus.FAILED}
        assert not operations._registry._live
        assert 0 == operations._store.count(ACTIVE)
