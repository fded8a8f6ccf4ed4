"""The command's connection to a process: over TLS and with a token, as its environment says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from backend.cli.failures import CommandError, ExitCode
from backend.cli.rpc_errors import explain
from backend.cli.tracing import tracing
from shared.rpc.call_tracing import traced
from shared.rpc.certificates import CA, CERT, KEY
from shared.rpc.channel import open_channel
from shared.rpc.errors import CredentialsError, KtrdrError
from shared.rpc.security import ClientSecurity, channel_credentials
from shared.rpc.tokens import TOKEN_FILE, read_token

INSECURE = "KTRDR_INSECURE"
_YES = {"1", "true", "yes", "on", "t", "y"}
_NO = {"", "0", "false", "no", "off", "f", "n"}


def _whole(answer: Any) -> Any:
    return answer


class Connection:
    """A connection to the process at one address; it connects when first used."""

    def __init__(self, address: str) -> None:
        """Raises CommandError if what the environment names cannot be used."""
        self.address = address
        try:
            self._security = security_of_environment()
            self._metadata = self._security.metadata(address)
        except KtrdrError as error:
            raise CommandError(error.message, exit_code=ExitCode.USAGE) from error
        self.channel = open_channel(address, self._security)

    def __enter__(self) -> Self:
        """Use it in a with statement, which closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.channel.close()

    def call(
        self,
        method: Callable[..., Any],
        request: Message,
        deadline: float,
        read: Callable[[Any], Any] = _whole,
    ) -> Any:
        """Call a method of a stub and return its answer; raises RpcFailedError.

        It has to come within `deadline` seconds; one that is a stream is taken by `read`.
        """
        try:
            call = traced(method, tracing())
            return read(call(request, timeout=deadline, metadata=self._metadata))
        except grpc.RpcError as error:
            encrypted = self._security.encrypted
            raise explain(error, self.address, deadline, encrypted=encrypted) from error


def security_of_environment() -> ClientSecurity:
    """What the environment says about calls. Raises KtrdrError."""
    authorities, token = _path(CA), _path(TOKEN_FILE)
    cert, key = _path(CERT), _path(KEY)
    credentials = None
    if authorities is not None:
        if (cert is None) != (key is None):
            raise CredentialsError(
                f"{CERT} and {KEY} belong together; set the one that is missing."
            )
        pair = (cert, key) if cert and key else None
        credentials = channel_credentials(authorities, pair)
    shown = None if token is None else read_token(token)
    return ClientSecurity(credentials, None if shown is None else lambda: shown, _insecure())


def _insecure() -> bool:
    """Whether a token may be sent in the open; unset or empty is no."""
    value = os.environ.get(INSECURE, "")
    if (word := value.strip().lower()) in _YES | _NO:
        return word in _YES
    raise CredentialsError(
        f"{INSECURE}: must be 1, true, yes or on, or 0, false, no or off (got {value!r})."
    )


def _path(variable: str) -> Path | None:
    """The file that a variable names; None if it is unset or empty."""
    value = os.environ.get(variable, "")
    return Path(value).expanduser() if value else None
