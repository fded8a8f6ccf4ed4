"""Starts that go wrong on the way to a host: nothing runs twice, nothing runs unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2
from grpc import StatusCode

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1 import training_service_pb2 as training_pb
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub
from shared.operations.endings import NEVER_STARTED
from shared.operations.model import OperationStatus
from shared.rpc.errors import UnavailableError
from tests.integration.hosted import Hosted, backend_on, host_id, hosted, let_end, restarted
from tests.integration.refusals import refused
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
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.scripted_work import PATIENCE

START = b"fuzzy_sets"
"""Stands in the strategy, so in every StartTraining and in no other call."""
ID = "op_training_abc"


class Started:
    """Counts the starts that reach a host, and does something at the first."""

    def __init__(self, host: ScriptedHost) -> None:
        self.count = 0
        self.at_first: Callable[[], None] = lambda: None
        host.before_start = self._note

    def _note(self) -> None:
        self.count += 1
        if self.count == 1:
            self.at_first()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path, workers=1, queue_limit=0) as pair:
        yield pair


@pytest.fixture
def started(pair: Hosted) -> Started:
    return Started(pair.host)


def _start(running: RunningBackend, timeout: float = 20.0) -> operation_pb2.Operation:
    """Start the training that all these tests are about."""
    request = training_pb.StartTrainingRequest(strategy_yaml=SMALL, request_id="abc")
    operation: operation_pb2.Operation = running.training.StartTraining(
        request, timeout=timeout
    ).operation
    assert ID == operation.operation_id
    return operation


def _on_host(host: ScriptedHost) -> list[str]:
    """The ids of all operations that the host knows."""
    with grpc.insecure_channel(host.address) as channel:
        listed = OperationsServiceStub(channel).ListOperations(pb.ListOperationsRequest())
        return [each.operation_id for each in listed.operations]


def _never_tell(pair: Hosted) -> operation_pb2.Operation:
    """Start while every start is lost on its way to the host."""
    pair.relay.before(START, pair.relay.cut)
    operation = _start(pair.running)
    assert not pair.host.works
    return operation


@contextmanager
def _busy(host: ScriptedHost) -> Iterator[None]:
    """Keep the host's only worker at another training, started by somebody else."""
    with grpc.insecure_channel(host.address) as channel:
        request = training_pb.StartTrainingRequest(strategy_yaml=SMALL, request_id="other")
        TrainingServiceStub(channel).StartTraining(request, timeout=PATIENCE)
    other = host.work("other")
    yield
    other.finish()
    eventually(lambda: host.operations.get_operation(host_id("other")).operation.status.terminal)
    eventually(lambda: not host.pool._threads)


# ---------------------------------------------------------------- answer lost


def test_a_host_that_does_not_say_whether_it_has_begun_is_asked_again_at_once(
    pair: Hosted, started: Started
) -> None:
    def say_nothing_clear() -> None:
        raise UnavailableError("Come back.", reason="START_UNDER_WAY")

    started.at_first = say_nothing_clear
    assert not _start(pair.running).freshness.HasField("refresh_error")
    assert 2 == started.count
    assert [host_id(ID)] == _on_host(pair.host)


def test_a_start_whose_answer_is_lost_runs_once_and_is_found_at_once(
    pair: Hosted, started: Started
) -> None:
    def lose_the_answer() -> None:
        pair.relay.cut()
        pair.relay.restore()

    started.at_first = lose_the_answer
    operation = _start(pair.running)
    assert not operation.freshness.HasField("refresh_error")
    assert [host_id(ID)] == _on_host(pair.host)
    pair.host.work(ID).report_epochs(2)
    assert [1, 2] == pair.epochs(ID)


def test_a_start_that_stays_unanswered_is_pending_and_says_why(
    pair: Hosted, started: Started
) -> None:
    started.at_first = pair.relay.cut
    operation = _start(pair.running)
    assert PENDING == operation.status
    error = operation.freshness.refresh_error
    assert ("HOST_UNREACHABLE", code_pb2.UNAVAILABLE) == (error.reason, error.code)
    assert host_id(ID) == operation.metadata["host_operation_id"]
    assert pair.relay.address == operation.metadata["host_service_url"]


def test_the_next_read_finds_the_one_operation_that_had_begun(
    pair: Hosted, started: Started
) -> None:
    started.at_first = pair.relay.cut
    _start(pair.running)
    work = pair.host.work(ID)
    work.report_epochs(2)
    pair.relay.restore()
    assert RUNNING == pair.running.operation(ID).status
    assert [1, 2] == pair.epochs(ID)
    assert 1 == started.count
    assert [host_id(ID)] == _on_host(pair.host)
    work.finish()
    assert COMPLETED == pair.running.ended(ID).status


def test_the_same_request_again_finds_the_operation_whose_start_is_unknown(
    pair: Hosted, started: Started
) -> None:
    started.at_first = pair.relay.cut
    _start(pair.running)
    again = _start(pair.running)
    assert (PENDING, ID) == (again.status, again.operation_id)
    pair.relay.restore()
    pair.host.work(ID)
    assert RUNNING == pair.running.operation(ID).status
    assert [host_id(ID)] == _on_host(pair.host)


