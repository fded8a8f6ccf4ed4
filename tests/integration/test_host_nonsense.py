"""A host that answers nonsense: the client is told so, and nothing it knew is spoilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1 import training_service_pb2 as training_pb
from tests.integration.hosted import Hosted, hosted
from tests.integration.refusals import refused
from tests.integration.running import COMPLETED, FAILED, RUNNING
from tests.support.answering import answering
from tests.support.false_hosts import HTTP_1, NOISE, says, says_nothing
from tests.support.rpc import served, service_of

Spoil = Callable[[pb.GetOperationResponse], object]
"""Makes nonsense of a true answer, in place."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path) as pair:
        yield pair


@contextmanager
def _spoiling(pair: Hosted, spoil: Spoil) -> Iterator[None]:
    """Lead the backend to a process that answers as the host does, spoilt."""
    with grpc.insecure_channel(pair.host.address) as channel, answering() as spoiler:
        stub = OperationsServiceStub(channel)

        def answer(request: pb.GetOperationRequest) -> pb.GetOperationResponse:
            true: pb.GetOperationResponse = stub.GetOperation(request)
            spoil(true)
            return true

        spoiler.answer("GetOperation", answer)
        pair.lead_to(spoiler.address)
        yield
        pair.lead_to(pair.host.address)


def _refuses_nonsense(pair: Hosted, operation_id: str, *reasons: str) -> None:
    """The operation is shown as it was known, with one of these reasons, in time."""
    answer = pair.look(operation_id, timeout=2.0, metrics_cursor=0)
    assert answer.operation.freshness.refresh_error.reason in reasons
    assert answer.operation.freshness.refresh_error.message
    assert RUNNING == answer.operation.status
    assert 3 == answer.operation.progress.current_step
    assert [1, 2, 3] == [metric.step for metric in answer.metrics]
    refusal = refused(lambda: pair.look(operation_id, timeout=2.0, force_refresh=True))
    assert StatusCode.UNAVAILABLE == refusal.code
    assert refusal.reason in reasons


def _forget(field: str) -> Spoil:
    return lambda answer: answer.operation.ClearField(field)  # type: ignore[arg-type]  # the stubs want a literal


def _put(field: str, value: object) -> Spoil:
    return lambda answer: setattr(answer.operation, field, value)


def _end(answer: pb.GetOperationResponse) -> None:
    answer.operation.status = COMPLETED
    answer.operation.end_time.GetCurrentTime()
    answer.operation.result.Pack(operation_pb2.Progress())


def _end_without_result(answer: pb.GetOperationResponse) -> None:
    answer.operation.status = COMPLETED
    answer.operation.end_time.GetCurrentTime()


def _fail_without_end_time(answer: pb.GetOperationResponse) -> None:
    answer.operation.status = FAILED
    answer.operation.error.reason = "WORKER_RAISED"


def _end_while_running(answer: pb.GetOperationResponse) -> None:
    _end(answer)
    answer.operation.status = RUNNING


def _skip(answer: pb.GetOperationResponse) -> None:
    """Leave out the first of two new metrics, as if it had been told before."""
    answer.metrics.extend(operation_pb2.Metric(kind="epoch", step=step) for step in (5,))
    answer.operation.metrics_count = 5
    answer.new_cursor = 5


def _more_than_counted(answer: pb.GetOperationResponse) -> None:
    answer.metrics.extend(operation_pb2.Metric(kind="epoch", step=step) for step in (4, 5))


SPOILT: dict[str, Spoil] = {
    "an unknown status": _put("status", 99),
    "no status": _forget("status"),
    "an unknown type": _put("type", 99),
    "another operation's id": _put("operation_id", "host_training_other"),
    "no id": _forget("operation_id"),
    "a negative count of metrics": _put("metrics_count", -1),
    "metrics that skip": _skip,
    "more metrics than it counts": _more_than_counted,
    "no freshness": _forget("freshness"),
    "freshness without a path": lambda answer: answer.operation.freshness.ClearField("path"),
    "a negative age": lambda answer: answer.operation.freshness.age.FromSeconds(-1),
    "an age beyond any time": lambda answer: setattr(
        answer.operation.freshness.age, "seconds", 2**62
    ),
    "an unknown source": lambda answer: setattr(answer.operation.freshness, "source", 99),
    "an impossible percentage": lambda answer: setattr(
        answer.operation.progress, "percentage", 300.0
    ),
    "no number for a percentage": lambda answer: setattr(
        answer.operation.progress, "percentage", float("nan")
    ),
    "a time that is none": lambda answer: setattr(answer.operation.create_time, "seconds", 2**62),
    "an end without a result": _end_without_result,
    "a failure without an end time": _fail_without_end_time,
    "a result while it runs": _end_while_running,
    "nothing at all": lambda answer: answer.Clear(),
}


