"""What ends a command early, and the exit codes a script can rely on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit code of `ktrdr` says."""

    DONE = 0
    """What was asked for is done; also a watch left with Ctrl-C."""
    FAILED = 1
    """The operation failed, wholly or in part, or the backend refused for a reason of its own."""
    USAGE = 2
    """The command or the request was wrong; nothing was begun."""
    CANCELLED = 3
    """The operation was cancelled."""
    UNREACHABLE = 4
    """No backend answered in time."""
    UNFINISHED = 5
    """`operations wait --timeout`: the time is up and the operation goes on."""
    INTERRUPTED = 130
    """Ctrl-C where there was nothing to detach from."""


class CommandError(Exception):
    """Ends the command with a message, its details and what to do next."""

    def __init__(
        self,
        message: str,
        *,
        exit_code: ExitCode = ExitCode.FAILED,
        details: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.details = tuple(details)
        """One line each, shown below the message."""
        self.hint = hint
        """What to do next, as a sentence."""

    def text(self) -> str:
        """The whole error as lines for a terminal."""
        lines = [f"Error: {self.message}", *(f"  - {detail}" for detail in self.details)]
        return "\n".join([*lines, self.hint] if self.hint else lines)


class RpcFailedError(CommandError):
    """A call to the backend did not succeed."""

    def __init__(
        self,
        message: str,
        *,
        status: str,
        reason: str = "",
        told: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float = 0.0,
        exit_code: ExitCode = ExitCode.FAILED,
        details: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        super().__init__(message, exit_code=exit_code, details=details, hint=hint)
        self.status = status
        """Name of the gRPC status code."""
        self.reason = reason
        """The server's UPPER_SNAKE_CASE reason; empty if no ktrdr server answered."""
        self.told = told
        """The server's sentence as it was sent; empty if no ktrdr server answered."""
        self.metadata = dict(metadata or {})
        """Facts that go with the reason."""
        self.retry_after = retry_after
        """Seconds after which the server suggests to try again; 0 if it does not say."""

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed a little later."""
        return self.status in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
