from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from backend.started import Started
from backend.training_stub import TrainingStatus, TrainingStub
from ktrdr.operations.v1 import operation_pb2
from ktrdr.training.v1 import training_host_service_pb2 as host_pb
from ktrdr.training.v1 import training_service_pb2 as pb
from shared.rpc.errors import (
    HostNotConnectedError,
    InvalidArgumentError,
    MalformedAnswerError,
    NotFoundError,
    ResourceExhaustedError,
)
from shared.training.launcher import TrainingOrder
from shared.training.request import TrainingRequest
from shared.training.strategy import load_strategy
from tests.support.answering import Answering, answering, channel_to
from tests.support.rpc import TIMEOUT

SMALL = (Path(__file__).parents[3] / "strategies" / "small.yaml").read_text("utf-8")
ORDER = TrainingOrder("r1", load_strategy(SMALL), TrainingRequest())
ID = "op_training_r1"


@pytest.fixture
def host() -> Iterator[Answering]:
    with answering() as host:
        yield host


@pytest.fixture
def stub(host: Answering) -> Iterator[TrainingStub]:
    with channel_to(host.address) as channel:
        yield TrainingStub(channel)


def started(
    operation_id: str = f"host_training_{ID}", session_id: str = ID
) -> pb.StartTrainingResponse:
    return pb.StartTrainingResponse(
        operation=operation_pb2.Operation(operation_id=operation_id), session_id=session_id
    )


# -------------------------------------------------------------------- starting


def test_a_start_gives_the_hosts_operation_and_who_took_it(
    host: Answering, stub: TrainingStub
) -> None:
    answer = started()
    host.answer("StartTraining", answer)
    assert Started(f"host_training_{ID}", "") == stub.start(ORDER, ID, timeout=TIMEOUT)

    answer.operation.freshness.path.add(instance="the host")
    host.answer("StartTraining", answer)
    assert "the host" == stub.start(ORDER, ID, timeout=TIMEOUT).instance


def test_the_host_is_asked_for_what_the_backend_was_asked_for(
    host: Answering, stub: TrainingStub
) -> None:
    host.answer("StartTraining", started())
    strategy = load_strategy(SMALL, {"model.training.epochs": "3"})
    request = TrainingRequest(
        symbols=("IBM", "GOOG"),
        timeframes=("1d",),
        start=datetime(2020, 1, 1, tzinfo=UTC),
        end=datetime(2021, 1, 1, 12, 30, 0, 250, tzinfo=UTC),
        seed=0,
    )
    stub.start(TrainingOrder("r1", strategy, request), ID, timeout=TIMEOUT)

    (asked,) = host.calls("StartTraining")
    assert (ID, ["IBM", "GOOG"], ["1d"]) == (asked.request_id, asked.symbols, asked.timeframes)
    times = asked.start_time.ToDatetime(tzinfo=UTC), asked.end_time.ToDatetime(tzinfo=UTC)
    assert (request.start, request.end) == times
    assert asked.HasField("seed")
    assert strategy == load_strategy(asked.strategy_yaml)
    assert {} == dict(asked.overrides)  # they are in the strategy


def test_what_was_not_asked_for_is_left_to_the_host(host: Answering, stub: TrainingStub) -> None:
    host.answer("StartTraining", started())
    stub.start(ORDER, ID, timeout=TIMEOUT)

    (asked,) = host.calls("StartTraining")
    assert ([], []) == (list(asked.symbols), list(asked.timeframes))
    for field in ("start_time", "end_time", "seed"):
        assert not asked.HasField(field)


@pytest.mark.parametrize("answer", [started(session_id="another"), started(operation_id="")])
def test_an_answer_for_another_training_makes_no_sense(
    host: Answering, stub: TrainingStub, answer: Message
) -> None:
    host.answer("StartTraining", answer)

    with pytest.raises(MalformedAnswerError, match=f"was asked to start {ID}") as raised:
        stub.start(ORDER, ID, timeout=TIMEOUT)

    assert {"target": host.address} == raised.value.metadata


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError.of("symbols[0]", "is not known"),
        ResourceExhaustedError("full", retry_after=7.0, reason="WORKERS_BUSY"),
    ],
)
def test_a_refusal_arrives_as_it_was_raised(
    host: Answering, stub: TrainingStub, error: InvalidArgumentError | ResourceExhaustedError
) -> None:
    host.answer("StartTraining", error)

    with pytest.raises(type(error)) as raised:
        stub.start(ORDER, ID, timeout=TIMEOUT)

    got = raised.value
    assert (error.message, error.reason) == (got.message, got.reason)
    if isinstance(error, InvalidArgumentError) and isinstance(got, InvalidArgumentError):
        assert error.violations == got.violations
    if isinstance(error, ResourceExhaustedError) and isinstance(got, ResourceExhaustedError):
        assert error.retry_after == got.retry_after


def test_a_host_that_is_not_there_has_begun_nothing(host: Answering, stub: TrainingStub) -> None:
    host.close()

    with pytest.raises(HostNotConnectedError):
        stub.start(ORDER, ID, timeout=TIMEOUT)


def test_the_earliest_time_there_is_can_be_asked_for() -> None:
    far = replace(ORDER.request, start=datetime(1, 1, 1, tzinfo=UTC))
    with answering() as host, channel_to(host.address) as channel:
        host.answer("StartTraining", started())
        TrainingStub(channel).start(replace(ORDER, request=far), ID, timeout=TIMEOUT)

        (asked,) = host.calls("StartTraining")
    assert Timestamp(seconds=-62_135_596_800) == asked.start_time


# ------------------------------------------------------------------ the old way


def test_a_training_is_told_in_the_old_shape(host: Answering, stub: TrainingStub) -> None:
    host.answer(
        "GetTrainingStatus",
        host_pb.GetTrainingStatusResponse(
            session_id=ID,
            status="running",
            progress=host_pb.TrainingStatusProgress(percentage=40.0, current_step="epoch 2"),
            error="none yet",
            deprecated=True,
            use_instead="GetOperation",
        ),
    )

    got = stub.get_training_status(ID, timeout=TIMEOUT)

    assert TrainingStatus(ID, "running", 40.0, "epoch 2", "none yet", "GetOperation") == got
    assert [host_pb.GetTrainingStatusRequest(session_id=ID)] == host.calls("GetTrainingStatus")


def test_a_training_the_host_does_not_know_is_not_found(
    host: Answering, stub: TrainingStub
) -> None:
    host.answer("GetTrainingStatus", NotFoundError("none", reason="OPERATION_NOT_FOUND"))

    with pytest.raises(NotFoundError, match="none"):
        stub.get_training_status(ID, timeout=TIMEOUT)
