"""Bearer tokens: who may call a server, and what for.

A server's file has a line per token, `name scope token`; a client's file holds
one token. Of a server's tokens only digests are kept, and no error or log says
what a token is. No error says the name of its file either, which may be a token
that was taken for one; a log names it once it has been read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from shared.rpc.errors import CredentialsError

TOKENS_FILE = "KTRDR_TOKENS_FILE"
TOKEN_FILE = "KTRDR_TOKEN_FILE"  # noqa: S105  # a variable's name
MIN_LENGTH = 16
_MAX_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,512}=*")
"""What may follow `Bearer` in a header."""
_NAME_RULE = "the name must be 1 to 64 letters, digits, '.', '_' or '-', first a letter or digit"
_MAKE_ONE = "make one with `openssl rand -hex 32`"


class Scope(IntEnum):
    """What a token is good for; a greater one includes the lesser."""

    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One who may call."""

    name: str
    scope: Scope
    digest: bytes = field(repr=False)


class Tokens:
    """The tokens that a server takes."""

    def __init__(self, entries: Sequence[TokenEntry]) -> None:
        self._entries = tuple(entries)

    def entry_of(self, token: str) -> TokenEntry | None:
        """Return who has this token; None if nobody has.

        How long that takes tells nothing about the tokens there are: digests are
        compared, in constant time, with all of them. A microsecond does for 25.
        """
        digest, found = digest_of(token), None
        for entry in self._entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        return found


def digest_of(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def read_tokens(path: Path) -> Tokens:
    """Read a server's file; raises CredentialsError naming the line that is wrong."""
    entries = list(_entries(_read(path, TOKENS_FILE)))
    if not entries:
        raise CredentialsError(
            f"{TOKENS_FILE}: the file holds no token, so nobody could call. Write a line "
            f"`name scope token` for each; {_MAKE_ONE}."
        )
    return Tokens(entries)


def read_token(path: Path) -> str:
    """Read a client's file; raises CredentialsError if it is not one token."""
    token = _read(path, TOKEN_FILE).strip()
    if not _TOKEN.fullmatch(token):
        raise CredentialsError(
            f"{TOKEN_FILE}: the file must hold one token and nothing else, without the name and "
            f"the scope that stand before it in a server's {TOKENS_FILE}."
        )
    return token


def _read(path: Path, variable: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CredentialsError(
            f"{variable}: the file it names cannot be read ({error.strerror}). It takes the path "
            "of a file, not a token."
        ) from None  # the cause holds the path
    if len(data) > _MAX_BYTES:
        raise CredentialsError(f"{variable}: the file is larger than 1 MiB; name another.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CredentialsError(f"{variable}: the file is no text in UTF-8; name another.") from None


def _entries(text: str) -> Iterator[TokenEntry]:
    """Read line by line; what follows a # at the beginning of one is left out."""
    names, digests = set(), set()
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        entry = _entry(words, number)
        if entry.name in names:
            raise _wrong(number, f"the name {entry.name} is there already; choose another")
        if entry.digest in digests:
            raise _wrong(number, f"the token is another's already; {_MAKE_ONE}")
        names.add(entry.name)
        digests.add(entry.digest)
        yield entry


def _entry(words: Sequence[str], number: int) -> TokenEntry:
    """Read one line; nothing of it is told before it is known to be no token."""
    if len(words) != 3:
        raise _wrong(number, "must be `name scope token`, three words")
    name, scope, token = words
    if not _NAME.fullmatch(name):
        raise _wrong(number, _NAME_RULE)
    if scope not in {"read", "write"}:
        raise _wrong(number, "the scope must be read or write; write includes read")
    if len(token) < MIN_LENGTH or not _TOKEN.fullmatch(token):
        text = f"the token must be {MIN_LENGTH} to 512 letters, digits or -._~+/ signs"
        raise _wrong(number, f"{text}; {_MAKE_ONE}")
    return TokenEntry(name, Scope[scope.upper()], digest_of(token))


def _wrong(number: int, problem: str) -> CredentialsError:
    return CredentialsError(f"{TOKENS_FILE}: line {number}: {problem}.")
