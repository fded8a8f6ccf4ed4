"""The gRPC face of training: checks a request whole, then starts it once."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from ktrdr.training.v1 import training_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2_grpc
from shared.clock import Clock, SystemClock
from shared.marketdata.bars import BarSource
from shared.operations.conversion import view_to_proto
from shared.operations.id_prefixes import BACKEND_TRAINING
from shared.operations.model import OperationType
from shared.operations.service import OperationsService
from shared.operations.starts import NewOperation
from shared.rpc.admission import START
from shared.rpc.deadline import deadline_of
from shared.rpc.errors import FieldViolation, InvalidArgumentError
from shared.rpc.limits import RequestLimits
from shared.rpc.request_fields import check_request_id, made_up_request_id, time_field
from shared.rpc.server import ServedService
from shared.rpc.via import starter
from shared.training.launcher import TrainingLauncher, TrainingOrder
from shared.training.request import TrainingRequest, check_request
from shared.training.strategy import Strategy, load_strategy


class TrainingServicer(training_service_pb2_grpc.TrainingServiceServicer):
    """Serves ktrdr.training.v1.TrainingService.

    Operation ids are `{id_prefix}{request_id}`, so that a repeated request
    finds its operation. Without `bars` whoever trains checks the series.
    """

    def __init__(
        self,
        operations: OperationsService,
        launcher: TrainingLauncher,
        bars: BarSource | None,
        *,
        id_prefix: str,
        clock: Clock | None = None,
        limits: RequestLimits | None = None,
    ) -> None:
        self._operations = operations
        self._launcher = launcher
        self._bars = bars
        self._id_prefix = id_prefix
        self._clock = clock or SystemClock()
        self._limits = limits or RequestLimits()

    def StartTraining(  # noqa: N802  # the contract's name
        self, request: pb.StartTrainingRequest, context: grpc.ServicerContext
    ) -> pb.StartTrainingResponse:
        """Check the request, start it, answer at once."""
        deadline = deadline_of(context, self._clock)
        order = self._order(request)
        new = NewOperation(
            operation_id=self._id_prefix + order.request_id,
            request_id=order.request_id,
            type=OperationType.TRAINING,
            fingerprint=order.fingerprint,
            metadata=order.metadata,
            starter=starter(),
        )
        launch = self._launcher.launch(order, deadline)
        view = self._operations.start_operation(new, launch, deadline=deadline)
        return pb.StartTrainingResponse(
            operation=view_to_proto(view), session_id=view.operation.metadata["session_id"]
        )

    def _order(self, message: pb.StartTrainingRequest) -> TrainingOrder:
        """Check every field; raises InvalidArgumentError naming all that are bad."""
        violations: list[FieldViolation] = []
        request_id = message.request_id or made_up_request_id(self._clock.now())
        prefix = "" if self._id_prefix == BACKEND_TRAINING else BACKEND_TRAINING
        check_request_id(request_id, violations, backends_prefix=prefix)
        request = TrainingRequest(
            symbols=_names("symbols", message.symbols, self._limits.symbols, violations),
            timeframes=_names(
                "timeframes", message.timeframes, self._limits.timeframes, violations
            ),
            start=time_field("start_time", message, violations),
            end=time_field("end_time", message, violations),
            seed=message.seed if message.HasField("seed") else None,
        )
        strategy = self._strategy(message, violations)
        violations += check_request(strategy, request, self._bars)
        if strategy is None or violations:
            raise InvalidArgumentError(violations)
        return TrainingOrder(request_id, strategy, request)

    def _strategy(
        self, message: pb.StartTrainingRequest, violations: list[FieldViolation]
    ) -> Strategy | None:
        """Read the strategy; None if it is bad, with a violation for each of its bad fields."""
        try:
            return load_strategy(message.strategy_yaml, dict(message.overrides), self._limits)
        except InvalidArgumentError as error:
            violations.extend(error.violations)
            return None


def _names(
    field: str, given: Sequence[str], most: int, violations: list[FieldViolation]
) -> tuple[str, ...]:
    """Return the names to check: of too many, only the first are looked at."""
    if len(given) > most:
        text = f"{len(given)} names; at most {most} are taken."
        violations.append(FieldViolation(field, text))
    return tuple(given[:most])


def training_service(servicer: TrainingServicer) -> ServedService:
    """The service as whoever takes trainings serves it."""
    return ServedService(
        "ktrdr.training.v1.TrainingService",
        servicer,
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server,
        {"StartTraining": START},
    )
