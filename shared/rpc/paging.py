"""Page sizes and page tokens of listings."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from shared.rpc.errors import InvalidArgumentError


def page_size(asked: int, *, default: int, largest: int) -> int:
    """Apply the default (0) and the maximum; negative raises InvalidArgumentError."""
    if asked < 0:
        raise InvalidArgumentError.of(
            "page_size", f"must not be negative, got {asked}; 0 means {default}"
        )
    return min(asked or default, largest)


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
        raise InvalidArgumentError.of(
            "page_token", "is not a next_page_token; leave it empty for the first page"
        )
    if digest != _digest(filters):
        raise InvalidArgumentError.of(
            "page_token", "belongs to a listing with other filters; start again without it"
        )
    return list(position)


def _digest(filters: object) -> str:
    return hashlib.sha256(repr(filters).encode()).hexdigest()[:16]
