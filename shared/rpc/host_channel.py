"""The one channel of a process to another: deadlines, retries where safe, domain errors.

A call is repeated only if the connection was never made, so that the other side
has certainly not seen it. It is then repeated on a new connection: one that has
failed before waits up to a second until it tries again, and a host that is back
would go on looking dead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

import grpc

from shared.rpc.call_tracing import CallTracer, traced
from shared.rpc.channel import open_channel
from shared.rpc.errors import (
    Code,
    HostNotConnectedError,
    HostUnreachableError,
    KtrdrError,
    cut_off,
)
from shared.rpc.failed_call import domain_error, read_failed_call
from shared.rpc.security import PLAIN, ClientSecurity
from shared.rpc.via import forwarded

RETRIES = 2
"""Times a call is repeated at most."""


class _Connection:
    """A channel with the generated stubs on it."""

    def __init__(self, target: str, security: ClientSecurity) -> None:
        self.channel = open_channel(target, security)
        self.tried = False
        """Whether a call was made on it: its next failure may be an old one."""
        self.failed = False
        """Whether it could not be made or has broken: the next call gets a new one."""
        self.calls = 0
        """On their way; a connection that was replaced is closed after the last."""
        self._stubs: dict[Callable[[grpc.Channel], Any], Any] = {}

    def prepare(self, kind: Callable[[grpc.Channel], object]) -> None:
        """Make the generated stub, once; under the lock of the HostChannel."""
        if kind not in self._stubs:
            self._stubs[kind] = kind(self.channel)

    def bound(self, kind: Callable[[grpc.Channel], object], method: str) -> Any:
        """A method of a generated stub that was prepared, about to be called."""
        self.tried = True
        return getattr(self._stubs[kind], method)

    def note(self, error: grpc.RpcError) -> bool:
        """Learn from a failed call; whether the other side has certainly not seen it.

        That other calls on this connection could not be made says nothing about this one.
        """
        failed = read_failed_call(error)
        if failed.code is Code.UNAVAILABLE and not failed.answered:
            self.failed = True  # a dying connection would take the next call with it
        return failed.never_connected


class HostChannel:
    """Calls to the process at one target, through generated stubs.

    Safe to use from several threads. `instance` is this process's id, which
    travels with every call; `security` is how it connects and what it shows;
    `tracer` traces the calls, if there is one.
    """

    def __init__(
        self,
        target: str,
        instance: str,
        security: ClientSecurity = PLAIN,
        tracer: CallTracer | None = None,
    ) -> None:
        self._tracer = tracer
        self.target = target
        self._instance = instance
        self._security = security
        self._lock = threading.Lock()  # guards the fields below and the calls on each connection
        self._connection = _Connection(target, security)
        self._old: set[_Connection] = set()
        """Replaced while there were calls on them, each of which may just have got through."""
        self._closed = False

    def call(
        self, stub: Callable[[grpc.Channel], object], method: str, request: object, timeout: float
    ) -> Any:
        """Call a method and return its answer within `timeout` seconds, or raise a KtrdrError."""
        give_up_at, repeats = monotonic() + timeout, RETRIES
        while True:
            connection = self._enter(stub)
            retry = connection.tried  # a new one has failed just now
            try:
                bound = traced(connection.bound(stub, method), self._tracer)
                return bound(request, timeout=give_up_at - monotonic(), metadata=self._metadata())
            except ValueError as error:  # gRPC's way to say that the channel is closed
                raise self._closed_error() from error
            except grpc.RpcError as error:
                retry = connection.note(error) and retry and repeats > 0
                if not retry or monotonic() >= give_up_at:
                    raise self.error_of(error, timeout) from error
                repeats -= 1
            finally:
                self._leave(connection)

    def begin(
        self, stub: Callable[[grpc.Channel], object], method: str, request: object, timeout: float
    ) -> PendingCall:
        """Send a call and do not wait. Not repeated: whoever needs it can ask again."""
        try:
            connection = self._enter(stub)
        except KtrdrError as error:
            return PendingCall(self, None, timeout, error)
        try:
            bound = traced(connection.bound(stub, method), self._tracer)
            future = bound.future(request, timeout=timeout, metadata=self._metadata())
        except (ValueError, KtrdrError) as error:  # a ValueError as above
            self._leave(connection)
            refused = error if isinstance(error, KtrdrError) else self._closed_error()
            return PendingCall(self, None, timeout, refused)
        future.add_done_callback(lambda _: self._leave(connection))
        return PendingCall(self, future, timeout, connection=connection)

    def stream(
        self,
        stub: Callable[[grpc.Channel], object],
        method: str,
        request: object,
        timeout: float,
        at_end: Callable[[Callable[[], None]], bool] = lambda _: True,
    ) -> Iterator[Any]:
        """Call a method that answers with a stream and yield its messages, or raise a KtrdrError.

        All of them have to come within `timeout` seconds. Not repeated. Whoever
        gives the iterator up ends the call; who waits for a message cannot, so `at_end`,
        the `add_callback` of a call that is being served, is given what does.
        """
        connection = self._enter(stub)
        call: Any = None
        try:
            call = traced(connection.bound(stub, method), self._tracer)(
                request, timeout=timeout, metadata=self._metadata()
            )
            if not at_end(call.cancel):
                call.cancel()  # it is over already
            yield from call
        except ValueError as error:  # as above
            raise self._closed_error() from error
        except grpc.RpcError as error:
            connection.note(error)
            cut_off(error)  # it is the call itself
            raise self.error_of(error, timeout) from error
        finally:
            if call is not None:
                call.cancel()
            self._leave(connection)

    def close(self) -> None:
        """Close the channel; calls on their way end, later ones raise HostUnreachableError."""
        with self._lock:
            self._closed = True
            connections = [self._connection, *self._old]
        for connection in connections:
            connection.channel.close()

    def error_of(self, error: grpc.RpcError, timeout: float) -> KtrdrError:
        """The domain error of a call to this target that failed."""
        encrypted = self._security.encrypted
        known = domain_error(error, self.target, timeout=timeout, encrypted=encrypted)
        if read_failed_call(error).never_connected:
            return HostNotConnectedError(
                known.message, reason=known.reason, metadata=known.metadata
            )
        return known

    def _enter(self, stub: Callable[[grpc.Channel], object]) -> _Connection:
        """The connection for one call, with the stub; a new one in place of one that failed.

        Raises HostUnreachableError if the channel is closed: gRPC crashes if a stub
        is made on a channel that is, so it is made under the lock that closing takes.
        """
        seen, fresh = self._connection, None
        if seen.failed and not self._closed:  # an unguarded look: files may be read for a new one
            fresh = _Connection(self.target, self._security)
        with self._lock:
            if fresh is not None and self._connection is seen and not self._closed:
                self._connection, fresh = fresh, None
                self._old.add(seen)
            connection, closed = self._connection, self._closed
            if not closed:
                connection.prepare(stub)
                connection.calls += 1
            unused = self._old and self._unused(seen)
        if unused:
            seen.channel.close()
        if fresh is not None:
            fresh.channel.close()  # another call was quicker
        if closed:
            raise self._closed_error()
        return connection

    def _leave(self, connection: _Connection) -> None:
        """End a call's use of a connection; the last on an old one closes it."""
        with self._lock:
            connection.calls -= 1
            unused = self._old and self._unused(connection)
        if unused:
            connection.channel.close()

    def _unused(self, connection: _Connection) -> bool:
        """Whether an old connection is to be closed, by the caller, once; under the lock."""
        if connection.calls or connection not in self._old:
            return False
        self._old.remove(connection)
        return True

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call: the way here, and our token. Raises TokenNotSentError."""
        return forwarded(self._instance) + self._security.metadata(self.target)

    def _closed_error(self) -> KtrdrError:
        return HostUnreachableError(
            f"This process is ending and asks {self.target} no more.",
            metadata={"target": self.target},
        )


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call that has been sent."""

    channel: HostChannel
    future: Any
    """A grpc.Future; None if it could not be sent."""
    timeout: float
    refused: KtrdrError | None = None
    connection: _Connection | None = None

    def add_done_callback(self, call: Callable[[object], object], /) -> None:
        """Have `call` called, on any thread, when the call has ended, or now if it has."""
        if self.future is None:
            call(self)
        else:
            self.future.add_done_callback(call)

    def done(self) -> bool:
        """Whether the call has ended."""
        return self.future is None or bool(self.future.done())

    def cancel(self) -> object:
        """Give the call up."""
        return self.future is not None and self.future.cancel()

    def result(self) -> Any:
        """Wait for the answer and return it, or raise a KtrdrError."""
        if self.refused is not None:
            raise self.refused
        try:
            return self.future.result()
        except grpc.FutureCancelledError as error:
            raise HostUnreachableError(
                f"The call to {self.channel.target} was given up.",
                metadata={"target": self.channel.target},
            ) from error
        except grpc.RpcError as error:
            if self.connection is not None:
                self.connection.note(error)
            cut_off(error)  # it is the future itself
            raise self.channel.error_of(error, self.timeout) from error
