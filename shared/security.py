"""What the settings say about who may call a process, and how it calls others."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from shared.reloading import Reloading
from shared.rpc.addresses import is_local
from shared.rpc.security import (
    ClientSecurity,
    ServerSecurity,
    channel_credentials,
    server_credentials,
)
from shared.rpc.tokens import read_token, read_tokens
from shared.settings import ProcessSettings, SettingsError

logger = logging.getLogger("ktrdr.security")


def server_security(settings: ProcessSettings, variable: str, address: str) -> ServerSecurity:
    """What the settings say about who may call; `variable` is that of the listening address.

    Raises SettingsError if other machines could call and nothing stands before it,
    CredentialsError if a file cannot be used.
    """
    cert, key, tokens = settings.tls_cert, settings.tls_key, settings.tokens_file
    if not is_local(address) and (cert is None or tokens is None):
        if not settings.insecure:
            raise SettingsError(
                f"{variable}: {address} can be reached from other machines. Set KTRDR_TLS_CERT, "
                "KTRDR_TLS_KEY and KTRDR_TOKENS_FILE, or listen on 127.0.0.1; or KTRDR_INSECURE=1 "
                "if everybody who can reach it may do everything"
            )
        logger.warning(
            "KTRDR_INSECURE: whoever reaches %s is let in or can be listened to", address
        )
    return ServerSecurity(
        server_credentials(cert, key, settings.tls_client_ca) if cert and key else None,
        Reloading([tokens], partial(read_tokens, tokens)) if tokens else None,
        settings.reflection,
    )


def client_security(settings: ProcessSettings, targets: Iterable[str]) -> ClientSecurity:
    """What the settings say about calls to other processes, those at `targets` and others.

    Raises CredentialsError if a file cannot be used, TokenNotSentError if one of
    the targets must not be shown the token.
    """
    cert, key, token = settings.tls_cert, settings.tls_key, settings.token_file
    pair = (cert, key) if cert and key else None
    security = ClientSecurity(
        channel_credentials(settings.tls_ca, pair) if settings.tls_ca else None,
        Reloading([token], partial(read_token, token)).get if token else None,
        settings.insecure,
    )
    for target in targets:
        security.metadata(target)
    return security
