"""What a process counts, all of it: the port to whatever it is counted with."""

from __future__ import annotations

from typing import Protocol

from shared.operations.monitor import OperationsMonitor
from shared.rpc.call_monitor import CallMonitor


class Monitor(OperationsMonitor, CallMonitor, Protocol):
    """Takes note of what happens in a process; called from any thread, must not raise or wait."""

    def paced(self, seconds: float, /) -> None:
        """A request to Interactive Brokers had to wait for its turn."""
        ...
