"""Page sizes and page tokens of listings."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message

from shared.rpc.errors import InvalidArgumentError

MessageT = TypeVar("MessageT", bound=Message)


def page_size(asked: int, *, default: int, largest: int) -> int:
    """Apply the default (0) and the maximum; negative raises InvalidArgumentError."""
    if asked < 0:
        raise InvalidArgumentError.of(
            "page_size", f"must not be negative, got {asked}; 0 means {default}"
        )
    return min(asked or default, largest)


def fitting(messages: Iterable[MessageT], size: int) -> list[MessageT]:
    """Return the messages that fit into `size` bytes together; at least one if there is one."""
    page: list[MessageT] = []
    used = 0
    for message in messages:
        used += message.ByteSize()
        if page and used > size:
            break
        page.append(message)
    return page


def encode_token(position: list[str], filters: object) -> str:
    """Build an opaque token for a position in the listing with these filters."""
    document = json.dumps([_digest(filters), position])
    return base64.urlsafe_b64encode(document.encode()).decode()


def decode_token(token: str, filters: object, *, parts: int) -> list[str] | None:
    """Return the position a token stands for; None for the first page.

    Raises InvalidArgumentError if it is not a token or was made for other filters.
    """
    if not token:
        return None
    try:
        digest, position = json.loads(base64.urlsafe_b64decode(token.encode()))
        valid = (
            isinstance(position, list)
            and len(position) == parts
            and all(isinstance(part, str) for part in position)
        )
    except (binascii.Error, ValueError, TypeError, RecursionError):
        valid = False
    if not valid:
        raise _not_a_token()
    if digest != _digest(filters):
        raise InvalidArgumentError.of(
            "page_token", "belongs to a listing with other filters; start again without it"
        )
    return list(position)


def decode_time(part: str) -> datetime:
    """Return the aware time that a part of a position stands for.

    Raises InvalidArgumentError if it stands for none: the token was forged.
    """
    try:
        at = datetime.fromisoformat(part)
    except ValueError as error:
        raise _not_a_token() from error
    if at.tzinfo is None:
        raise _not_a_token()
    return at


def _not_a_token() -> InvalidArgumentError:
    return InvalidArgumentError.of(
        "page_token", "is not a next_page_token; leave it empty for the first page"
    )


def _digest(filters: object) -> str:
    return hashlib.sha256(repr(filters).encode()).hexdigest()[:16]
