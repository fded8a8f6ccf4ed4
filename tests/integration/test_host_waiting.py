"""WaitOperation through a backend: one wait at the host for all who wait here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1 import operations_service_pb2_grpc
from tests.integration.hosted import backend_on, host_id
from tests.integration.running import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    RunningBackend,
)
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.scripted_work import PATIENCE, ScriptedWork

Answer: TypeAlias = "grpc.Future[pb.WaitOperationResponse]"
SHORTEST_PAUSE = 0.4
"""Seconds; the least that a host without a place asks to be left alone for."""


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


def _free_slots(running: RunningBackend) -> int:
    return running.backend.operations._room._free


def _wait(front: RunningBackend, operation_id: str, seconds: float) -> pb.WaitOperationResponse:
    """Wait for so long at most and return what was answered."""
    request = pb.WaitOperationRequest(operation_id=operation_id)
    request.timeout.FromMilliseconds(int(seconds * 1000))
    answer: pb.WaitOperationResponse = front.operations.WaitOperation(request, timeout=PATIENCE)
    return answer


def _begin_wait(front: RunningBackend, operation_id: str) -> Answer:
    """Send a wait of a minute and return once it has a slot."""
    free = _free_slots(front)
    request = pb.WaitOperationRequest(operation_id=operation_id, timeout=Duration(seconds=60))
    call: Answer = front.operations.WaitOperation.future(request)
    eventually(lambda: _free_slots(front) == free - 1)
    return call


@pytest.mark.parametrize("ending", [COMPLETED, FAILED, CANCELLED])
def test_a_wait_is_answered_when_the_training_on_the_host_ends(
    front: RunningBackend,
    host: ScriptedHost,
    operation_id: str,
    work: ScriptedWork,
    ending: int,
) -> None:
    call = _begin_wait(front, operation_id)
    eventually(lambda: host.calls["WaitOperation"] == 1)
    work.report_epochs(3)
    assert not call.done()
    if ending == CANCELLED:
        front.cancel(operation_id)
        work.notice_cancel()
    elif ending == FAILED:
        work.fail(ValueError("broken"))
    else:
        work.finish()
    answer = call.result(PATIENCE)
    assert ending == answer.operation.status
    assert 3 == answer.operation.metrics_count
    assert operation_id == answer.operation.operation_id
    assert not answer.HasField("retry_after")
    assert 1 == host.calls["WaitOperation"]


def test_however_many_wait_here_one_waits_at_the_host(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    calls = [_begin_wait(front, operation_id) for _ in range(10)]
    eventually(lambda: host.calls["WaitOperation"] == 1)
    work.report_epochs(2)
    work.finish()
    ends = [call.result(PATIENCE).operation for call in calls]
    assert [COMPLETED] * 10 == [end.status for end in ends]
    assert all(ends[0].end_time == end.end_time for end in ends)
    assert {2} == {end.metrics_count for end in ends}
    assert 1 == host.calls["WaitOperation"]
    eventually(lambda: _free_slots(front) == 16)


def test_nobody_asks_the_host_while_all_wait(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    call = _begin_wait(front, operation_id)
    eventually(lambda: host.calls["WaitOperation"] == 1)
    asked, reads = host.calls.copy(), work.bridge.reads
    for first in range(10):
        work.report_epochs(1, first=first)
    assert asked == host.calls
    assert reads == work.bridge.reads
    work.finish()
    assert COMPLETED == call.result(PATIENCE).operation.status


def test_a_waiter_that_leaves_hands_over_to_another(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    leader = _begin_wait(front, operation_id)
    eventually(lambda: host.calls["WaitOperation"] == 1)
    others = [_begin_wait(front, operation_id) for _ in range(3)]
    assert leader.cancel()
    eventually(lambda: host.calls["WaitOperation"] == 2)
    eventually(lambda: _free_slots(front) == 13)
    eventually(lambda: host.operations._room._free == 15)  # the first wait there was called off
    work.finish()
    assert [COMPLETED] * 3 == [call.result(PATIENCE).operation.status for call in others]
    assert 2 == host.calls["WaitOperation"]


def test_a_waiter_that_follows_may_leave_unnoticed(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    leader = _begin_wait(front, operation_id)
    eventually(lambda: host.calls["WaitOperation"] == 1)
    follower = _begin_wait(front, operation_id)
    assert follower.cancel()
    eventually(lambda: _free_slots(front) == 15)
    work.finish()
    assert COMPLETED == leader.result(PATIENCE).operation.status
    assert 1 == host.calls["WaitOperation"]


def test_the_last_waiter_to_leave_ends_the_wait_at_the_host(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    call = _begin_wait(front, operation_id)
    eventually(lambda: host.operations._room._free == 15)
    assert call.cancel()
    eventually(lambda: host.operations._room._free == 16)
    assert not work.bridge.cancel.requested
    assert RUNNING == front.operation(operation_id).status


def test_a_wait_whose_time_is_up_answers_with_the_latest_state(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    front.operation(operation_id)
    work.report_epochs(2)
    answer = _wait(front, operation_id, 1.2)  # beyond the TTL
    assert (RUNNING, 2) == (answer.operation.status, answer.operation.metrics_count)
    assert not answer.HasField("retry_after")
    eventually(lambda: host.operations._room._free == 16)


def test_the_next_waiter_leads_when_the_leaders_time_is_up(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    request = pb.WaitOperationRequest(operation_id=operation_id)
    request.timeout.FromMilliseconds(500)
    short: Answer = front.operations.WaitOperation.future(request)
    eventually(lambda: host.calls["WaitOperation"] == 1)
    long = _begin_wait(front, operation_id)
    assert RUNNING == short.result(PATIENCE).operation.status
    eventually(lambda: host.calls["WaitOperation"] >= 2)
    work.finish()
    assert COMPLETED == long.result(PATIENCE).operation.status


def test_a_wait_for_what_has_ended_asks_nobody(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    work.finish()
    front.ended(operation_id)
    asked = host.calls.copy()
    assert COMPLETED == _wait(front, operation_id, 60).operation.status
    assert asked == host.calls


def test_a_timeout_of_zero_answers_at_once(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    assert RUNNING == _wait(front, operation_id, 0).operation.status
    assert 0 == host.calls["WaitOperation"]


def test_a_wait_for_what_queues_on_the_host_lasts_until_it_has_run(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "host", workers=1) as host,
        backend_on(tmp_path / "backend", host.address) as front,
    ):
        first, second = front.train(), front.train()
        assert PENDING == front.operation(second).status
        call = _begin_wait(front, second)
        host.work(first).finish()
        host.work(second).finish()
        assert COMPLETED == call.result(PATIENCE).operation.status


def _crowded(host: ScriptedHost, stub: operations_service_pb2_grpc.OperationsServiceStub) -> Answer:
    """Take the host's only waiting slot: with a wait for an operation of its own client."""
    operation_id = next(iter(host.works))
    request = pb.WaitOperationRequest(operation_id=operation_id, timeout=Duration(seconds=60))
    call: Answer = stub.WaitOperation.future(request)
    eventually(lambda: host.operations._room._free == 0)
    return call


