"""Reads what a host answers to a start, whatever was started."""

from __future__ import annotations

from backend.started import Started
from ktrdr.marketdata.v1.market_data_service_pb2 import StartDataLoadResponse
from ktrdr.training.v1.training_service_pb2 import StartTrainingResponse
from shared.rpc.errors import MalformedAnswerError


def started_from(
    answer: StartTrainingResponse | StartDataLoadResponse, request_id: str, target: str
) -> Started:
    """Read the answer to a start; raises MalformedAnswerError if it is for another request."""
    if answer.session_id != request_id or not answer.operation.operation_id:
        raise MalformedAnswerError(
            f"{target} was asked to start {request_id} and answered for "
            f"{answer.session_id[:200]!r}.",
            metadata={"target": target},
        )
    path = answer.operation.freshness.path
    return Started(answer.operation.operation_id, path[0].instance if path else "")
