"""The deprecated way to look at a training, answered from the operations service."""

from __future__ import annotations

import grpc

from ktrdr.training.v1 import training_host_service_pb2 as pb
from ktrdr.training.v1 import training_host_service_pb2_grpc
from shared.clock import Clock, SystemClock
from shared.operations.model import Operation, OperationStatus, Progress
from shared.operations.service import OperationsService
from shared.rpc.deadline import deadline_of
from shared.rpc.errors import InvalidArgumentError
from shared.rpc.limits import RequestLimits
from shared.rpc.server import ServedService

_OLD_STATUS = {
    OperationStatus.PENDING: "initialized",
    OperationStatus.RUNNING: "running",
    OperationStatus.CANCELLING: "running",
    OperationStatus.COMPLETED: "completed",
    OperationStatus.FAILED: "failed",
    OperationStatus.CANCELLED: "stopped",
}


class TrainingHostServicer(training_host_service_pb2_grpc.TrainingHostServiceServicer):
    """Serves ktrdr.training.v1.TrainingHostService; `id_prefix` as in TrainingServicer."""

    def __init__(
        self,
        operations: OperationsService,
        *,
        id_prefix: str,
        clock: Clock | None = None,
        limits: RequestLimits | None = None,
    ) -> None:
        self._limits = limits or RequestLimits()
        self._operations = operations
        self._id_prefix = id_prefix
        self._clock = clock or SystemClock()

    def GetTrainingStatus(  # noqa: N802  # the contract's name
        self, request: pb.GetTrainingStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetTrainingStatusResponse:
        """Answer in the old shape."""
        if not request.session_id:
            raise InvalidArgumentError.of("session_id", "is required")
        if len(request.session_id) > self._limits.operation_id:
            text = f"must be at most {self._limits.operation_id} characters"
            raise InvalidArgumentError.of("session_id", text)
        operation_id = self._id_prefix + request.session_id
        deadline = deadline_of(context, self._clock)
        view = self._operations.get_operation(operation_id, deadline=deadline)
        return pb.GetTrainingStatusResponse(
            session_id=request.session_id,
            status=_OLD_STATUS[view.operation.status],
            progress=_old_progress(view.operation.progress or Progress()),
            error=_error(view.operation),
            deprecated=True,
            use_instead=f"ktrdr.operations.v1.OperationsService/GetOperation {operation_id}",
        )


def _old_progress(progress: Progress) -> pb.TrainingStatusProgress:
    return pb.TrainingStatusProgress(
        percentage=progress.percentage or 0.0,
        current_step=progress.message,
        epoch=progress.current_step,
        total_epochs=progress.total_steps or 0,
    )


def _error(operation: Operation) -> str:
    return "" if operation.error is None else operation.error.message


def training_host_service(servicer: TrainingHostServicer) -> ServedService:
    """The deprecated service as a training host serves it."""
    return ServedService(
        "ktrdr.training.v1.TrainingHostService",
        servicer,
        training_host_service_pb2_grpc.add_TrainingHostServiceServicer_to_server,
    )
