"""What a client can read from a refused call: status, reason, bad fields, time to come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

DETAILS = "grpc-status-details-bin"


class _FailedCall(Protocol):
    """What every RpcError of a stub is; grpc's own types do not say."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failed call."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    metadata: Mapping[str, str]
    fields: Mapping[str, str]
    """Descriptions by path of the bad field."""
    retry_after: float | None
    """Seconds."""
    trailers: Mapping[str, str | bytes]


def refused(call: Callable[[], object]) -> Refusal:
    """Make a call that must fail and return how it failed."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return refusal_of(raised.value)


def outcome_of(call: Callable[[], object]) -> grpc.StatusCode:
    """Make a call and return the status it ended with."""
    try:
        call()
    except grpc.RpcError as error:
        return refusal_of(error).code
    return grpc.StatusCode.OK


def refusal_of(error: grpc.RpcError) -> Refusal:
    """Read a failed call."""
    call = cast("_FailedCall", error)
    trailers = {item[0]: item[1] for item in call.trailing_metadata() or ()}
    status = status_pb2.Status()
    if isinstance(details := trailers.get(DETAILS), bytes):
        status.ParseFromString(details)
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    again = False
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        again = detail.Unpack(retry) or again
    return Refusal(
        code=call.code(),
        message=call.details() or "",
        reason=info.reason,
        domain=info.domain,
        metadata=dict(info.metadata),
        fields={violation.field: violation.description for violation in bad.field_violations},
        retry_after=retry.retry_delay.ToMilliseconds() / 1000 if again else None,
        trailers=trailers,
    )