def test_a_host_without_a_place_is_left_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    asked_at: list[float] = []

    def note(method: str) -> None:
        if method == "WaitOperation":
            asked_at.append(monotonic())

    with (
        scripted_host(tmp_path / "host", wait_slots=1) as host,
        backend_on(tmp_path / "backend", host.address) as front,
        grpc.insecure_channel(host.address) as channel,
    ):
        other = host.work(front.train())
        crowd = _crowded(host, operations_service_pb2_grpc.OperationsServiceStub(channel))
        operation_id = front.train()
        work = host.work(operation_id)
        host.servicer.before = note
        calls = [_begin_wait(front, operation_id) for _ in range(5)]
        eventually(lambda: len(asked_at) == 3)
        assert not any(call.done() for call in calls)
        other.finish()
        assert COMPLETED == crowd.result(PATIENCE).operation.status
        eventually(lambda: host.operations._room._free == 0)  # now ours is served
        work.finish()
        assert [COMPLETED] * 5 == [call.result(PATIENCE).operation.status for call in calls]
    assert all(later - earlier >= SHORTEST_PAUSE for earlier, later in pairwise(asked_at))


def test_a_waiter_leaves_at_its_time_though_the_host_has_no_place(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "host", wait_slots=1) as host,
        backend_on(tmp_path / "backend", host.address) as front,
        grpc.insecure_channel(host.address) as channel,
    ):
        host.work(front.train())
        _crowded(host, operations_service_pb2_grpc.OperationsServiceStub(channel))
        operation_id = front.train()
        host.work(operation_id)
        answer = _wait(front, operation_id, 0.2)
        assert RUNNING == answer.operation.status
        assert host.calls["WaitOperation"] <= 2


