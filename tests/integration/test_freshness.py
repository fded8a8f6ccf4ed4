"""Caching as a contract: who causes a read, and what an answer says of its age."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
from grpc import StatusCode

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations.bridge import BridgeSnapshot
from shared.operations.live import LiveOperation
from shared.operations.refresh import Refreshed, Refresher
from tests.integration.refusals import outcome_of
from tests.integration.running import PENDING, RunningBackend, running_backend
from tests.support.eventually import eventually
from tests.support.scripted_work import PATIENCE, ScriptedWork

NEVER = 60.0
"""A TTL that does not end within a test."""


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """A backend whose cache stays good for as long as a test takes."""
    with running_backend(
        tmp_path_factory.mktemp("home"), cache_ttl=NEVER, training_workers=4, training_queue=100
    ) as running:
        yield running


@pytest.fixture
def work(patient: RunningBackend) -> Iterator[ScriptedWork]:
    """Work that runs and has just been read."""
    work = patient.scripted.start_running()
    patient.operation(work.operation_id)
    work.bridge.reads = 0
    yield work
    work.finish()


def _poll(running: RunningBackend, operation_id: str, times: int) -> None:
    for _ in range(times):
        running.operations.GetOperation(pb.GetOperationRequest(operation_id=operation_id))


def test_clients_that_poll_within_the_ttl_cause_no_read_beyond_the_first(
    patient: RunningBackend,
) -> None:
    work = patient.scripted.start_running()
    work.report_epochs(1)
    with ThreadPoolExecutor(3) as clients:
        polls = [clients.submit(_poll, patient, work.operation_id, 50) for _ in range(3)]
        for poll in polls:
            poll.result(PATIENCE)
    assert 1 == work.bridge.reads
    work.finish()


def test_three_clients_polling_for_a_second_cause_one_read_per_ttl(tmp_path: Path) -> None:
    ttl, seconds = 0.5, 1.0
    with running_backend(tmp_path, cache_ttl=ttl) as running:
        work = running.scripted.start_running()
        running.operation(work.operation_id)
        work.bridge.reads = 0
        began = monotonic()

        def poll() -> int:
            polls = 0
            while monotonic() - began < seconds:
                _poll(running, work.operation_id, 1)
                polls += 1
            return polls

        with ThreadPoolExecutor(3) as clients:
            polls = sum(client.result(PATIENCE) for client in [clients.submit(poll) for _ in "123"])
        took = monotonic() - began
    assert polls > 50
    assert 1 <= work.bridge.reads <= took / ttl + 1


def test_every_way_to_look_shares_one_cache(patient: RunningBackend, work: ScriptedWork) -> None:
    stub = patient.operations
    stub.GetMetrics(pb.GetMetricsRequest(operation_id=work.operation_id))
    stub.ListOperations(pb.ListOperationsRequest(active_only=True))
    stub.GetOperation(pb.GetOperationRequest(operation_id=work.operation_id, metrics_cursor=0))
    assert 0 == work.bridge.reads


def test_an_answer_from_the_cache_says_so_and_how_old_it_is(
    patient: RunningBackend, work: ScriptedWork
) -> None:
    freshness = patient.operations.GetOperation(
        pb.GetOperationRequest(operation_id=work.operation_id)
    ).operation.freshness
    assert freshness.cached
    assert operation_pb2.FRESHNESS_SOURCE_BRIDGE == freshness.source
    assert freshness.age.ToNanoseconds() > 0
    assert not freshness.HasField("refresh_error")
    (hop,) = freshness.path
    assert hop.cached
    assert freshness.age == hop.age


def test_force_refresh_reads_every_time(patient: RunningBackend, work: ScriptedWork) -> None:
    for reads in (1, 2, 3):
        work.report_epochs(1, first=reads)
        answer = patient.get(work.operation_id, force_refresh=True)
        assert reads == answer.operation.metrics_count
        assert reads == work.bridge.reads
        assert not answer.operation.freshness.cached


def test_a_staleness_bound_of_zero_is_force_refresh(
    patient: RunningBackend, work: ScriptedWork
) -> None:
    patient.get(work.operation_id, max_staleness={"seconds": 0})
    assert 1 == work.bridge.reads


def test_a_staleness_bound_is_met_from_the_cache_if_that_is_young_enough(
    patient: RunningBackend, work: ScriptedWork
) -> None:
    answer = patient.get(work.operation_id, max_staleness={"seconds": 30})
    assert 0 == work.bridge.reads
    assert answer.operation.freshness.cached
    assert answer.operation.freshness.age.ToTimedelta().total_seconds() <= 30


def test_a_staleness_bound_tighter_than_the_ttl_reads_once_the_cache_is_older(
    patient: RunningBackend, work: ScriptedWork
) -> None:
    bound = {"nanos": 20_000_000}

    def read_again() -> bool:
        answer = patient.get(work.operation_id, max_staleness=bound)
        assert answer.operation.freshness.age.ToTimedelta().total_seconds() <= 0.02
        return work.bridge.reads > 0

    eventually(read_again)


def test_forced_callers_that_come_during_a_read_share_the_next_one(
    patient: RunningBackend, work: ScriptedWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = 8
    arrived: list[float] = []
    refresh, snapshot = Refresher.refresh, work.bridge.snapshot

    def note_arrival(
        refresher: Refresher, live: LiveOperation, staleness: float, deadline: float
    ) -> Refreshed:
        arrived.append(staleness)
        return refresh(refresher, live, staleness, deadline)

    def slow(cursor: int = 0, limit: int | None = None) -> BridgeSnapshot:
        eventually(lambda: len(arrived) == callers)
        return snapshot(cursor, limit)

    monkeypatch.setattr(Refresher, "refresh", note_arrival)
    monkeypatch.setattr(work.bridge, "snapshot", slow)
    with ThreadPoolExecutor(callers) as clients:
        answers = list(clients.map(lambda _: patient.get(work.operation_id), range(callers)))
    assert not any(answer.operation.freshness.HasField("refresh_error") for answer in answers)
    # One under way, one for those who came meanwhile; and one for whoever was
    # still at the door when the first landed.
    assert 2 <= work.bridge.reads <= callers // 2


def test_a_finished_operation_is_never_read_again(
    patient: RunningBackend, work: ScriptedWork
) -> None:
    work.finish()
    patient.ended(work.operation_id)
    work.bridge.reads = 0
    for _ in range(3):
        assert not patient.get(work.operation_id, force_refresh=True).operation.freshness.cached
    assert 0 == work.bridge.reads


def test_a_strict_read_without_time_is_answered_or_out_of_time(
    patient: RunningBackend, work: ScriptedWork
) -> None:
    request = pb.GetOperationRequest(operation_id=work.operation_id, force_refresh=True)
    allowed = {StatusCode.OK, StatusCode.DEADLINE_EXCEEDED, StatusCode.UNAVAILABLE}
    for seconds in (1e-5, 1e-4, 1e-3, 5e-3, 5e-2):
        assert (
            outcome_of(partial(patient.operations.GetOperation, request, timeout=seconds))
            in allowed
        )


def test_an_operation_in_the_queue_says_that_nobody_is_at_it(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=1) as running:
        running.scripted.start_running()
        waiting = running.operation(running.scripted.start().operation_id)
        assert PENDING == waiting.status
        assert not waiting.HasField("progress")
        assert not waiting.HasField("start_time")
        assert not waiting.liveness.worker_alive
        assert not waiting.liveness.HasField("last_report_age")
        assert not waiting.freshness.HasField("refresh_error")


def test_reads_and_hits_are_logged_with_cursor_and_age(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ktrdr.operations")
    with running_backend(tmp_path, cache_ttl=NEVER) as running:
        work = running.scripted.start_running()
        id_ = work.operation_id
        work.report_epochs(3)
        running.operation(id_)
        _poll(running, id_, 1)
        work.finish()
        running.ended(id_)
    lines = [record.getMessage() for record in caplog.records if id_ in record.getMessage()]
    assert f"Registered local bridge for operation {id_}" == lines[0]
    assert f"Refreshed operation {id_} from bridge (cursor 0 → 3)" in lines
    assert any(line.startswith(f"Cache hit for operation {id_} (age=0.") for line in lines)
    assert f"Completed operation {id_} with results" in lines
