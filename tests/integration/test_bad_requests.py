"""Bad fields of the calls that read, cancel and wait: each refused by name."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import models_service_pb2 as models_pb
from shared.rpc.paging import encode_token
from tests.integration.refusals import Refusal, refused
from tests.integration.running import RunningBackend

OPERATIONS = "/ktrdr.operations.v1.OperationsService/"
TRAINING = "/ktrdr.training.v1.TrainingService/"
MODELS = "/ktrdr.training.v1.ModelsService/"
METHODS = [
    *(
        OPERATIONS + name
        for name in (
            "GetOperation",
            "GetMetrics",
            "ListOperations",
            "CancelOperation",
            "WaitOperation",
        )
    ),
    TRAINING + "StartTraining",
    MODELS + "GetModel",
    MODELS + "ListModels",
]
SECOND = Duration(seconds=1)
ID = {"operation_id": "op_training_any"}


def _token(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


BAD: list[tuple[type[Any], dict[str, Any], str]] = [
    (pb.GetOperationRequest, {}, "operation_id"),
    (pb.GetOperationRequest, {"operation_id": "x" * 300}, "operation_id"),
    (pb.GetOperationRequest, {**ID, "metrics_cursor": -1}, "metrics_cursor"),
    (pb.GetOperationRequest, {**ID, "max_staleness": Duration(seconds=-1)}, "max_staleness"),
    (pb.GetOperationRequest, {**ID, "max_staleness": Duration(nanos=-1)}, "max_staleness"),
    (
        pb.GetOperationRequest,
        {**ID, "force_refresh": True, "max_staleness": SECOND},
        "max_staleness",
    ),
    (pb.GetMetricsRequest, {}, "operation_id"),
    (pb.GetMetricsRequest, {"operation_id": "x" * 300}, "operation_id"),
    (pb.GetMetricsRequest, {**ID, "cursor": -1}, "cursor"),
    (pb.GetMetricsRequest, {**ID, "cursor": -(2**63)}, "cursor"),
    (pb.GetMetricsRequest, {**ID, "page_size": -1}, "page_size"),
    (pb.ListOperationsRequest, {"page_size": -1}, "page_size"),
    (pb.ListOperationsRequest, {"active_only": True, "statuses": [1]}, "active_only"),
    (pb.ListOperationsRequest, {"statuses": [1, 0]}, "statuses[1]"),
    (pb.ListOperationsRequest, {"statuses": [99]}, "statuses[0]"),
    (pb.ListOperationsRequest, {"types": [1, 77]}, "types[1]"),
    (pb.ListOperationsRequest, {"types": [-1]}, "types[0]"),
    (pb.ListOperationsRequest, {"types": [7] * 100_000}, "types"),
    (pb.ListOperationsRequest, {"statuses": [1] * 101}, "statuses"),
    (pb.ListOperationsRequest, {"page_token": "garbage"}, "page_token"),
    (pb.ListOperationsRequest, {"page_token": "ä" * 100}, "page_token"),
    (pb.ListOperationsRequest, {"page_token": _token("d", ["a", "b"])}, "page_token"),
    (pb.ListOperationsRequest, {"page_token": _token("d", 5)}, "page_token"),
    (pb.ListOperationsRequest, {"page_token": _token({"a": 1}, {"b": 2})}, "page_token"),
    (
        pb.ListOperationsRequest,
        {"page_token": base64.urlsafe_b64encode(b"[" * 200_000).decode()},
        "page_token",
    ),
    (pb.CancelOperationRequest, {}, "operation_id"),
    (pb.CancelOperationRequest, {"operation_id": "x" * 300}, "operation_id"),
    (pb.CancelOperationRequest, {**ID, "reason": "x" * 1001}, "reason"),
    (pb.WaitOperationRequest, {}, "operation_id"),
    (pb.WaitOperationRequest, {"operation_id": "x" * 300}, "operation_id"),
    (pb.WaitOperationRequest, {**ID, "timeout": Duration(seconds=-1)}, "timeout"),
    (models_pb.GetModelRequest, {}, "name"),
    (models_pb.ListModelsRequest, {"page_size": -1}, "page_size"),
    (models_pb.ListModelsRequest, {"page_token": "garbage"}, "page_token"),
]


def _call(running: RunningBackend, request: Any) -> object:
    name = type(request).__name__.removesuffix("Request")
    stub = running.models if name.endswith(("Model", "Models")) else running.operations
    answer: object = getattr(stub, name)(request)
    return answer


def _bad_field(running: RunningBackend, request: Any, field: str) -> Refusal:
    refusal = refused(partial(_call, running, request))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert "INVALID_ARGUMENT" == refusal.reason
    assert "ktrdr" == refusal.domain
    assert {field} == set(refusal.fields)
    assert field in refusal.message
    assert refusal.retry_after is None
    return refusal


@pytest.mark.parametrize(
    ("request_type", "fields", "field"),
    BAD,
    ids=[f"{kind.__name__}-{field}-{index}" for index, (kind, _, field) in enumerate(BAD)],
)
def test_a_bad_field_is_refused_by_name(
    running: RunningBackend, request_type: type[Any], fields: dict[str, Any], field: str
) -> None:
    _bad_field(running, request_type(**fields), field)


@pytest.mark.parametrize(
    "position", [["never", "x"], ["2026-01-01", "x"], ["2026-01-01T00:00", ""]]
)
@pytest.mark.parametrize("kind", ["operations", "models"])
def test_a_token_forged_to_fit_the_filters_is_a_bad_field(
    running: RunningBackend, kind: str, position: list[str]
) -> None:
    if kind == "models":
        token = encode_token(position, ())
        _bad_field(running, models_pb.ListModelsRequest(page_token=token), "page_token")
    else:
        token = encode_token(position, ([], [], False))
        _bad_field(running, pb.ListOperationsRequest(page_token=token), "page_token")


def test_the_longest_reason_is_kept_whole(running: RunningBackend) -> None:
    work = running.scripted.start_running()
    reason = "é" * 1000
    assert reason == running.cancel(work.operation_id, reason).cancel_reason
    work.finish()


@pytest.mark.parametrize("name", ["GetOperation", "GetMetrics", "CancelOperation", "WaitOperation"])
def test_an_unknown_operation_is_not_found_and_named(running: RunningBackend, name: str) -> None:
    request = getattr(pb, f"{name}Request")(operation_id="op_training_nobody")
    refusal = refused(partial(_call, running, request))
    assert grpc.StatusCode.NOT_FOUND == refusal.code
    assert "OPERATION_NOT_FOUND" == refusal.reason
    assert "ktrdr" == refusal.domain
    me = running.backend.operations.owner
    assert {
        "operation_id": "op_training_nobody",
        "instance": me.instance_id,
        "incarnation": me.incarnation,
    } == dict(refusal.metadata)
    assert "ListOperations" in refusal.message


@pytest.mark.parametrize(
    "name", ["small/1d_v9", "../../etc/passwd", "small", "x" * 5000, "a/1d_v0"]
)
def test_an_unknown_model_is_not_found(running: RunningBackend, name: str) -> None:
    refusal = refused(partial(_call, running, models_pb.GetModelRequest(name=name)))
    assert grpc.StatusCode.NOT_FOUND == refusal.code
    assert "MODEL_NOT_FOUND" == refusal.reason


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"\x07" * 50])
def test_malformed_bytes_are_an_invalid_argument(
    running: RunningBackend, method: str, data: bytes
) -> None:
    refusal = refused(partial(running.send, method, data))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert "INVALID_ARGUMENT" == refusal.reason


def test_text_that_is_not_utf_8_is_an_invalid_argument(running: RunningBackend) -> None:
    refusal = refused(partial(running.send, OPERATIONS + "GetOperation", b"\x0a\x02\xff\xfe"))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code


def test_a_method_nobody_has_is_unimplemented(running: RunningBackend) -> None:
    refusal = refused(partial(running.send, OPERATIONS + "Nothing", b""))
    assert grpc.StatusCode.UNIMPLEMENTED == refusal.code


def test_an_operation_id_in_any_script_is_not_found_like_others(running: RunningBackend) -> None:
    for _ in range(20):
        request = pb.GetOperationRequest(operation_id="漢" * 256)
        refusal = refused(partial(_call, running, request))
        assert grpc.StatusCode.NOT_FOUND == refusal.code
        assert "OPERATION_NOT_FOUND" == refusal.reason
