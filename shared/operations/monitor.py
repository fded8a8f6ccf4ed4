"""What the engine counts for whoever monitors its process: a port, and nobody behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from shared.operations.model import FreshnessSource, OperationStatus, OperationType


class OperationsMonitor(Protocol):
    """Takes note of what happens to operations; called from any thread, must not raise or wait."""

    def created(self, type_: OperationType, /) -> None:
        """An operation was created."""
        ...

    def ended(self, type_: OperationType, status: OperationStatus, /) -> None:
        """An operation was seen to end, here or at its owner."""
        ...

    def hit(self, type_: OperationType, /) -> None:
        """What was known of an open operation was young enough."""
        ...

    def missed(self, type_: OperationType, /) -> None:
        """An open operation had to be read for a caller, or another caller's read was shared."""
        ...

    def refreshed(self, source: FreshnessSource, seconds: float, /, *, failed: bool) -> None:
        """A source was read, which took so long."""
        ...

    def pulled(self, size: Callable[[], int], /) -> None:
        """Metrics of an operation were asked for; `size` tells the bytes of the answer's."""
        ...


class Unmonitored:
    """An OperationsMonitor that notes nothing."""

    def created(self, type_: OperationType, /) -> None:
        """Note nothing."""

    def ended(self, type_: OperationType, status: OperationStatus, /) -> None:
        """Note nothing."""

    def hit(self, type_: OperationType, /) -> None:
        """Note nothing."""

    def missed(self, type_: OperationType, /) -> None:
        """Note nothing."""

    def refreshed(self, source: FreshnessSource, seconds: float, /, *, failed: bool) -> None:
        """Note nothing."""

    def pulled(self, size: Callable[[], int], /) -> None:
        """Note nothing."""


UNMONITORED = Unmonitored()
