"""The gRPC face of training: checks a request whole, then starts it once."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from ktrdr.training.v1 import training_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2_grpc
from shared.clock import Clock, SystemClock
from shared.marketdata.bars import BarSource
from shared.operations.conversion import view_to_proto
from shared.operations.model import OperationType
from shared.operations.service import OperationsService
from shared.operations.starts import NewOperation
from shared.rpc.deadline import deadline_of
from shared.rpc.errors import FieldViolation, InvalidArgumentError
from shared.training.launcher import TrainingLauncher, TrainingOrder
from shared.training.request import TrainingRequest, check_request
from shared.training.strategy import Strategy, load_strategy

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_BACKENDS = "op_training_"
"""Begins a backend's operation ids, which are the request_ids that training hosts get."""
_MAX_NAMES = 100
"""The most symbols, and the most timeframes, of one request."""


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
    ) -> None:
        self._operations = operations
        self._launcher = launcher
        self._bars = bars
        self._id_prefix = id_prefix
        self._clock = clock or SystemClock()

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
        )
        launch = self._launcher.launch(order, deadline)
        view = self._operations.start_operation(new, launch, deadline=deadline)
        return pb.StartTrainingResponse(
            operation=view_to_proto(view), session_id=view.operation.metadata["session_id"]
        )

    def _order(self, message: pb.StartTrainingRequest) -> TrainingOrder:
        """Check every field; raises InvalidArgumentError naming all that are bad."""
        violations: list[FieldViolation] = []
        request_id = message.request_id or self._made_up_id()
        if not _REQUEST_ID.fullmatch(self._own_part(request_id)):
            text = "must be 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
            violations.append(FieldViolation("request_id", text))
        request = TrainingRequest(
            symbols=_names("symbols", message.symbols, violations),
            timeframes=_names("timeframes", message.timeframes, violations),
            start=_time("start_time", message, violations),
            end=_time("end_time", message, violations),
            seed=message.seed if message.HasField("seed") else None,
        )
        strategy = _strategy(message, violations)
        violations += check_request(strategy, request, self._bars)
        if strategy is None or violations:
            raise InvalidArgumentError(violations)
        return TrainingOrder(request_id, strategy, request)

    def _own_part(self, request_id: str) -> str:
        """What has to have the form of a request_id: a host is sent a backend's operation id."""
        if self._id_prefix == _BACKENDS:
            return request_id
        return request_id.removeprefix(_BACKENDS) or request_id

    def _made_up_id(self) -> str:
        return f"{self._clock.now():%Y%m%d_%H%M%S}_{secrets.token_hex(4)}"


def _strategy(
    message: pb.StartTrainingRequest, violations: list[FieldViolation]
) -> Strategy | None:
    try:
        return load_strategy(message.strategy_yaml, dict(message.overrides))
    except InvalidArgumentError as error:
        violations.extend(error.violations)
        return None


def _names(field: str, given: Sequence[str], violations: list[FieldViolation]) -> tuple[str, ...]:
    """Return the names to check: of too many, only the first are looked at."""
    if len(given) > _MAX_NAMES:
        text = f"{len(given)} names; at most {_MAX_NAMES} are taken."
        violations.append(FieldViolation(field, text))
    return tuple(given[:_MAX_NAMES])


def _time(
    field: str, message: pb.StartTrainingRequest, violations: list[FieldViolation]
) -> datetime | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # the stubs want a literal
        return None
    stamp: Timestamp = getattr(message, field)
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        text = "must lie between 0001-01-01 and 9999-12-31"
        violations.append(FieldViolation(field, text))
        return None
