"""Looking at an operation until it has ended, one call per look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backend.cli.client import Backend
from backend.cli.failures import RpcFailedError
from backend.cli.pace import Pace
from backend.cli.patience import Patience
from backend.cli.states import is_terminal
from ktrdr.operations.v1 import operation_pb2


@dataclass(frozen=True, slots=True)
class Look:
    """What one call saw."""

    operation: operation_pb2.Operation
    metrics: tuple[operation_pb2.Metric, ...]
    """Those since the look before, in order."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A call that was not answered; the watch goes on."""

    message: str
    """What happened, and for how long it will be tried again."""


class OperationWatch:
    """The looks at one operation, until it has ended.

    Args:
        backend: Who to ask.
        operation_id: The operation.
        pace: How often to ask, and how long to bear silence.
        known: Whether the operation is known to exist; if not, the first look
            must succeed.
    """

    def __init__(
        self, backend: Backend, operation_id: str, pace: Pace, *, known: bool = False
    ) -> None:
        self._backend = backend
        self._operation_id = operation_id
        self._pace = pace
        self._patience = Patience(operation_id, backend.address, pace, known=known)
        self._cursor = 0

    def looks(self) -> Iterator[Look | Outage]:
        """Look, and look again after a pause; ends after the look that saw the end.

        Raises CommandError if the backend stays silent or has lost the operation.
        """
        while True:
            try:
                reply = self._backend.get_operation(self._operation_id, metrics_cursor=self._cursor)
            except RpcFailedError as error:
                yield Outage(self._patience.bear(error))
                self._patience.pause(error)
                continue
            self._patience.answered()
            # A log shorter than the cursor was lost in a restart: the server
            # then names its end, and the next metrics are new again.
            self._cursor = reply.new_cursor
            yield Look(reply.operation, tuple(reply.metrics))
            if reply.has_more and reply.metrics:
                continue
            if is_terminal(reply.operation):
                return
            self._pace.pause(self._pace.interval)
