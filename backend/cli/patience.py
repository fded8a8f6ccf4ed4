"""Bearing short outages of the backend while an operation is followed."""

from __future__ import annotations

from backend.cli.failures import CommandError, RpcFailedError
from backend.cli.options import backend_argument
from backend.cli.pace import Pace


class Patience:
    """Decides whether a failed call is borne, and for how much longer.

    Args:
        operation_id: The operation that is followed.
        address: The backend that is asked.
        pace: How long to bear silence.
        known: Whether the operation is known to exist. If not, the first call
            must succeed: a wrong address shall not take half a minute to be told.
    """

    def __init__(self, operation_id: str, address: str, pace: Pace, *, known: bool) -> None:
        self._operation_id = operation_id
        self._backend = backend_argument(address)
        self._pace = pace
        self.known = known
        """Whether the operation is known to exist, from the start or by an answer."""
        self._silent_since: float | None = None

    def answered(self) -> None:
        """Note that a call has succeeded."""
        self.known, self._silent_since = True, None

    def bear(self, error: RpcFailedError) -> str:
        """What to tell about a failed call that is tried again.

        Raises CommandError if it is not: the patience is at its end, the backend
        has lost the operation, or trying again cannot help.
        """
        if self.known and error.status == "NOT_FOUND":
            raise self._lost() from error
        if not (self.known and error.transient):
            raise error
        now = self._pace.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        silence = now - self._silent_since
        if silence >= self._pace.patience:
            raise self._gave_up(error, silence) from error
        left = self._pace.patience - silence
        return f"{_sentence(error.message)} Trying again for {left:.0f} s."

    def pause(self, error: RpcFailedError) -> None:
        """Let the time pass that the server asks for, at least the usual interval."""
        self._pace.pause(max(self._pace.interval, error.retry_after))

    def _lost(self) -> CommandError:
        return CommandError(
            f"the backend no longer knows {self._operation_id}, so how it ended is unknown.",
            hint="It was restarted without its records. "
            f"`ktrdr operations list{self._backend}` shows what it knows; start the work again "
            "if it is missing.",
        )

    def _gave_up(self, error: RpcFailedError, silence: float) -> CommandError:
        return CommandError(
            f"{error.message} Gave up after {silence:.0f} s.",
            exit_code=error.exit_code,
            hint="Unless the backend was stopped, the operation goes on. Come back with "
            f"`ktrdr operations watch {self._operation_id}{self._backend}`.",
        )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
