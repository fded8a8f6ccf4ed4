"""WaitOperation: the end, the time, the slots, and clients that go away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations.views import OperationView
from shared.operations.waiting import Waiter
from tests.integration.refusals import outcome_of, refused
from tests.integration.running import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    RunningBackend,
    running_backend,
)
from tests.support.eventually import eventually
from tests.support.scripted_work import PATIENCE, ScriptedWork

Answer: TypeAlias = "grpc.Future[pb.WaitOperationResponse]"


@pytest.fixture
def work(running: RunningBackend) -> Iterator[ScriptedWork]:
    """Work that runs until the test has ended."""
    work = running.scripted.start_running()
    yield work
    work.finish()


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[RunningBackend]:
    """A backend with one waiting slot."""
    with running_backend(tmp_path, wait_limit=1) as running:
        yield running


def _wait(
    running: RunningBackend,
    operation_id: str,
    seconds: float | None = None,
    timeout: float = PATIENCE,
) -> pb.WaitOperationResponse:
    request = pb.WaitOperationRequest(operation_id=operation_id)
    if seconds is not None:
        request.timeout.FromMilliseconds(int(seconds * 1000))
    answer: pb.WaitOperationResponse = running.operations.WaitOperation(request, timeout=timeout)
    return answer


def _free_slots(running: RunningBackend) -> int:
    return running.backend.operations._room._free


def _begin_wait(running: RunningBackend, operation_id: str) -> Answer:
    """Send a wait of a minute and return once it has a slot."""
    free = _free_slots(running)
    request = pb.WaitOperationRequest(operation_id=operation_id, timeout=Duration(seconds=60))
    call: Answer = running.operations.WaitOperation.future(request)
    eventually(lambda: _free_slots(running) == free - 1)
    return call


@pytest.mark.parametrize("ending", [COMPLETED, FAILED, CANCELLED])
def test_a_wait_answers_when_the_operation_ends(
    running: RunningBackend, work: ScriptedWork, ending: int
) -> None:
    call = _begin_wait(running, work.operation_id)
    assert not call.done()
    if ending == CANCELLED:
        running.cancel(work.operation_id)
        work.notice_cancel()
    elif ending == FAILED:
        work.fail(ValueError("broken"))
    else:
        work.finish()
    answer = call.result(PATIENCE)
    assert ending == answer.operation.status
    assert not answer.HasField("retry_after")


def test_every_waiter_of_an_operation_is_answered_with_the_same_end(
    running: RunningBackend, work: ScriptedWork
) -> None:
    calls = [_begin_wait(running, work.operation_id) for _ in range(5)]
    work.finish()
    ends = [call.result(PATIENCE).operation for call in calls]
    assert [COMPLETED] * 5 == [end.status for end in ends]
    assert all(ends[0].end_time == end.end_time for end in ends)


def test_a_wait_for_what_has_ended_answers_at_once(
    running: RunningBackend, work: ScriptedWork
) -> None:
    work.finish()
    running.ended(work.operation_id)
    assert COMPLETED == _wait(running, work.operation_id, 60, timeout=5).operation.status


def test_a_wait_answers_at_its_timeout_with_the_latest_state(
    running: RunningBackend, work: ScriptedWork
) -> None:
    work.report_epochs(1)
    began = monotonic()
    answer = _wait(running, work.operation_id, 0.2)
    assert 0.2 <= monotonic() - began < 5
    assert RUNNING == answer.operation.status
    assert not answer.HasField("retry_after")


def test_a_timeout_of_zero_answers_at_once(running: RunningBackend, work: ScriptedWork) -> None:
    assert RUNNING == _wait(running, work.operation_id, 0, timeout=5).operation.status


def test_the_deadline_counts_if_it_is_shorter_than_the_timeout(
    running: RunningBackend, work: ScriptedWork
) -> None:
    answer = _wait(running, work.operation_id, 60, timeout=0.5)
    assert RUNNING == answer.operation.status


def test_a_timeout_is_30_seconds_unless_given_and_60_at_most(
    running: RunningBackend, work: ScriptedWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def note(
        operation_id: str, timeout: float, waiter: Waiter, *, deadline: float
    ) -> tuple[OperationView, float | None]:
        asked.append(timeout)
        return wait(operation_id, 0.0, waiter, deadline=deadline)

    operations = running.backend.operations
    wait = operations.wait_operation
    monkeypatch.setattr(operations, "wait_operation", note)
    for seconds in (None, 7, 61, 315_576_000_000):
        _wait(running, work.operation_id, seconds)
    assert [30, 7, 60, 60] == asked


def test_a_caller_without_a_slot_is_sent_away_with_a_time_to_come_back(
    narrow: RunningBackend,
) -> None:
    work = narrow.scripted.start_running()
    first = _begin_wait(narrow, work.operation_id)
    answers = [_wait(narrow, work.operation_id, 60, timeout=5) for _ in range(30)]
    assert {RUNNING} == {answer.operation.status for answer in answers}
    delays = [answer.retry_after.ToTimedelta().total_seconds() for answer in answers]
    assert all(0.25 <= delay <= 30 for delay in delays)
    assert len(set(delays)) > 20, "they would all come back at once"
    work.finish()
    assert COMPLETED == first.result(PATIENCE).operation.status


def test_a_client_that_goes_away_frees_its_slot(narrow: RunningBackend) -> None:
    work = narrow.scripted.start_running()
    gone = _begin_wait(narrow, work.operation_id)
    assert gone.cancel()
    eventually(lambda: _free_slots(narrow) == 1)
    call = _begin_wait(narrow, work.operation_id)
    work.finish()
    assert COMPLETED == call.result(PATIENCE).operation.status


def test_a_client_whose_time_is_up_frees_its_slot(narrow: RunningBackend) -> None:
    work = narrow.scripted.start_running()
    for timeout in (0.01, 0.05, 0.15):
        outcome = outcome_of(partial(_wait, narrow, work.operation_id, 60, timeout=timeout))
        assert outcome in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK}
        eventually(lambda: _free_slots(narrow) == 1)
    assert not work.bridge.cancel.requested


def test_slots_are_free_again_however_waits_ended(
    running: RunningBackend, work: ScriptedWork
) -> None:
    free = _free_slots(running)
    _wait(running, work.operation_id, 0.01)
    assert _begin_wait(running, work.operation_id).cancel()
    eventually(lambda: _free_slots(running) == free)
    ending = _begin_wait(running, work.operation_id)
    work.finish()
    ending.result(PATIENCE)
    eventually(lambda: _free_slots(running) == free)


def test_an_unknown_operation_cannot_be_waited_for(running: RunningBackend) -> None:
    refusal = refused(lambda: _wait(running, "op_training_nobody", 60))
    assert grpc.StatusCode.NOT_FOUND == refusal.code
    assert "OPERATION_NOT_FOUND" == refusal.reason


def test_waiters_learn_of_a_shutdown_at_once_with_the_latest_state(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        work.report_epochs(2)
        running.operation(work.operation_id)
        call = _begin_wait(running, work.operation_id)
        stopping = threading.Thread(target=running.stop, args=(PATIENCE,))
        stopping.start()
        answer = call.result(PATIENCE)
        assert RUNNING == answer.operation.status
        assert 2 == answer.operation.metrics_count
        work.finish()
        stopping.join(PATIENCE)


def test_two_hundred_waiters_leave_reads_alone(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        request = pb.WaitOperationRequest(
            operation_id=work.operation_id, timeout=Duration(seconds=60)
        )
        waits = [running.operations.WaitOperation.future(request) for _ in range(200)]
        eventually(lambda: _free_slots(running) == 0)
        with ThreadPoolExecutor(4) as clients:
            reads = [
                clients.submit(running.get, work.operation_id, force_refresh=True)
                for _ in range(100)
            ]
            for read in reads:
                assert RUNNING == read.result(PATIENCE).operation.status
        eventually(lambda: sum(wait.done() for wait in waits) == 200 - 16)
        sent_away = [wait.result().retry_after for wait in waits if wait.done()]
        assert all(delay.ToMilliseconds() >= 250 for delay in sent_away)
        work.finish()
        ends = [wait.result(PATIENCE).operation.status for wait in waits]
        assert 16 == ends.count(COMPLETED)
