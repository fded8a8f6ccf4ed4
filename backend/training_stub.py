"""The training services of a host, as the backend's domain sees them."""

from __future__ import annotations

from dataclasses import dataclass

from backend.started import Started
from backend.started_conversion import started_from
from ktrdr.training.v1 import training_host_service_pb2, training_service_pb2
from ktrdr.training.v1.training_host_service_pb2_grpc import TrainingHostServiceStub
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub
from shared.operations.conversion import optional_timestamp
from shared.rpc.host_channel import HostChannel
from shared.training.launcher import TrainingOrder


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """A training in the shape that training hosts answered with in the past."""

    session_id: str
    status: str
    percentage: float
    current_step: str
    error: str
    use_instead: str


class TrainingStub:
    """Trainings on one host; every method raises KtrdrErrors as RemoteOperationStub's do."""

    def __init__(self, channel: HostChannel) -> None:
        self._channel = channel

    def start(self, order: TrainingOrder, request_id: str, *, timeout: float) -> Started:
        """Start a training under this request_id; return what the host made of it."""
        answer: training_service_pb2.StartTrainingResponse = self._channel.call(
            TrainingServiceStub, "StartTraining", _request(order, request_id), timeout
        )
        return started_from(answer, request_id, self._channel.target)

    def get_training_status(self, session_id: str, *, timeout: float) -> TrainingStatus:
        """Ask the deprecated way how a training is."""
        request = training_host_service_pb2.GetTrainingStatusRequest(session_id=session_id)
        answer: training_host_service_pb2.GetTrainingStatusResponse = self._channel.call(
            TrainingHostServiceStub, "GetTrainingStatus", request, timeout
        )
        return TrainingStatus(
            session_id=answer.session_id,
            status=answer.status,
            percentage=answer.progress.percentage,
            current_step=answer.progress.current_step,
            error=answer.error,
            use_instead=answer.use_instead,
        )


def _request(order: TrainingOrder, request_id: str) -> training_service_pb2.StartTrainingRequest:
    """Build the request that asks a host for what the backend was asked for."""
    request = order.request
    return training_service_pb2.StartTrainingRequest(
        request_id=request_id,
        strategy_yaml=order.strategy.to_yaml(),  # with the overrides applied
        symbols=request.symbols,
        timeframes=request.timeframes,
        start_time=optional_timestamp(request.start),
        end_time=optional_timestamp(request.end),
        seed=request.seed,
    )
