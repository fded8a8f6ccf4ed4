"""Security: how a server proves who it is and whom it lets in, and the same for a client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from shared.reloading import Reloading
from shared.rpc import certificates
from shared.rpc.addresses import is_local
from shared.rpc.errors import TokenNotSentError
from shared.rpc.tokens import Tokens

AUTHORIZATION = "authorization"
BEARER = "Bearer "


@dataclass(frozen=True, slots=True)
class ServerSecurity:
    """What stands before a server."""

    credentials: grpc.ServerCredentials | None = None
    """None: plaintext."""
    tokens: Reloading[Tokens] | None = None
    """None: everybody may call everything."""
    reflection: bool = True
    """Whether the server describes its services."""


OPEN = ServerSecurity()
"""Nothing: for servers that only this machine can reach."""


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """How this process connects to others, and what it shows them."""

    credentials: Callable[[], grpc.ChannelCredentials] | None = None
    """Of the next channel to be opened; None: plaintext."""
    token: Callable[[], str] | None = None
    """To be sent with the next call; None: none."""
    insecure: bool = False
    """Whether a token may be sent where others can read it."""

    @property
    def encrypted(self) -> bool:
        """Whether channels are."""
        return self.credentials is not None

    def metadata(self, target: str) -> tuple[tuple[str, str], ...]:
        """Return what to send with a call to a target; raises TokenNotSentError."""
        if self.token is None:
            return ()
        if not (self.encrypted or self.insecure or is_local(target)):
            raise TokenNotSentError(target)
        return ((AUTHORIZATION, BEARER + self.token()),)


PLAIN = ClientSecurity()
"""Plaintext and no token."""


def server_credentials(cert: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """Serve with the certificate in these files; with `client_ca` clients must have one, too.

    Each new connection gets the certificates that are in the files then. Raises
    CredentialsError.
    """

    def read() -> grpc.ServerCertificateConfiguration:
        pair = certificates.read_key_pair(cert, key)
        roots = client_ca and certificates.read_authorities(client_ca, certificates.CLIENT_CA)
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], roots or None)

    files = Reloading([cert, key, *([client_ca] if client_ca else [])], read)
    in_use = files.get()

    def news() -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC before each handshake, one at a time; None means no change."""
        nonlocal in_use
        latest = files.get()
        if latest is in_use:
            return None
        in_use = latest
        return latest

    return grpc.dynamic_ssl_server_credentials(
        in_use,
        news,  # type: ignore[arg-type]  # may return None, as documented
        require_client_authentication=client_ca is not None,
    )


def channel_credentials(
    authorities: Path, pair: tuple[Path, Path] | None
) -> Callable[[], grpc.ChannelCredentials]:
    """Trust these authorities; show the certificate of `pair`, (cert, key), to who asks for one.

    Each new channel gets what is in the files then. Raises CredentialsError.
    """

    def read() -> grpc.ChannelCredentials:
        roots = certificates.read_authorities(authorities, certificates.CA)
        own = certificates.read_key_pair(*pair) if pair else None
        return grpc.ssl_channel_credentials(
            roots, own.key if own else None, own.chain if own else None
        )

    return Reloading([authorities, *(pair or ())], read).get
