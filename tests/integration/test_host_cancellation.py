"""Cancelling a training that runs on a host: it travels there, and ends alike in both places."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from ktrdr.operations.v1 import operation_pb2, operations_service_pb2_grpc
from ktrdr.operations.v1 import operations_service_pb2 as pb
from tests.integration.hosted import backend_on, host_id
from tests.integration.refusals import refused
from tests.integration.running import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    RunningBackend,
)
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.scripted_work import PATIENCE, ScriptedWork

Operations = operations_service_pb2_grpc.OperationsServiceStub


@pytest.fixture
def operation_id(front: RunningBackend) -> str:
    """A training on the host."""
    return front.train(request_id="abc")


@pytest.fixture
def work(host: ScriptedHost, operation_id: str) -> Iterator[ScriptedWork]:
    """Its work, which ends with the test at the latest."""
    work = host.work(operation_id)
    yield work
    work.finish()


def _there(at_host: Operations, operation_id: str) -> operation_pb2.Operation:
    request = pb.GetOperationRequest(operation_id=host_id(operation_id), force_refresh=True)
    operation: operation_pb2.Operation = at_host.GetOperation(request).operation
    return operation


def test_a_cancel_reaches_the_worker_and_ends_cancelled_in_both_places(
    front: RunningBackend, at_host: Operations, operation_id: str, work: ScriptedWork
) -> None:
    work.report_epochs(2)
    answer = front.cancel(operation_id, "enough")
    assert (CANCELLING, "enough") == (answer.status, answer.cancel_reason)
    assert work.bridge.cancel.requested
    there = _there(at_host, operation_id)
    assert (CANCELLING, "enough") == (there.status, there.cancel_reason)

    work.report_epochs_deaf(1)  # it has not noticed yet
    seen = front.operation(operation_id)
    assert (CANCELLING, 3) == (seen.status, seen.metrics_count)
    assert seen.liveness.worker_alive

    work.notice_cancel()
    here, there = front.ended(operation_id), _there(at_host, operation_id)
    assert (CANCELLED, CANCELLED) == (here.status, there.status)
    assert there.error == here.error
    assert ("CANCELLED", grpc.StatusCode.CANCELLED.value[0]) == (here.error.reason, here.error.code)
    assert "enough" == here.cancel_reason == there.cancel_reason
    assert there.end_time == here.end_time
    assert here.HasField("cancel_time")
    assert 3 == here.metrics_count == there.metrics_count


def test_a_cancel_is_heard_though_nobody_has_looked_since_the_start(
    front: RunningBackend, host: ScriptedHost
) -> None:
    operation_id = front.train()
    work = host.work(operation_id)
    assert front.cancel(operation_id).status in {CANCELLING, CANCELLED}
    work.notice_cancel()
    assert CANCELLED == front.ended(operation_id).status


def test_a_cancel_that_overtakes_its_start_is_heard(
    front: RunningBackend, host: ScriptedHost
) -> None:
    cancels: list[grpc.Future[pb.CancelOperationResponse]] = []

    def overtake() -> None:
        request = pb.CancelOperationRequest(operation_id="op_training_late", reason="never mind")
        cancels.append(front.operations.CancelOperation.future(request, timeout=PATIENCE))

    host.before_start = overtake
    operation_id = front.train(request_id="late")
    (cancel,) = cancels
    assert cancel.result(PATIENCE).operation.status in {CANCELLING, CANCELLED}
    host.works[host_id(operation_id)].notice_cancel()
    end = front.ended(operation_id)
    assert (CANCELLED, "never mind") == (end.status, end.cancel_reason)


def test_what_queues_on_the_host_is_cancelled_at_once_in_both_places(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "host", workers=1, queue_limit=1) as host,
        backend_on(tmp_path / "backend", host.address) as front,
        grpc.insecure_channel(host.address) as channel,
    ):
        host.work(front.train())
        queued = front.train(request_id="queued")
        assert PENDING == front.operation(queued).status

        answer = front.cancel(queued, "changed my mind")
        there = _there(Operations(channel), queued)
        assert (CANCELLED, CANCELLED) == (answer.status, there.status)
        assert "changed my mind" == answer.cancel_reason == there.cancel_reason
        assert not answer.HasField("start_time")
        assert there.end_time == answer.end_time
        again = front.train(request_id="next")  # its place in the queue is free
        assert PENDING == front.operation(again).status


def test_a_second_cancel_changes_nothing(
    front: RunningBackend, at_host: Operations, operation_id: str, work: ScriptedWork
) -> None:
    first = front.cancel(operation_id, "first")
    second = front.cancel(operation_id, "second")
    assert (CANCELLING, "first") == (second.status, second.cancel_reason)
    assert first.cancel_time == second.cancel_time
    there = _there(at_host, operation_id)
    assert ("first", first.cancel_time) == (there.cancel_reason, there.cancel_time)


def test_a_second_cancel_is_not_sent_to_the_host(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    front.cancel(operation_id)
    front.cancel(operation_id)
    assert 1 == host.calls["CancelOperation"]


def test_concurrent_cancels_agree(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    barrier = threading.Barrier(6)

    def cancel(number: int) -> operation_pb2.Operation:
        barrier.wait(PATIENCE)
        return front.cancel(operation_id, f"client {number}")

    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(cancel, range(6)))
    final = front.operation(operation_id)
    assert CANCELLING == final.status
    assert {answer.cancel_reason for answer in answers} <= {final.cancel_reason, ""}
    assert 1 == host.calls["CancelOperation"]


@pytest.mark.parametrize("ending", ["COMPLETED", "FAILED", "CANCELLED"])
def test_cancelling_what_has_ended_is_ok_and_changes_nothing(
    front: RunningBackend,
    host: ScriptedHost,
    operation_id: str,
    work: ScriptedWork,
    ending: str,
) -> None:
    if ending == "CANCELLED":
        front.cancel(operation_id, "first")
        work.notice_cancel()
    elif ending == "FAILED":
        work.fail(ValueError("broken"))
    else:
        work.finish()
    before = front.ended(operation_id)
    told = host.calls["CancelOperation"]
    assert operation_pb2.OperationStatus.Value(f"OPERATION_STATUS_{ending}") == before.status
    assert before == front.cancel(operation_id, "again")
    assert before == front.operation(operation_id)
    assert told == host.calls["CancelOperation"]


def test_cancelling_what_has_ended_on_the_host_only_finds_the_end(
    front: RunningBackend, at_host: Operations, operation_id: str, work: ScriptedWork
) -> None:
    front.operation(operation_id)
    work.finish()
    eventually(lambda: _there(at_host, operation_id).status == COMPLETED)
    end = front.cancel(operation_id, "too late")
    assert COMPLETED == end.status
    assert "" == _there(at_host, operation_id).cancel_reason


def test_a_result_that_comes_while_cancelling_wins(
    front: RunningBackend, operation_id: str, work: ScriptedWork
) -> None:
    front.cancel(operation_id, "too late")
    work.finish()
    end = front.ended(operation_id)
    assert (COMPLETED, "too late") == (end.status, end.cancel_reason)
    assert end.HasField("result")


def test_an_error_while_cancelling_ends_cancelled_with_its_cause(
    front: RunningBackend, operation_id: str, work: ScriptedWork
) -> None:
    front.cancel(operation_id)
    work.fail(ValueError("a part came loose"))
    end = front.ended(operation_id)
    assert CANCELLED == end.status
    assert "WORKER_RAISED" == end.error.metadata["cause_reason"]
    assert "a part came loose" in end.error.metadata["cause_message"]


def test_a_failure_nobody_asked_for_is_not_a_cancellation(
    front: RunningBackend, operation_id: str, work: ScriptedWork
) -> None:
    work.fail(ValueError("broken"))
    end = front.ended(operation_id)
    assert FAILED == end.status
    assert not end.HasField("cancel_time")


def test_a_host_that_cannot_be_told_leaves_everything_as_it_was(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    front.operation(operation_id)
    host.vanish()
    refusal = refused(lambda: front.cancel(operation_id, "enough"))
    assert (grpc.StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
    assert refusal.retry_after
    request = pb.GetOperationRequest(operation_id=operation_id)
    seen = front.operations.GetOperation(request).operation
    assert (RUNNING, "") == (seen.status, seen.cancel_reason)
    assert not seen.HasField("cancel_time")
    assert not work.bridge.cancel.requested


def test_the_longest_reason_travels_and_a_longer_one_is_refused_here(
    front: RunningBackend,
    host: ScriptedHost,
    at_host: Operations,
    operation_id: str,
    work: ScriptedWork,
) -> None:
    refusal = refused(lambda: front.cancel(operation_id, "x" * 1001))
    assert {"reason"} == set(refusal.fields)
    assert 0 == host.calls["CancelOperation"]
    reason = "ä" * 1000
    assert reason == front.cancel(operation_id, reason).cancel_reason
    assert reason == _there(at_host, operation_id).cancel_reason


def test_a_cancelled_training_frees_its_worker_on_the_host(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "host", workers=1, queue_limit=0) as host,
        backend_on(tmp_path / "backend", host.address) as front,
    ):
        first = front.train(request_id="first")
        work = host.work(first)
        assert "WORKERS_BUSY" == refused(lambda: front.train(request_id="next")).reason
        front.cancel(first)
        work.notice_cancel()
        assert CANCELLED == front.ended(first).status
        eventually(lambda: not host.pool._threads)
        after = front.train(request_id="next")
        host.work(after)
        assert RUNNING == front.operation(after).status
