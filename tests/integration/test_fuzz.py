"""Whatever a client sends, it never sees UNKNOWN or INTERNAL."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2 as lro
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import models_service_pb2 as models_pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from shared.rpc.paging import encode_token
from shared.training.orchestrator import TrainingOrchestrator
from tests.integration.refusals import outcome_of
from tests.integration.running import SMALL, RunningBackend

REQUESTS: dict[str, type[Message]] = {
    "/ktrdr.operations.v1.OperationsService/GetOperation": pb.GetOperationRequest,
    "/ktrdr.operations.v1.OperationsService/GetMetrics": pb.GetMetricsRequest,
    "/ktrdr.operations.v1.OperationsService/ListOperations": pb.ListOperationsRequest,
    "/ktrdr.operations.v1.OperationsService/CancelOperation": pb.CancelOperationRequest,
    "/ktrdr.operations.v1.OperationsService/WaitOperation": pb.WaitOperationRequest,
    "/ktrdr.training.v1.TrainingService/StartTraining": training_pb.StartTrainingRequest,
    "/ktrdr.training.v1.ModelsService/GetModel": models_pb.GetModelRequest,
    "/ktrdr.training.v1.ModelsService/ListModels": models_pb.ListModelsRequest,
    "/google.longrunning.Operations/GetOperation": lro.GetOperationRequest,
    "/google.longrunning.Operations/ListOperations": lro.ListOperationsRequest,
    "/google.longrunning.Operations/CancelOperation": lro.CancelOperationRequest,
    "/google.longrunning.Operations/WaitOperation": lro.WaitOperationRequest,
}
FOREIGN = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
NEVER = {StatusCode.UNKNOWN, StatusCode.INTERNAL}
SETTINGS = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DEADLINE = 0.3
"""Seconds: a wait for an operation that runs ends with them."""

EDGES: dict[int, SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31)]),
    FieldDescriptor.CPPTYPE_INT64: st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-2, 8),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.sampled_from(
        [
            "op_training_scripted_0001",
            "operations/op_training_scripted_0001",
            "operations",
            "done = false AND type = TRAINING",
            'status = "RUNNING"',
            "small/1d_v1",
            "IBM",
            "1d",
            "1w",
            SMALL,
            SMALL.replace("rsi_14", "rsi"),
            "model.training.epochs",
            "model",
            "0",
            "[]",
            "{}",
            "x" * 5000,
            encode_token(["2026-01-01T00:00:00+00:00", "x"], ([], [], False)),
            encode_token(["9999-12-31T23:59:59-23:59", ""], ()),
        ]
    ),
)


def _values(field: Any) -> SearchStrategy[Any]:
    """The values of a field, by its descriptor."""
    if field.message_type is not None:
        return _messages(GetMessageClass(field.message_type))
    return EDGES.get(field.cpp_type, TEXTS)


@st.composite
def _messages(draw: DrawFn, kind: type[Message]) -> Message:
    """Any message of a kind, its values at the edges of what is legal and beyond."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update(draw(st.dictionaries(TEXTS, TEXTS, max_size=3)))
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_values(field), max_size=3)))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(_values(field)))
        else:
            setattr(message, field.name, draw(_values(field)))
    return message


@pytest.fixture(scope="module", autouse=True)
def _something_runs(running: RunningBackend) -> None:
    running.scripted.start_running().report_epochs(3)


@pytest.fixture(autouse=True)
def _train_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A valid request by chance must not cost a training."""

    def stop_here(_: TrainingOrchestrator) -> None:
        raise ValueError("this training was started by chance")

    monkeypatch.setattr(TrainingOrchestrator, "_run", stop_here)


def _outcome(running: RunningBackend, method: str, data: bytes) -> grpc.StatusCode:
    return outcome_of(partial(running.send, method, data, timeout=DEADLINE))


@pytest.mark.parametrize("method", [*REQUESTS, *FOREIGN])
@SETTINGS
@given(data=st.binary(max_size=200))
def test_no_bytes_are_answered_with_a_defect(
    running: RunningBackend, method: str, data: bytes
) -> None:
    assert _outcome(running, method, data) not in NEVER


@pytest.mark.parametrize("method", REQUESTS)
@SETTINGS
@given(data=st.data())
def test_no_message_is_answered_with_a_defect(
    running: RunningBackend, method: str, data: st.DataObject
) -> None:
    message = data.draw(_messages(REQUESTS[method]))
    assert _outcome(running, method, message.SerializeToString()) not in NEVER


@pytest.mark.parametrize("method", REQUESTS)
def test_a_message_beyond_the_size_limit_is_resource_exhausted(
    running: RunningBackend, method: str
) -> None:
    data = b"\x0a" + b"\x80\x80\xc0\x02" + b"x" * 5 * 1024 * 1024
    assert StatusCode.RESOURCE_EXHAUSTED == outcome_of(partial(running.send, method, data))


@pytest.mark.parametrize("method", REQUESTS)
def test_hasty_clients_get_an_answer_or_run_out_of_time(
    running: RunningBackend, method: str
) -> None:
    request = REQUESTS[method]()
    for name, value in {"operation_id": "op_training_scripted_0001", "name": "a/1d_v1"}.items():
        if name in request.DESCRIPTOR.fields_by_name:
            setattr(request, name, value)
    for timeout in (0, 1e-6, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2):
        outcome = outcome_of(partial(running.send, method, request.SerializeToString(), timeout))
        assert outcome in {
            StatusCode.OK,
            StatusCode.DEADLINE_EXCEEDED,
            StatusCode.NOT_FOUND,  # the model
            StatusCode.INVALID_ARGUMENT,  # the empty strategy
            StatusCode.RESOURCE_EXHAUSTED,  # the calls given up before still have their places
        }
