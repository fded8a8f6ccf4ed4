from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from ktrdr.training.v1 import training_host_service_pb2 as pb
from ktrdr.training.v1 import training_host_service_pb2_grpc
from shared.operations.id_prefixes import HOST_TRAINING
from shared.rpc.errors import InvalidArgumentError
from tests.support.rpc import TIMEOUT, failure_of, required, served, status_in
from tests.unit.operations.fakes import RESULT, Setup
from training_host.servicer import TrainingHostServicer, training_host_service

ID = f"{HOST_TRAINING}op"


@pytest.fixture
def setup() -> Setup:
    return Setup(cache_ttl=0.0)


@pytest.fixture
def host(setup: Setup) -> Iterator[Any]:
    """A stub of the deprecated service, served in earnest."""
    servicer = TrainingHostServicer(setup.service, id_prefix=HOST_TRAINING, clock=setup.clock)
    with served([training_host_service(servicer)]) as wire:
        yield training_host_service_pb2_grpc.TrainingHostServiceStub(wire.channel)


def ask(host: Any, session_id: str = "op") -> pb.GetTrainingStatusResponse:
    request = pb.GetTrainingStatusRequest(session_id=session_id)
    answer: pb.GetTrainingStatusResponse = host.GetTrainingStatus(request, timeout=TIMEOUT)
    return answer


def test_a_training_is_named_as_it_was_asked_for_and_what_to_use_instead(
    setup: Setup, host: Any
) -> None:
    setup.pending(ID)
    got = ask(host)

    assert ("op", True) == (got.session_id, got.deprecated)
    assert f"ktrdr.operations.v1.OperationsService/GetOperation {ID}" == got.use_instead


def test_each_state_has_its_old_name(setup: Setup, host: Any) -> None:
    for name in ("waits", "runs", "stops", "done", "raised"):
        setup.pending(HOST_TRAINING + name)
    for name in ("runs", "stops", "done", "raised"):
        assert setup.service.begin_operation(HOST_TRAINING + name)
    setup.service.cancel_operation(f"{HOST_TRAINING}stops")
    setup.service.complete_operation(f"{HOST_TRAINING}done", RESULT)
    setup.service.fail_operation(f"{HOST_TRAINING}raised", InvalidArgumentError.of("x", "is odd"))
    setup.service.cancel_operation(f"{HOST_TRAINING}waits")
    setup.pending(f"{HOST_TRAINING}new")

    told = {
        name: ask(host, name).status for name in ("new", "runs", "stops", "done", "raised", "waits")
    }
    assert {
        "new": "initialized",
        "runs": "running",
        "stops": "running",
        "done": "completed",
        "raised": "failed",
        "waits": "stopped",
    } == told


def test_progress_is_told_as_the_worker_last_reported_it(setup: Setup, host: Any) -> None:
    worker = setup.running(ID)
    worker.report(40.0, "Epoch 2 of 5", current_step=2, total_steps=5)

    assert (
        pb.TrainingStatusProgress(
            percentage=40.0, current_step="Epoch 2 of 5", epoch=2, total_epochs=5
        )
        == ask(host).progress
    )


def test_what_is_not_known_yet_is_nothing(setup: Setup, host: Any) -> None:
    worker = setup.running(ID)
    assert pb.TrainingStatusProgress() == ask(host).progress
    worker.report(None, "Starting")

    assert pb.TrainingStatusProgress(current_step="Starting") == ask(host).progress
    assert "" == ask(host).error


def test_a_failure_is_told_with_its_message(setup: Setup, host: Any) -> None:
    setup.running(ID)
    setup.service.fail_operation(ID, InvalidArgumentError.of("symbols", "have no bars"))

    got = ask(host)
    assert ("failed", "symbols: have no bars") == (got.status, got.error)


def test_it_says_what_the_operation_says(setup: Setup, host: Any) -> None:
    worker = setup.running(ID)
    worker.report(75.0, "Epoch 3 of 4", current_step=3, total_steps=4)
    setup.service.complete_operation(ID, RESULT)

    got, operation = ask(host), setup.service.get_operation(ID).operation
    assert operation.progress is not None
    assert (got.progress.percentage, got.progress.current_step, got.progress.epoch) == (
        operation.progress.percentage,
        operation.progress.message,
        operation.progress.current_step,
    )


def test_a_training_that_is_not_known_is_not_found(host: Any) -> None:
    error: Any = failure_of(lambda: ask(host, "nobody"))

    assert grpc.StatusCode.NOT_FOUND == error.code()
    info = required(status_in(error), error_details_pb2.ErrorInfo)
    assert "OPERATION_NOT_FOUND" == info.reason
    assert f"{HOST_TRAINING}nobody" == info.metadata["operation_id"]


def test_without_a_session_id_nothing_can_be_told(host: Any) -> None:
    error: Any = failure_of(lambda: ask(host, ""))

    assert grpc.StatusCode.INVALID_ARGUMENT == error.code()
    assert "session_id" in error.details()