# ----------------------------------------------------------------- never told


def test_a_host_that_was_never_told_is_told_by_the_next_read_once(
    pair: Hosted, started: Started
) -> None:
    assert PENDING == _never_tell(pair).status
    assert 0 == started.count
    pair.relay.restore()
    pair.running.operation(ID)
    assert 1 == started.count
    pair.host.work(ID).report_epochs(2)
    assert [1, 2] == pair.epochs(ID)
    assert 1 == started.count
    assert [host_id(ID)] == _on_host(pair.host)


def test_a_host_is_not_told_of_what_another_backend_has_given_up_meanwhile(
    pair: Hosted, started: Started
) -> None:
    _never_tell(pair)
    store = pair.running.backend.operations._store
    kept = store.get(ID)
    assert kept is not None
    ended = replace(
        kept.operation, status=OperationStatus.FAILED, end_time=kept.operation.create_time
    )
    store.finish(kept.of(replace(ended, error=NEVER_STARTED)))
    pair.relay.restore()

    operation = pair.running.operation(ID)

    assert (FAILED, "NEVER_STARTED") == (operation.status, operation.error.reason)
    assert 0 == started.count


def test_readers_who_come_together_tell_the_host_once(pair: Hosted, started: Started) -> None:
    _never_tell(pair)
    pair.relay.restore()
    with ThreadPoolExecutor(6) as clients:
        reads = [clients.submit(pair.look, ID, force_refresh=True) for _ in range(6)]
        for read in reads:
            assert read.result(PATIENCE).operation.status in {PENDING, RUNNING}
    assert 1 == started.count
    assert [host_id(ID)] == _on_host(pair.host)


def test_an_ordinary_look_tells_the_host_too(pair: Hosted, started: Started) -> None:
    _never_tell(pair)
    pair.relay.restore()
    eventually(lambda: RUNNING == pair.look(ID).operation.status)
    assert 1 == started.count


def test_a_listing_starts_nothing_and_says_that_the_start_is_unknown(
    pair: Hosted, started: Started
) -> None:
    _never_tell(pair)
    pair.relay.restore()

    def row() -> operation_pb2.Operation:
        listed: pb.ListOperationsResponse = pair.running.operations.ListOperations(
            pb.ListOperationsRequest()
        )
        return listed.operations[0]

    eventually(lambda: row().freshness.refresh_error.reason == "START_UNKNOWN")
    assert PENDING == row().status
    assert 0 == started.count


def test_a_frozen_host_leaves_the_start_unknown_within_the_clients_deadline(
    pair: Hosted, started: Started
) -> None:
    pair.relay.before(START, pair.relay.freeze)
    operation = _start(pair.running, timeout=3.0)
    assert PENDING == operation.status
    assert "HOST_UNREACHABLE" == operation.freshness.refresh_error.reason
    pair.relay.cut()  # with all that has not passed
    pair.relay.thaw()
    pair.relay.restore()
    pair.running.operation(ID)
    assert 1 == started.count
    assert [host_id(ID)] == _on_host(pair.host)
    pair.host.work(ID)
    assert RUNNING == pair.running.operation(ID).status


def test_starts_that_thaw_late_meet_the_one_that_was_repeated(
    pair: Hosted, started: Started
) -> None:
    pair.relay.before(START, pair.relay.freeze)
    assert PENDING == _start(pair.running, timeout=3.0).status
    pair.relay.thaw()  # what was given up may still arrive, before or after the repeat
    pair.running.operation(ID)
    pair.host.work(ID).report_epochs(2)
    assert [1, 2] == pair.epochs(ID)
    assert [host_id(ID)] == _on_host(pair.host)


def test_a_host_restarted_before_it_answered_has_lost_the_operation(
    pair: Hosted, tmp_path: Path
) -> None:
    _never_tell(pair)
    with restarted(pair.host, tmp_path) as again:
        pair.relay.restore()
        lost = pair.running.operation(ID)
        assert (FAILED, "OPERATION_LOST") == (lost.status, lost.error.reason)
        assert lost.error.retryable
        assert [] == _on_host(again)


def test_a_host_killed_after_it_began_has_lost_the_operation_too(
    pair: Hosted, started: Started, tmp_path: Path
) -> None:
    started.at_first = pair.relay.cut
    _start(pair.running)
    pair.host.work(ID)
    with restarted(pair.host, tmp_path):
        pair.relay.restore()
        lost = pair.running.operation(ID)
    assert (FAILED, "OPERATION_LOST") == (lost.status, lost.error.reason)


# ------------------------------------------------------------------- cancelled


def test_cancelling_one_that_had_begun_unknown_stops_it(pair: Hosted, started: Started) -> None:
    started.at_first = pair.relay.cut
    _start(pair.running)
    work = pair.host.work(ID)
    pair.relay.restore()
    assert CANCELLING == pair.running.cancel(ID, "enough").status
    work.notice_cancel()
    ended = pair.running.ended(ID)
    assert (CANCELLED, "enough") == (ended.status, ended.cancel_reason)
    assert 1 == started.count


