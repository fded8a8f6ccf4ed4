"""Data loads on the IB host."""

from __future__ import annotations

from backend.data_stub import DataStub
from backend.host_adapter import HostAdapter, Route
from backend.started import Started
from shared.clock import Clock
from shared.marketdata.launcher import LoadOrder
from shared.operations.id_prefixes import HOST_DATA
from shared.operations.remote import RemoteOperationStub
from shared.operations.service import OperationsService
from shared.rpc.host_channel import HostChannel

_ROUTE = Route("IB host", "data loads", "IB_HOST_SERVICE_URL", HOST_DATA)


class IbHost:
    """The IB host and how to speak to it."""

    def __init__(self, channel: HostChannel) -> None:
        self.target = channel.target
        self.operations = RemoteOperationStub(channel)
        self._loads = DataStub(channel)

    def start(self, order: LoadOrder, request_id: str, *, timeout: float) -> Started:
        """Start a load; return what the host made of it."""
        return self._loads.start(order, request_id, timeout=timeout)


class DataAdapter(HostAdapter[LoadOrder]):
    """Launches data loads on the IB host: a `DataLoadLauncher`."""

    def __init__(
        self, operations: OperationsService, host: IbHost, clock: Clock | None = None
    ) -> None:
        super().__init__(operations, [host], _ROUTE, clock)
