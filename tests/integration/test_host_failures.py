"""What a client of the backend sees when a training host breaks, in every way it can."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from google.rpc import code_pb2
from grpc import StatusCode

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from tests.integration.hosted import Hosted, backend_on, host_id, hosted, let_end, restarted
from tests.integration.refusals import refused
from tests.integration.running import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    RUNNING,
    RunningBackend,
)
from tests.support.eventually import eventually
from tests.support.hosts import scripted_host
from tests.support.relay import Relay
from tests.support.scripted_work import PATIENCE

LISTING = pb.ListOperationsRequest()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path) as pair:
        yield pair


def _nothing_left(running: RunningBackend) -> bool:
    return not running.operations.ListOperations(LISTING).operations


# ------------------------------------------------------------------------ down


def test_a_training_is_refused_while_the_only_host_is_down_and_leaves_nothing(
    pair: Hosted,
) -> None:
    pair.relay.cut()
    refusal = refused(lambda: pair.running.train(request_id="abc"))
    assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
    assert refusal.retry_after is not None
    assert pair.relay.address in refusal.message
    assert _nothing_left(pair.running)


def test_the_refused_training_starts_under_the_same_id_as_soon_as_the_host_is_up(
    pair: Hosted,
) -> None:
    pair.relay.cut()
    refused(lambda: pair.running.train(request_id="abc"))
    pair.relay.restore()
    operation_id, _ = pair.training(2, request_id="abc")
    assert "op_training_abc" == operation_id
    assert [host_id(operation_id)] == list(pair.host.works)


def test_while_the_host_is_down_its_last_known_state_is_shown_and_why(pair: Hosted) -> None:
    operation_id, _ = pair.training(3)
    before = pair.running.operation(operation_id)
    pair.relay.cut()

    answer = pair.look(operation_id, metrics_cursor=0)
    shown = answer.operation
    assert RUNNING == shown.status
    assert [1, 2, 3] == [metric.step for metric in answer.metrics]
    assert before.progress == shown.progress
    error = shown.freshness.refresh_error
    assert ("HOST_UNREACHABLE", code_pb2.UNAVAILABLE) == (error.reason, error.code)
    assert error.retryable
    assert pair.relay.address == error.metadata["target"]
    assert shown.freshness.cached
    assert before.freshness.age.ToNanoseconds() < shown.freshness.age.ToNanoseconds()


def test_while_the_host_is_down_a_strict_read_is_refused(pair: Hosted) -> None:
    operation_id, _ = pair.training()
    pair.relay.cut()
    for strict in ({"force_refresh": True}, {"max_staleness": {"nanos": 1}}):
        refusal = refused(lambda strict=strict: pair.look(operation_id, **strict))  # type: ignore[misc]  # mypy knows no default
        assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)


def test_progress_resumes_at_the_first_forced_read_after_the_host_is_back(pair: Hosted) -> None:
    operation_id, work = pair.training(2)
    for outage in range(1, 4):
        pair.relay.cut()
        for _ in range(outage * 5):
            assert RUNNING == pair.look(operation_id).operation.status
        work.report_epochs(2, first=outage * 2)  # the host is well and goes on
        pair.relay.restore()
        assert list(range(1, outage * 2 + 3)) == pair.epochs(operation_id)
    work.finish()
    assert COMPLETED == pair.running.operation(operation_id).status
    assert list(range(1, 9)) == pair.known_epochs(operation_id)


def test_an_ordinary_look_resumes_too_without_anybody_forcing_it(pair: Hosted) -> None:
    operation_id, work = pair.training(2)
    pair.relay.cut()
    assert "HOST_UNREACHABLE" == pair.refresh_error(operation_id).reason
    work.report_epochs(2, first=2)
    pair.relay.restore()
    # The failure is remembered for a second, so that a dead host costs little.
    eventually(lambda: not pair.refresh_error(operation_id).reason)
    assert [1, 2, 3, 4] == pair.known_epochs(operation_id)


def test_a_failure_that_is_remembered_does_not_delay_a_forced_read(tmp_path: Path) -> None:
    with hosted(tmp_path, cache_ttl=60.0) as pair:
        operation_id, work = pair.training(1)
        pair.relay.cut()
        refused(lambda: pair.running.operation(operation_id))
        work.report_epochs(1, first=1)
        pair.relay.restore()
        assert [1, 2] == pair.epochs(operation_id)


def test_an_end_that_nobody_saw_arrives_with_every_metric_once_the_host_is_back(
    pair: Hosted,
) -> None:
    operation_id, work = pair.training(1)
    pair.relay.cut()
    pair.look(operation_id)
    work.report_epochs(6, first=1)
    work.finish()
    let_end(pair.host)
    assert RUNNING == pair.look(operation_id).operation.status
    pair.relay.restore()
    answer = pair.running.get(operation_id, metrics_cursor=0)
    assert COMPLETED == answer.operation.status
    assert list(range(1, 8)) == [metric.step for metric in answer.metrics]


def test_a_cancellation_that_cannot_reach_the_host_changes_nothing(pair: Hosted) -> None:
    operation_id, work = pair.training()
    pair.relay.cut()
    refusal = refused(lambda: pair.running.cancel(operation_id, "enough"))
    assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
    assert RUNNING == pair.look(operation_id).operation.status
    pair.relay.restore()
    assert CANCELLING == pair.running.cancel(operation_id, "enough").status
    work.notice_cancel()
    assert CANCELLED == pair.running.ended(operation_id).status


# ---------------------------------------------------------- killed, restarted


def test_a_host_that_was_killed_and_knows_nothing_has_lost_the_operation(
    pair: Hosted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ktrdr.operations")
    operation_id, _ = pair.training(3)
    with restarted(pair.host, tmp_path):
        answer = pair.running.get(operation_id, metrics_cursor=0)

    lost = answer.operation
    assert FAILED == lost.status
    assert ("OPERATION_LOST", code_pb2.DATA_LOSS) == (lost.error.reason, lost.error.code)
    assert lost.error.retryable
    assert [1, 2, 3] == [metric.step for metric in answer.metrics]
    assert lost.HasField("end_time")
    assert 3 == lost.progress.current_step
    assert f"Operation {operation_id} ended FAILED: OPERATION_LOST" in caplog.text


def test_the_loss_is_final_whatever_becomes_of_the_host(pair: Hosted, tmp_path: Path) -> None:
    operation_id, _ = pair.training(2)
    with restarted(pair.host, tmp_path):
        lost = pair.running.operation(operation_id)
    pair.relay.cut()
    assert lost == pair.running.operation(operation_id)


def test_a_listing_and_a_wait_find_the_loss_as_a_look_does(pair: Hosted, tmp_path: Path) -> None:
    listed, _ = pair.training(1)
    waited, _ = pair.training(2)
    with restarted(pair.host, tmp_path):
        (row,) = [
            each
            for each in pair.running.operations.ListOperations(LISTING).operations
            if each.operation_id == listed
        ]
        assert (FAILED, "OPERATION_LOST") == (row.status, row.error.reason)
        assert "OPERATION_LOST" == pair.running.ended(waited).error.reason
        assert [1, 2] == pair.known_epochs(waited)


def test_one_who_waits_when_the_host_is_killed_learns_of_the_loss(
    pair: Hosted, tmp_path: Path
) -> None:
    operation_id, _ = pair.training(1)
    request = pb.WaitOperationRequest(operation_id=operation_id)
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(pair.running.operations.WaitOperation, request, timeout=30)
        eventually(lambda: pair.host.calls["WaitOperation"] > 0)
        with restarted(pair.host, tmp_path):
            answered = waiting.result(PATIENCE).operation  # sent home if nobody was up yet
            assert answered.status in {RUNNING, FAILED}
            assert "OPERATION_LOST" == pair.running.ended(operation_id).error.reason


def test_cancelling_a_lost_operation_tells_that_it_is_lost(pair: Hosted, tmp_path: Path) -> None:
    operation_id, _ = pair.training(1)
    with restarted(pair.host, tmp_path):
        cancelled = pair.running.cancel(operation_id)
    assert (FAILED, "OPERATION_LOST") == (cancelled.status, cancelled.error.reason)


def test_the_restarted_host_takes_new_trainings_from_the_same_backend(
    pair: Hosted, tmp_path: Path
) -> None:
    lost, _ = pair.training(1, request_id="first")
    with restarted(pair.host, tmp_path) as again:
        operation_id = pair.running.train(request_id="second")
        again.work(operation_id).report_epochs(2)
        assert [1, 2] == pair.epochs(operation_id)
        assert "OPERATION_LOST" == pair.running.operation(lost).error.reason


# ------------------------------------------------------------- another process


def test_another_instance_at_the_address_is_not_believed(pair: Hosted, tmp_path: Path) -> None:
    operation_id, work = pair.training(2, request_id="abc")
    with scripted_host(tmp_path / "other") as other, backend_on(tmp_path, other.address) as theirs:
        theirs.train(request_id="abc")  # there it has an operation of the same name
        other.work(operation_id).report_epochs(9)
        pair.lead_to(other.address)

        answer = pair.look(operation_id, metrics_cursor=0)
        error = answer.operation.freshness.refresh_error
        assert "WRONG_HOST" == error.reason
        assert pair.host.instance.id == error.metadata["expected"]
        assert other.instance.id == error.metadata["found"]
        assert RUNNING == answer.operation.status
        assert [1, 2] == [metric.step for metric in answer.metrics]
        refusal = refused(lambda: pair.running.operation(operation_id))
        assert (StatusCode.UNAVAILABLE, "WRONG_HOST") == (refusal.code, refusal.reason)

        work.report_epochs(1, first=2)
        pair.lead_to(pair.host.address)
        assert [1, 2, 3] == pair.epochs(operation_id)
        let_end(other)


def test_another_instance_that_does_not_know_the_operation_has_not_lost_it(
    pair: Hosted, tmp_path: Path
) -> None:
    operation_id, work = pair.training(2)
    with scripted_host(tmp_path / "other") as other:
        pair.lead_to(other.address)
        assert "WRONG_HOST" == pair.refresh_error(operation_id).reason
        refusal = refused(lambda: pair.running.cancel(operation_id))
        assert (StatusCode.UNAVAILABLE, "WRONG_HOST") == (refusal.code, refusal.reason)
        (row,) = pair.running.operations.ListOperations(LISTING).operations
        assert (RUNNING, "WRONG_HOST") == (row.status, row.freshness.refresh_error.reason)
    pair.lead_to(pair.host.address)
    work.finish()
    assert COMPLETED == pair.running.ended(operation_id).status


def test_a_cancellation_never_stops_the_training_of_another_instance(
    pair: Hosted, tmp_path: Path
) -> None:
    operation_id, _ = pair.training(1, request_id="abc")
    with scripted_host(tmp_path / "other") as other, backend_on(tmp_path, other.address) as theirs:
        theirs.train(request_id="abc")
        other.work(operation_id)
        pair.lead_to(other.address)
        refusal = refused(lambda: pair.running.cancel(operation_id))
        assert (StatusCode.UNAVAILABLE, "WRONG_HOST") == (refusal.code, refusal.reason)
        assert RUNNING == theirs.operation(operation_id).status
        let_end(other)


# ------------------------------------------------------------------- loops


def test_a_backend_that_is_its_own_host_refuses_to_start_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    with closing(Relay("127.0.0.1:1")) as relay, backend_on(tmp_path, relay.address) as running:
        relay.point_at(running.address)
        refusal = refused(lambda: running.train(request_id="abc"))
        assert (StatusCode.FAILED_PRECONDITION, "PROXY_LOOP") == (refusal.code, refusal.reason)
        assert "TRAINING_HOST_SERVICE_URL" in refusal.message
        assert _nothing_left(running)
        assert "PROXY_LOOP" == refused(lambda: running.train(request_id="abc")).reason


def test_two_backends_that_are_each_others_host_refuse_to_start_and_keep_nothing(
    tmp_path: Path,
) -> None:
    with (
        closing(Relay("127.0.0.1:1")) as relay,
        backend_on(tmp_path / "one", relay.address) as one,
        backend_on(tmp_path / "two", one.address) as two,
    ):
        relay.point_at(two.address)
        for running in (one, two):
            refusal = refused(lambda running=running: running.train(request_id="abc"))  # type: ignore[misc]  # mypy knows no default
            assert (StatusCode.FAILED_PRECONDITION, "PROXY_LOOP") == (refusal.code, refusal.reason)
            assert _nothing_left(one)
            assert _nothing_left(two)


def test_an_address_that_comes_to_lead_back_to_the_backend_is_told_as_such(pair: Hosted) -> None:
    operation_id, work = pair.training(2)
    pair.lead_to(pair.running.address)
    answer = pair.look(operation_id, metrics_cursor=0)
    assert "PROXY_LOOP" == answer.operation.freshness.refresh_error.reason
    assert RUNNING == answer.operation.status
    assert [1, 2] == [metric.step for metric in answer.metrics]
    refusal = refused(lambda: pair.running.operation(operation_id))
    assert (StatusCode.UNAVAILABLE, "PROXY_LOOP") == (refusal.code, refusal.reason)
    pair.lead_to(pair.host.address)
    work.report_epochs(1, first=2)
    assert [1, 2, 3] == pair.epochs(operation_id)


# ------------------------------------------------------- asked during a refresh


def _flies(pair: Hosted, operation_id: str) -> Callable[[], bool]:
    """Whether a refresh is on its way."""
    live = pair.running.backend.operations._registry._live[operation_id]
    return lambda: live.flight is not None


def _error_of(answer: Future[pb.GetOperationResponse]) -> operation_pb2.OperationError:
    return answer.result(PATIENCE).operation.freshness.refresh_error


def test_callers_share_a_refresh_on_its_way_and_each_is_answered_within_its_deadline(
    pair: Hosted,
) -> None:
    operation_id, work = pair.training(1)
    asked = pair.host.calls["GetOperation"]
    pair.relay.freeze()
    with ThreadPoolExecutor(5) as clients:
        patient = clients.submit(pair.look, operation_id)
        eventually(_flies(pair, operation_id))
        hasty = [clients.submit(pair.look, operation_id, timeout=1.5) for _ in range(4)]
        for each in hasty:
            assert "HOST_UNREACHABLE" == _error_of(each).reason
        assert not patient.done()
        work.report_epochs(1, first=1)
        pair.relay.thaw()
        assert not _error_of(patient).reason
    assert asked + 1 == pair.host.calls["GetOperation"]
    assert [1, 2] == pair.known_epochs(operation_id)


def test_one_with_time_left_reads_on_when_the_reader_it_waited_for_gives_up(
    pair: Hosted,
) -> None:
    operation_id, work = pair.training(1)
    pair.relay.freeze()
    with ThreadPoolExecutor(2) as clients:
        hasty = clients.submit(pair.look, operation_id, timeout=1.0)
        eventually(_flies(pair, operation_id))
        patient = clients.submit(pair.look, operation_id)
        assert "HOST_UNREACHABLE" == _error_of(hasty).reason
        work.report_epochs(1, first=1)
        pair.relay.thaw()
        assert not _error_of(patient).reason
    assert [1, 2] == pair.known_epochs(operation_id)


def test_a_frozen_host_is_told_within_the_deadline_and_goes_on_when_it_thaws(
    pair: Hosted,
) -> None:
    operation_id, work = pair.training(2)
    pair.relay.freeze()
    for look in (pair.look, pair.look):
        answer = look(operation_id, timeout=1.5, metrics_cursor=0)
        assert "HOST_UNREACHABLE" == answer.operation.freshness.refresh_error.reason
        assert [1, 2] == [metric.step for metric in answer.metrics]
    work.report_epochs(1, first=2)
    pair.relay.thaw()
    assert [1, 2, 3] == pair.epochs(operation_id)