def test_cancelling_one_that_was_never_told_leaves_nothing_running(
    pair: Hosted, started: Started
) -> None:
    _never_tell(pair)
    pair.relay.restore()
    assert pair.running.cancel(ID).status in {CANCELLING, CANCELLED}
    pair.host.works[host_id(ID)].notice_cancel()  # if a worker came to be at it
    assert CANCELLED == pair.running.ended(ID).status
    eventually(lambda: not pair.host.operations._local())
    assert 1 == started.count


def test_cancelling_while_the_host_is_away_changes_nothing(pair: Hosted, started: Started) -> None:
    started.at_first = pair.relay.cut
    _start(pair.running)
    refusal = refused(lambda: pair.running.cancel(ID))
    assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
    assert PENDING == pair.look(ID).operation.status
    pair.relay.restore()
    pair.host.work(ID)
    assert RUNNING == pair.running.operation(ID).status


# ------------------------------------------------------------ refused later on


def test_a_repeated_start_that_finds_the_host_full_stays_pending_and_says_so(
    pair: Hosted, started: Started
) -> None:
    _never_tell(pair)
    with _busy(pair.host):
        pair.relay.restore()
        eventually(lambda: pair.refresh_error(ID).reason == "WORKERS_BUSY")
        operation = pair.look(ID).operation
        assert PENDING == operation.status
        refusal = refused(lambda: pair.running.operation(ID))
        assert (StatusCode.UNAVAILABLE, "WORKERS_BUSY") == (refusal.code, refusal.reason)
        assert [host_id("other")] == _on_host(pair.host)
    pair.running.operation(ID)  # asks again, and there is room
    pair.host.work(ID)
    assert RUNNING == pair.running.operation(ID).status


def test_a_repeated_start_that_the_host_refuses_for_good_fails_with_its_reason(
    pair: Hosted,
) -> None:
    pair.relay.before(START, pair.relay.cut)
    operation_id = pair.running.train(request_id="abc", symbols=["NOWHERE"])
    assert PENDING == pair.look(operation_id).operation.status
    pair.relay.restore()
    failed = pair.running.operation(operation_id)
    assert FAILED == failed.status
    assert ("INVALID_ARGUMENT", False) == (failed.error.reason, failed.error.retryable)
    assert "NOWHERE" in failed.error.message
    assert [] == _on_host(pair.host)


def test_a_start_that_the_host_refuses_for_good_leaves_nothing_behind(pair: Hosted) -> None:
    refusal = refused(lambda: pair.running.train(request_id="abc", symbols=["NOWHERE"]))
    assert StatusCode.INVALID_ARGUMENT == refusal.code
    assert any("NOWHERE" in text for text in refusal.fields.values())
    assert ID == _start(pair.running).operation_id  # the id is free


# ---------------------------------------------------------- other hosts at hand


@pytest.fixture
def second(tmp_path: Path) -> Iterator[ScriptedHost]:
    with scripted_host(tmp_path / "second") as second:
        yield second
        let_end(second)


@contextmanager
def _on_both(pair: Hosted, second: ScriptedHost, home: Path) -> Iterator[RunningBackend]:
    """A backend that would take the pair's host first: both are idle, and it is named first."""
    with backend_on(home / "both", pair.relay.address, second.address) as running:
        yield running


@pytest.mark.parametrize("loss", ["its answer is cut off", "the request is cut off", "it freezes"])
def test_a_host_that_may_have_begun_is_never_passed_over(
    pair: Hosted, second: ScriptedHost, tmp_path: Path, loss: str
) -> None:
    if loss == "its answer is cut off":
        Started(pair.host).at_first = pair.relay.cut
    else:
        pair.relay.before(START, pair.relay.freeze if loss == "it freezes" else pair.relay.cut)
    with _on_both(pair, second, tmp_path) as running:
        operation = _start(running, timeout=3.0)
        assert PENDING == operation.status
        assert pair.relay.address == operation.metadata["host_service_url"]
        assert "HOST_UNREACHABLE" == operation.freshness.refresh_error.reason
        assert not second.works
        pair.relay.thaw()


def test_a_host_that_cannot_be_reached_is_passed_over(
    pair: Hosted, second: ScriptedHost, tmp_path: Path
) -> None:
    with _on_both(pair, second, tmp_path) as running:
        pair.relay.cut()
        assert second.address == _start(running).metadata["host_service_url"]
        assert [host_id(ID)] == list(second.works)


def test_a_host_that_fills_up_before_it_is_told_is_passed_over(
    pair: Hosted, second: ScriptedHost, tmp_path: Path
) -> None:
    with _on_both(pair, second, tmp_path) as running, ExitStack() as until_the_end:
        busy = lambda: until_the_end.enter_context(_busy(pair.host))  # noqa: E731  # for the relay
        pair.relay.before(START, busy)
        assert second.address == _start(running).metadata["host_service_url"]
        assert [host_id("other")] == _on_host(pair.host)
        assert [host_id(ID)] == list(second.works)
