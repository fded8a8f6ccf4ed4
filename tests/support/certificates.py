"""Authorities, certificates and tokens of a test's own, as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import trustme

from shared.reloading import Reloading
from shared.rpc.security import (
    ClientSecurity,
    ServerSecurity,
    channel_credentials,
    server_credentials,
)
from shared.rpc.tokens import read_tokens

READ = "read-token-0123456789abcdef"
WRITE = "write-token-0123456789abcdef"
STRANGE = "strange-token-0123456789abcdef"
"""None that any server takes."""
PAST = datetime.now(UTC) - timedelta(days=30), datetime.now(UTC) - timedelta(days=1)
FUTURE = datetime.now(UTC) + timedelta(days=1), datetime.now(UTC) + timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of a certificate and of its key."""

    cert: Path
    key: Path

    @property
    def both(self) -> tuple[Path, Path]:
        """As a client's credentials take them."""
        return self.cert, self.key


class Authority:
    """One that certificates are issued by, with its files in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._ca = trustme.CA(organization_name=name)
        folder.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(self._ca.cert_pem.bytes())

    @property
    def path(self) -> Path:
        """The file of its certificate."""
        return self._folder / f"{self._name}.pem"

    def issue(
        self,
        *names: str,
        file: str = "server",
        validity: tuple[datetime, datetime] | None = None,
    ) -> Pair:
        """Issue a certificate for these names, `127.0.0.1` if there are none, into a file."""
        begin, end = validity or (None, None)
        made = self._ca.issue_cert(*(names or ("127.0.0.1",)), not_before=begin, not_after=end)
        pair = Pair(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        pair.cert.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        pair.key.write_bytes(made.private_key_pem.bytes())
        return pair

    @cached_property
    def server(self) -> Pair:
        """A certificate of a server on 127.0.0.1."""
        return self.issue()

    @cached_property
    def client(self) -> Pair:
        """A certificate of a client."""
        return self.issue("client", file="client")


def tokens_file(folder: Path) -> Path:
    """A server's file with one token of each scope."""
    path = folder / "tokens"
    path.write_text(f"# name scope token\nreader read {READ}\nwriter write {WRITE}\n", "utf-8")
    return path


def token_file(folder: Path, token: str = WRITE) -> Path:
    """A client's file."""
    path = folder / f"{token.partition('-')[0]}.token"
    path.write_text(f"{token}\n", "utf-8")
    return path


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """A token as it goes with a call."""
    return (("authorization", f"Bearer {token}"),)


def served_with(
    pair: Pair | None = None, *, client_ca: Path | None = None, tokens: Path | None = None
) -> ServerSecurity:
    """The security of a server that uses these files."""
    return ServerSecurity(
        server_credentials(pair.cert, pair.key, client_ca) if pair else None,
        Reloading([tokens], lambda: read_tokens(tokens)) if tokens else None,
    )


def called_with(
    authority: Authority | None = None, *, pair: Pair | None = None, token: str | None = None
) -> ClientSecurity:
    """The security of a client that trusts an authority and shows these."""
    return ClientSecurity(
        channel_credentials(authority.path, pair.both if pair else None) if authority else None,
        (lambda: token) if token else None,
    )


def settings_of(authority: Authority, tokens: Path, *, mutual: bool = False) -> Mapping[str, Any]:
    """Settings, by name, of a process that serves with TLS and tokens."""
    asked = {"tls_client_ca": authority.path} if mutual else {}
    pair = authority.server
    return {"tls_cert": pair.cert, "tls_key": pair.key, "tokens_file": tokens, **asked}
