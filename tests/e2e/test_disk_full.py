"""A disk that fills up under a running training, and is given room again."""

from __future__ import annotations

import resource
from pathlib import Path

import grpc
import pytest

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub
from tests.support.eventually import eventually
from tests.support.processes import CALL, KtrdrProcess
from tests.support.programs import SMALL

pytestmark = pytest.mark.slow

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
ENDLESS = {"model.training.epochs": "10000", "model.training.batch_size": "32"}


def train(process: KtrdrProcess, request_id: str) -> str:
    request = training_pb.StartTrainingRequest(
        request_id=request_id,
        strategy_yaml=SMALL.read_text("utf-8"),
        symbols=["IBM"],
        timeframes=["1d"],
        overrides=ENDLESS,
    )
    started = TrainingServiceStub(process.channel).StartTraining(request, timeout=CALL)
    operation_id: str = started.operation.operation_id
    return operation_id


def best_known(process: KtrdrProcess, operation_id: str) -> operation_pb2.Operation:
    """The operation as a caller gets it who sets no bound."""
    request = pb.GetOperationRequest(operation_id=operation_id)
    operation: operation_pb2.Operation = process.operations.GetOperation(
        request, timeout=CALL
    ).operation
    return operation


def fill_disk(process: KtrdrProcess, state: Path) -> None:
    """Let no file of the process grow beyond what the store's have by now."""
    size = min(file.stat().st_size for file in state.glob("backend.db*") if file.stat().st_size)
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_stops_no_training_and_heals_by_itself(tmp_path: Path) -> None:
    with KtrdrProcess("backend", tmp_path, OPERATIONS_CACHE_TTL="0.1") as backend:
        operation_id = train(backend, "endless")
        eventually(lambda: best_known(backend, operation_id).metrics_count > 0, within=60)
        fill_disk(backend, tmp_path / "state")

        def reason() -> str:
            known = best_known(backend, operation_id)
            return str(known.freshness.refresh_error.reason)

        eventually(lambda: reason() == "STORE_UNAVAILABLE", within=30)
        then = best_known(backend, operation_id)
        eventually(
            lambda: best_known(backend, operation_id).metrics_count > then.metrics_count, within=30
        )
        with pytest.raises(grpc.RpcError) as refused:
            train(backend, "refused")
        cancel = pb.CancelOperationRequest(operation_id=operation_id)
        backend.operations.CancelOperation(cancel, timeout=CALL)
        wait = pb.WaitOperationRequest(operation_id=operation_id)
        waited = backend.operations.WaitOperation(wait, timeout=60).operation

        assert operation_pb2.OPERATION_STATUS_RUNNING == then.status
        assert grpc.StatusCode.UNAVAILABLE is refused.value.code()
        assert operation_pb2.OPERATION_STATUS_CANCELLING == waited.status
        assert "STORE_UNAVAILABLE" == waited.freshness.refresh_error.reason

        resource.prlimit(backend.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
        cancelled = operation_pb2.OPERATION_STATUS_CANCELLED
        eventually(lambda: best_known(backend, operation_id).status == cancelled, within=30)
        kept = backend.look(operation_id).metrics

        assert list(range(1, len(kept) + 1)) == [metric.step for metric in kept]
        assert len(kept) >= min(then.metrics_count, 1000), "a page"
        assert [operation_id] == [each.operation_id for each in backend.listed().operations]
    assert "Traceback" not in backend.log.read_text()
