"""Processes that come and go over one store: lives of an instance, and its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shared.operations.model import Metric, OperationRecord, Owner
from shared.operations.registry import HOST_OPERATION_ID
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.source import OperationSource
from shared.operations.views import OperationView
from tests.support.clock import FakeClock
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import FlakyStore, operation

HOST = Owner("host", "first", "host:50052")
SIBLING = Owner("sibling", "first", "sibling:50051")


class Life:
    """A service on a store that others use or have used; work elsewhere is at `source`."""

    def __init__(
        self,
        store: FlakyStore | None = None,
        *,
        instance: str = "me",
        incarnation: str = "second",
        clock: FakeClock | None = None,
        limits: OperationsLimits | None = None,
    ) -> None:
        self.store = store or FlakyStore()
        self.clock = clock or FakeClock()
        self.source = FakeRemoteSource()
        self.owner = Owner(instance, incarnation, f"{instance}:50051")
        self.service = OperationsService(self.store, self.owner, limits=limits, clock=self.clock)
        # In place of the way over the wire, which is tested with real processes.
        self.service._registry._source_of = self._source_of  # type: ignore[method-assign,assignment]  # as said
        self.asked_for: list[Owner] = []

    def _source_of(self, record: OperationRecord) -> OperationSource:
        self.asked_for.append(record.owner)
        return self.source

    def look(self, operation_id: str = "op", cursor: int = 0) -> OperationView:
        """Read an operation with all its metrics."""
        return self.service.get_operation(operation_id, metrics_cursor=cursor, metrics_limit=10_000)

    def force(self, operation_id: str = "op") -> OperationView:
        """Read an operation now."""
        return self.service.get_operation(operation_id, max_staleness=0.0, metrics_limit=10_000)


def recorded(
    store: FlakyStore, owner: Owner, metrics: Sequence[Metric] = (), **fields: object
) -> OperationRecord:
    """Keep a record as a process left it: of a host's work, a neighbour's or its own."""
    if owner is HOST:
        fields.setdefault("metadata", {HOST_OPERATION_ID: "host_training_op"})
    made = operation("op", metrics_count=len(metrics), **fields)
    kept = OperationRecord(made, owner, "request-op", "fingerprint")
    store.create(replace(kept, operation=replace(made, metrics_count=0)))
    store.save(kept, metrics)
    return kept
