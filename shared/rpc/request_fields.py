"""Fields that requests to start work have in common, and how they are checked."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from shared.rpc.errors import FieldViolation

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_request_id(
    request_id: str, violations: list[FieldViolation], *, backends_prefix: str = ""
) -> None:
    """Add a violation unless this can be a request_id.

    `backends_prefix` is given by hosts, which are sent a backend's operation id:
    it may precede the request_id.
    """
    own = request_id.removeprefix(backends_prefix) or request_id
    if not _REQUEST_ID.fullmatch(own):
        text = "must be 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
        violations.append(FieldViolation("request_id", text))


def made_up_request_id(now: datetime) -> str:
    """Return the request_id of a request that has none."""
    return f"{now:%Y%m%d_%H%M%S}_{secrets.token_hex(4)}"


def time_field(field: str, message: Message, violations: list[FieldViolation]) -> datetime | None:
    """Read a Timestamp field; None if it is unset or, with a violation added, is no time."""
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        text = "must lie between 0001-01-01 and 9999-12-31"
        violations.append(FieldViolation(field, text))
        return None
