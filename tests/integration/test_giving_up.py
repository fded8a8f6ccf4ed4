"""Giving up an operation whose owner does not come back: somebody has to decide it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from tests.integration.hosted import Hosted, hosted
from tests.integration.refusals import refused
from tests.integration.running import CANCELLED, CANCELLING, FAILED, RUNNING, RunningBackend
from tests.support.eventually import eventually
from tests.support.hosts import scripted_host
from tests.support.scripted_work import PATIENCE


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path) as pair:
        yield pair


def give_up(
    backend: RunningBackend, operation_id: str, reason: str = ""
) -> operation_pb2.Operation:
    request = pb.CancelOperationRequest(operation_id=operation_id, reason=reason, give_up=True)
    operation: operation_pb2.Operation = backend.operations.CancelOperation(request).operation
    return operation


def active(backend: RunningBackend) -> list[str]:
    page = backend.operations.ListOperations(pb.ListOperationsRequest(active_only=True))
    return [operation.operation_id for operation in page.operations]


def test_without_being_told_so_nothing_ends_because_its_owner_is_away(pair: Hosted) -> None:
    operation_id, _ = pair.training(2)
    pair.relay.cut()
    refusal = refused(lambda: pair.running.cancel(operation_id))
    assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
    assert RUNNING == pair.look(operation_id).operation.status
    assert [operation_id] == active(pair.running)


def test_what_is_given_up_has_failed_and_says_that_nobody_knows_how_it_ended(pair: Hosted) -> None:
    operation_id, _ = pair.training(3)
    pair.epochs(operation_id)
    pair.relay.cut()
    end = give_up(pair.running, operation_id, "the machine burned down")
    assert (FAILED, "OWNER_GIVEN_UP") == (end.status, end.error.reason)
    assert end.error.retryable
    assert "is not known" in end.error.message
    assert {
        "target": pair.relay.address,
        "cause_reason": "HOST_UNREACHABLE",
        "reason": "the machine burned down",
    }.items() <= dict(end.error.metadata).items()
    assert [] == active(pair.running)
    assert end == pair.running.operation(operation_id)  # a strict read, which needs no owner now
    assert [1, 2, 3] == pair.known_epochs(operation_id)


def test_an_owner_that_answers_is_told_to_stop_as_ever(pair: Hosted) -> None:
    operation_id, work = pair.training(1)
    answer = give_up(pair.running, operation_id, "enough")
    assert (CANCELLING, "enough") == (answer.status, answer.cancel_reason)
    work.notice_cancel()
    assert CANCELLED == pair.running.ended(operation_id).status


def test_an_owner_that_was_told_and_has_gone_since_can_be_given_up(pair: Hosted) -> None:
    operation_id, _ = pair.training(1)
    pair.running.cancel(operation_id, "enough")
    assert CANCELLING == give_up(pair.running, operation_id).status  # it is still there
    pair.relay.cut()
    assert CANCELLING == pair.running.cancel(operation_id).status
    end = give_up(pair.running, operation_id)
    assert (FAILED, "OWNER_GIVEN_UP", "enough") == (
        end.status,
        end.error.reason,
        end.cancel_reason,
    )


def test_what_was_given_up_stays_so_when_the_owner_comes_back(pair: Hosted) -> None:
    operation_id, work = pair.training(1)
    pair.relay.cut()
    end = give_up(pair.running, operation_id)
    pair.relay.restore()
    work.finish()
    assert end == pair.running.operation(operation_id)
    assert end == give_up(pair.running, operation_id)


def test_an_owner_whose_place_another_has_taken_can_be_given_up(
    pair: Hosted, tmp_path: Path
) -> None:
    operation_id, _ = pair.training(1)
    with scripted_host(tmp_path / "other") as other:
        pair.lead_to(other.address)
        assert "WRONG_HOST" == refused(lambda: pair.running.cancel(operation_id)).reason
        end = give_up(pair.running, operation_id)
    assert ("OWNER_GIVEN_UP", "WRONG_HOST") == (
        end.error.reason,
        end.error.metadata["cause_reason"],
    )


def test_who_waits_is_told_at_once(pair: Hosted) -> None:
    operation_id, _ = pair.training(1)
    with ThreadPoolExecutor(1) as waiter:
        request = pb.WaitOperationRequest(operation_id=operation_id, timeout=Duration(seconds=30))
        waiting = waiter.submit(pair.running.operations.WaitOperation, request)
        eventually(lambda: pair.host.calls["WaitOperation"] == 1)
        pair.relay.freeze()  # cut off, the wait at the owner would break and send the waiter home
        end = give_up(pair.running, operation_id)
        answer = waiting.result(PATIENCE)
        assert end == answer.operation
        assert not answer.HasField("retry_after")


def test_of_several_who_give_up_at_once_all_see_the_same_end(pair: Hosted) -> None:
    operation_id, _ = pair.training(1)
    pair.relay.cut()
    barrier = threading.Barrier(4)

    def at_once(number: int) -> operation_pb2.Operation:
        barrier.wait(PATIENCE)
        return give_up(pair.running, operation_id, f"client {number}")

    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(at_once, range(4)))
    assert [answers[0]] * 4 == answers
    assert "OWNER_GIVEN_UP" == answers[0].error.reason
