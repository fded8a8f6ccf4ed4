"""Authorization: what each method asks of a token, and the interceptor that asks for it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from grpc_reflection.v1alpha import reflection

from shared.reloading import Reloading
from shared.rpc import health
from shared.rpc.errors import KtrdrError, PermissionDeniedError, UnauthenticatedError
from shared.rpc.handed_call import Metadata, may_receive_of, receivable
from shared.rpc.interceptors import Behaviour, Handler, MethodInterceptor, rebuilt
from shared.rpc.said_lately import SaidLately
from shared.rpc.security import AUTHORIZATION, BEARER
from shared.rpc.tokens import Scope, TokenEntry, Tokens

logger = logging.getLogger("ktrdr.security")

_SEND_ONE = (
    "Send `authorization: Bearer TOKEN` with every call; `ktrdr` and a backend that asks hosts "
    "take the token from the file that KTRDR_TOKEN_FILE names."
)


class TokenMissingError(UnauthenticatedError):
    """The call shows no token, and only health is open."""

    reason = "TOKEN_MISSING"

    def __init__(self) -> None:
        super().__init__(f"This server wants a token. {_SEND_ONE}")


class TokenUnknownError(UnauthenticatedError):
    """The call shows a token that is none of this server's."""

    reason = "TOKEN_UNKNOWN"

    def __init__(self) -> None:
        super().__init__(f"This server does not know the token. {_SEND_ONE}")


class WriteScopeNeededError(PermissionDeniedError):
    """The token may read, and the method does more than that."""

    reason = "WRITE_SCOPE_NEEDED"

    def __init__(self, method: str, name: str) -> None:
        super().__init__(
            f"{method} needs a token with scope write; {name!r} has scope read. Use another "
            "token, or change the scope in the server's KTRDR_TOKENS_FILE.",
            metadata={"method": method, "scope": "write", "token_name": name},
        )


def scope_of(method: str, reads: Collection[str] = ()) -> Scope | None:
    """What a token must be good for to call a method, by its full name; None: none is needed.

    A method reads if the contract says that it has no side effects, or if it is
    one of `reads`, of a contract that cannot say so. Whatever else there is
    needs write.
    """
    service, _, name = method.removeprefix("/").rpartition("/")
    if service == health.SERVICE_NAME:
        return None
    if service == reflection.SERVICE_NAME or method in reads:
        return Scope.READ
    try:
        described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return Scope.WRITE
    level = described.GetOptions().idempotency_level
    return Scope.READ if level == MethodOptions.NO_SIDE_EFFECTS else Scope.WRITE


class AuthorizationInterceptor(MethodInterceptor):
    """Lets a call pass that shows a token good for its method.

    Stands inside ErrorInterceptor, which maps what it raises, and before all else.
    """

    def __init__(self, tokens: Reloading[Tokens], reads: Collection[str] = ()) -> None:
        """`reads` as for `scope_of`."""
        super().__init__()
        self._tokens = tokens
        self._reads = frozenset(reads)
        self._said = SaidLately()

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Look at the token of each call before its behaviour."""
        needed = scope_of(method, self._reads)
        if needed is None:
            return handler
        around = self._stream if handler.response_streaming else self._unary
        return rebuilt(handler, lambda inner: self._asks(needed, around(method, needed, inner)))

    def _asks(self, needed: Scope, checked: Behaviour) -> Behaviour:
        """Have no message received of a call that may not pass."""
        if may_receive_of(checked) is None:
            return checked
        return receivable(checked, functools.partial(self._would_pass, needed))

    def _unary(self, method: str, needed: Scope, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        def checked(request: Any, context: grpc.ServicerContext, *rest: Any) -> Any:
            self._check(method, needed, context)
            return behaviour(request, context, *rest)

        return checked

    def _stream(self, method: str, needed: Scope, behaviour: Behaviour) -> Behaviour:
        if getattr(behaviour, "experimental_non_blocking", False):
            return self._unary(method, needed, behaviour)  # answers through a callback

        @functools.wraps(behaviour)
        def checked(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self._check(method, needed, context)
            yield from behaviour(request, context)

        return checked

    def _would_pass(self, needed: Scope, metadata: Metadata) -> bool:
        """Whether a call may pass by the tokens as they were read last; looks at no file."""
        try:
            entry = self._tokens.latest.entry_of(_token_in(metadata))
        except TokenMissingError:
            return False
        return entry is not None and entry.scope >= needed

    def _check(self, method: str, needed: Scope, context: grpc.ServicerContext) -> None:
        """Raise UnauthenticatedError or PermissionDeniedError unless the call may pass."""
        try:
            entry = self._entry(method, needed, context)
        except (UnauthenticatedError, PermissionDeniedError) as error:
            self._say(method, context.peer(), error)
            raise
        if needed is Scope.WRITE:
            logger.info("%s called by %s", method, entry.name)

    def _entry(self, method: str, needed: Scope, context: grpc.ServicerContext) -> TokenEntry:
        entry = self._tokens.get().entry_of(_token_in(context.invocation_metadata()))
        if entry is None:
            raise TokenUnknownError
        if entry.scope < needed:
            raise WriteScopeNeededError(method, entry.name)
        return entry

    def _say(self, method: str, peer: str, error: KtrdrError) -> None:
        """Log who was refused: of each address and reason the first call in a minute."""
        address = peer.rpartition(":")[0]  # each call may come from another port
        if self._said.is_due(f"{address} {error.reason}"):
            who = error.metadata.get("token_name", "no known token")
            logger.warning("Refused %s from %s (%s): %s", method, peer, who, error.reason)


def _token_in(metadata: Metadata) -> str:
    """The token a call shows. Raises TokenMissingError unless it shows one, once."""
    shown = [value for key, value in metadata if key == AUTHORIZATION]
    if len(shown) != 1 or not isinstance(shown[0], str):
        raise TokenMissingError
    scheme, _, token = shown[0].partition(" ")
    if scheme.lower() != BEARER.strip().lower() or not token:
        raise TokenMissingError
    return token.strip()
