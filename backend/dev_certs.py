"""Throw-away certificates and tokens, to try out what the README says about securing it.

`python -m backend.dev_certs [FOLDER]` makes an authority, a certificate for
servers on this machine, one for clients, and tokens; into `.ktrdr-certs` unless
told otherwise. The authority's own key is not kept. Needs trustme, one of the
tools that `make setup` installs.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

FOLDER = Path(".ktrdr-certs")
DAYS = 30
NAMES = ("localhost", "127.0.0.1", "::1")
"""What servers may be called by."""


@dataclass(frozen=True, slots=True)
class DevCerts:
    """The files that there are, and how processes and clients are told to use them."""

    folder: Path

    @property
    def process(self) -> Mapping[str, str]:
        """Variables of a process: it serves with TLS and tokens, and calls others with them."""
        return {
            "KTRDR_TLS_CERT": str(self.folder / "server.pem"),
            "KTRDR_TLS_KEY": str(self.folder / "server.key"),
            "KTRDR_TOKENS_FILE": str(self.folder / "tokens"),
            "KTRDR_TLS_CA": str(self.folder / "ca.pem"),
            "KTRDR_TOKEN_FILE": str(self.folder / "write.token"),
        }

    @property
    def client(self) -> Mapping[str, str]:
        """Variables of the command."""
        return {
            "KTRDR_TLS_CA": str(self.folder / "ca.pem"),
            "KTRDR_TOKEN_FILE": str(self.folder / "write.token"),
        }

    @property
    def mutual_process(self) -> Mapping[str, str]:
        """Variables of a process that asks for certificates as well."""
        return {**self.process, "KTRDR_TLS_CLIENT_CA": str(self.folder / "ca.pem")}

    @property
    def mutual_client(self) -> Mapping[str, str]:
        """Variables of the command that has a certificate to show."""
        return {
            **self.client,
            "KTRDR_TLS_CERT": str(self.folder / "client.pem"),
            "KTRDR_TLS_KEY": str(self.folder / "client.key"),
        }


def make_dev_certs(folder: Path) -> DevCerts:
    """Make all files anew; only their owner may read them."""
    until = datetime.now(UTC) + timedelta(days=DAYS)
    authority = trustme.CA(organization_name="ktrdr, for trying out")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(folder / "ca.pem", authority.cert_pem.bytes())
    for name, identities in (("server", NAMES), ("client", ("client",))):
        made = authority.issue_cert(*identities, not_after=until)
        chain = b"".join(part.bytes() for part in made.cert_chain_pems)
        _write(folder / f"{name}.pem", chain)
        _write(folder / f"{name}.key", made.private_key_pem.bytes())
    tokens = {scope: secrets.token_hex(32) for scope in ("read", "write")}
    lines = [f"dev-{scope} {scope} {token}\n" for scope, token in tokens.items()]
    _write(folder / "tokens", "".join(["# name scope token\n", *lines]).encode())
    for scope, token in tokens.items():
        _write(folder / f"{scope}.token", f"{token}\n".encode())
    return DevCerts(folder)


def _write(path: Path, content: bytes) -> None:
    """Put a new file in place of the old one, so that nobody reads half of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    beside.replace(path)


def run(arguments: Sequence[str]) -> int:
    """Make the files and say which there are."""
    parser = argparse.ArgumentParser(prog="python -m backend.dev_certs", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where (%(default)s)")
    folder: Path = parser.parse_args(arguments).folder
    make_dev_certs(folder)
    print(
        f"Made in {folder}, good for {DAYS} days and for servers called {', '.join(NAMES)}:\n"
        "  ca.pem                    whom to trust\n"
        "  server.pem, server.key    for processes\n"
        "  client.pem, client.key    for callers who are asked for a certificate\n"
        "  tokens                    what processes let in\n"
        "  read.token, write.token   what callers show"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