@pytest.mark.parametrize("nonsense", SPOILT)
def test_an_answer_that_cannot_be_true_changes_nothing(pair: Hosted, nonsense: str) -> None:
    operation_id, work = pair.training(3)
    with _spoiling(pair, SPOILT[nonsense]):
        _refuses_nonsense(pair, operation_id, "MALFORMED_ANSWER")
    work.report_epochs(1, first=3)
    assert [1, 2, 3, 4] == pair.epochs(operation_id)


def test_an_end_whose_metrics_are_withheld_is_not_believed(pair: Hosted) -> None:
    operation_id, work = pair.training(3)
    work.report_epochs(2, first=3)

    def withhold(answer: pb.GetOperationResponse) -> None:
        _end(answer)
        answer.ClearField("metrics")
        answer.new_cursor, answer.has_more = 3, True

    with _spoiling(pair, withhold):
        answer = pair.look(operation_id, metrics_cursor=0)
        assert "LOG_NOT_CONTINUED" == answer.operation.freshness.refresh_error.reason
        assert RUNNING == answer.operation.status
        assert [1, 2, 3] == [metric.step for metric in answer.metrics]
    assert [1, 2, 3, 4, 5] == pair.epochs(operation_id)


@pytest.mark.parametrize("answer", [b"", b"\xff", NOISE, b"\x0a\xff\xff\xff\xff\x0f"])
def test_garbage_in_place_of_a_message_changes_nothing(pair: Hosted, answer: bytes) -> None:
    operation_id, work = pair.training(3)
    method: grpc.RpcMethodHandler[bytes, bytes]
    method = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
    name = "ktrdr.operations.v1.OperationsService"
    with served([service_of({"GetOperation": method}, name=name)]) as garbage:
        pair.lead_to(garbage.address)
        _refuses_nonsense(pair, operation_id, "MALFORMED_ANSWER")
    pair.lead_to(pair.host.address)
    work.report_epochs(1, first=3)
    assert [1, 2, 3, 4] == pair.epochs(operation_id)


def test_a_grpc_server_that_is_no_ktrdr_process_is_told_as_such(pair: Hosted) -> None:
    operation_id, _ = pair.training(3)
    with served([]) as stranger:
        pair.lead_to(stranger.address)
        _refuses_nonsense(pair, operation_id, "MALFORMED_ANSWER")
        refusal = refused(lambda: pair.running.train(request_id="abc"))
        assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
        assert pair.relay.address in refusal.message


@pytest.mark.parametrize("answer", [HTTP_1, NOISE, b""], ids=["http/1", "noise", "a closed door"])
def test_what_speaks_no_grpc_counts_as_unreachable(pair: Hosted, answer: bytes) -> None:
    operation_id, work = pair.training(3)
    with says(answer) as stranger:
        pair.lead_to(stranger)
        _refuses_nonsense(pair, operation_id, "HOST_UNREACHABLE")
        refusal = refused(lambda: pair.running.train(request_id="abc"))
        assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
    pair.lead_to(pair.host.address)
    work.report_epochs(1, first=3)
    assert [1, 2, 3, 4] == pair.epochs(operation_id)


def test_what_accepts_and_says_nothing_is_told_within_the_deadline(pair: Hosted) -> None:
    operation_id, work = pair.training(3)
    with says_nothing() as stranger:
        pair.lead_to(stranger)
        _refuses_nonsense(pair, operation_id, "HOST_UNREACHABLE")
    pair.lead_to(pair.host.address)
    work.report_epochs(1, first=3)
    assert [1, 2, 3, 4] == pair.epochs(operation_id)


def test_a_host_that_answers_nonsense_to_a_start_leaves_the_start_unknown(pair: Hosted) -> None:
    with answering() as false:
        page = pb.ListOperationsResponse(instance="some", incarnation="one")
        false.answer("ListOperations", page)
        false.answer("StartTraining", training_pb.StartTrainingResponse(session_id="other"))
        false.answer("GetOperation", pb.GetOperationResponse())
        pair.lead_to(false.address)
        operation_id = pair.running.train(request_id="abc")
        assert "MALFORMED_ANSWER" == pair.refresh_error(operation_id).reason
        assert {operation_id} == {call.request_id for call in false.calls("StartTraining")}
