"""What one look at an open operation saw, for the doctor to judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from backend.cli.failures import RpcFailedError
from ktrdr.operations.v1 import operation_pb2

STORE_AWAY = "STORE_UNAVAILABLE"
"""The one reason that says nothing against the state beside it."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a look did not bring everything."""

    reason: str
    """The server's UPPER_SNAKE_CASE reason; empty if the backend was not asked or was too slow."""
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_call(cls, error: RpcFailedError) -> Trouble:
        """Describe a call that failed."""
        return cls(error.reason, error.told or error.message, error.metadata)

    @classmethod
    def of_answer(cls, operation: operation_pb2.Operation) -> Trouble | None:
        """What an answer says of itself; None if it is as fresh as was asked for."""
        if not operation.freshness.HasField("refresh_error"):
            return None
        error = operation.freshness.refresh_error
        return cls(error.reason, error.message, dict(error.metadata))


@dataclass(frozen=True, slots=True)
class Observation:
    """An open operation as it was seen."""

    operation: operation_pb2.Operation
    seen_at: datetime
    """When, by this machine's clock."""
    metrics: tuple[operation_pb2.Metric, ...] = ()
    """The last ones, in order."""
    trouble: Trouble | None = None
    is_current: bool = True
    """Whether it is the state now; else it is the last known one, for the reason in `trouble`."""

    def since(self, time: Timestamp) -> float:
        """Seconds from an instant to the look; not negative, though clocks may differ."""
        return max(0.0, (self.seen_at - time.ToDatetime(UTC)).total_seconds())