def test_an_end_found_by_another_reader_wakes_who_waits_for_a_place(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "host", wait_slots=1) as host,
        backend_on(tmp_path / "backend", host.address) as front,
        grpc.insecure_channel(host.address) as channel,
    ):
        host.work(front.train())
        _crowded(host, operations_service_pb2_grpc.OperationsServiceStub(channel))
        operation_id = front.train()
        work = host.work(operation_id)
        call = _begin_wait(front, operation_id)
        work.finish()
        eventually(lambda: front.operation(operation_id).status == COMPLETED)
        assert COMPLETED == call.result(PATIENCE).operation.status


def test_a_backend_without_slots_sends_waiters_home_and_the_host_knows_nothing(
    tmp_path: Path, host: ScriptedHost
) -> None:
    with backend_on(tmp_path / "backend", host.address, wait_limit=1) as front:
        operation_id = front.train()
        work = host.work(operation_id)
        first = _begin_wait(front, operation_id)
        eventually(lambda: host.calls["WaitOperation"] == 1)
        answers = [_wait(front, operation_id, 60) for _ in range(10)]
        assert all(answer.retry_after.ToMilliseconds() >= 250 for answer in answers)
        assert {RUNNING} == {answer.operation.status for answer in answers}
        assert 1 == host.calls["WaitOperation"]
        work.finish()
        assert COMPLETED == first.result(PATIENCE).operation.status


def test_a_backend_that_stops_sends_waiters_home_and_the_training_goes_on(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    call = _begin_wait(front, operation_id)
    eventually(lambda: host.operations._room._free == 15)
    stopping = threading.Thread(target=front.stop)
    stopping.start()
    answer = call.result(PATIENCE)
    stopping.join(PATIENCE)
    assert RUNNING == answer.operation.status
    assert answer.HasField("retry_after")
    eventually(lambda: host.operations._room._free == 16)
    work.report_epochs(1)  # raises if it was told to stop
    assert not work.bridge.cancel.requested


def test_the_same_wait_at_the_host_itself_is_no_different(
    front: RunningBackend,
    host: ScriptedHost,
    at_host: operations_service_pb2_grpc.OperationsServiceStub,
    operation_id: str,
    work: ScriptedWork,
) -> None:
    request = pb.WaitOperationRequest(
        operation_id=host_id(operation_id), timeout=Duration(seconds=60)
    )
    there: Answer = at_host.WaitOperation.future(request)
    here = _begin_wait(front, operation_id)
    eventually(lambda: host.calls["WaitOperation"] == 2)
    work.finish()
    ends = [call.result(PATIENCE).operation for call in (there, here)]
    assert [COMPLETED] * 2 == [end.status for end in ends]
    assert ends[0].end_time == ends[1].end_time
