from __future__ import annotations

import grpc
import pytest

from benchmarks.processes import STRATEGY
from benchmarks.quiet_host import quiet_server
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1 import training_service_pb2
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub


@pytest.mark.parametrize(("forced", "pulls"), [(True, 5), (False, 0)])
def test_every_call_is_counted_however_it_is_answered(forced: bool, pulls: int) -> None:
    with quiet_server(60.0) as server, grpc.insecure_channel(server.address) as channel:
        start = training_service_pb2.StartTrainingRequest(strategy_yaml=STRATEGY.read_text("utf-8"))
        operation = TrainingServiceStub(channel).StartTraining(start).operation
        before = server.reads()
        for _ in range(5):
            OperationsServiceStub(channel).GetOperation(
                pb.GetOperationRequest(operation_id=operation.operation_id, force_refresh=forced)
            )
        after = server.reads()
    assert (5, pulls) == tuple(after[name] - before[name] for name in ("calls", "pulls"))
