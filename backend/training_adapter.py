"""Trainings on training hosts."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import deprecated

from backend.host_adapter import ASK_AGAIN, HostAdapter, Route
from backend.started import Started
from backend.training_stub import TrainingStatus, TrainingStub
from shared.clock import Clock
from shared.operations.id_prefixes import HOST_TRAINING
from shared.operations.remote import RemoteOperationStub
from shared.operations.service import OperationsService
from shared.rpc.errors import KtrdrError, NotFoundError, UnavailableError
from shared.rpc.host_channel import HostChannel
from shared.training.launcher import TrainingOrder

_ROUTE = Route("training host", "trainings", "TRAINING_HOST_SERVICE_URL", HOST_TRAINING)


class TrainingHost:
    """One training host and how to speak to it."""

    def __init__(self, channel: HostChannel) -> None:
        self.target = channel.target
        self.operations = RemoteOperationStub(channel)
        self.trainings = TrainingStub(channel)

    def start(self, order: TrainingOrder, request_id: str, *, timeout: float) -> Started:
        """Start a training; return what the host made of it."""
        return self.trainings.start(order, request_id, timeout=timeout)


class TrainingAdapter(HostAdapter[TrainingOrder]):
    """Launches trainings on hosts: a `TrainingLauncher`."""

    def __init__(
        self,
        operations: OperationsService,
        hosts: Sequence[TrainingHost],
        clock: Clock | None = None,
    ) -> None:
        super().__init__(operations, hosts, _ROUTE, clock)
        self._training_hosts = tuple(hosts)

    @deprecated("Use RemoteOperationStub.get_operation() instead")
    def get_training_status(self, session_id: str) -> TrainingStatus:
        """Ask the hosts for a training by its session_id, in the old shape.

        Deprecated: `RemoteOperationStub.get_operation(HOST_TRAINING + session_id)` tells
        the same and more; clients read the backend's operation with GetOperation.
        Raises NotFoundError if no host knows it.
        """
        missing: KtrdrError | None = None
        for host in self._training_hosts:
            try:
                return host.trainings.get_training_status(session_id, timeout=ASK_AGAIN)
            except (NotFoundError, UnavailableError) as error:
                # That one does not know it says less than that one could not be asked.
                if missing is None or isinstance(missing, NotFoundError):
                    missing = error
        raise missing or NotFoundError("There are no training hosts.")
