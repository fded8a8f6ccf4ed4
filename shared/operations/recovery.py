"""Recovery: what becomes of the work that a process ran before it was restarted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from shared.operations import endings
from shared.operations.model import OperationRecord, Owner
from shared.operations.store import ACTIVE, OperationStore, SortKey

logger = logging.getLogger("ktrdr.operations")

_PAGE = 500


def end_orphans(store: OperationStore, me: Owner, now: datetime) -> None:
    """End every open operation of this instance's earlier lives, with what was last stored.

    Only one process at a time is this instance, so nobody runs them; and nobody has begun
    those for which no host had been chosen.
    """
    for record in _open_records(store):
        if record.owner.instance_id == me.instance_id:
            if store.finish(_restarted(record, now)) is None:
                continue  # another process on this store has given it up and deleted it just now
            logger.warning("Operation %s was cut off by a restart", record.operation.operation_id)


def _restarted(record: OperationRecord, now: datetime) -> OperationRecord:
    operation = record.operation
    cancelled = operation.cancel_time is not None
    told_nobody = record.told_by == record.owner.instance_id
    error = (
        endings.NEVER_STARTED if told_nobody else endings.process_restarted(operation.update_time)
    )
    ending = endings.failed(error, now)(operation.status, cancelled)
    ended = replace(operation, status=ending.status, end_time=now, error=ending.error)
    return replace(record, operation=ended)


def _open_records(store: OperationStore) -> Iterator[OperationRecord]:
    """All open records; those that are ended meanwhile do not disturb the order."""
    after: SortKey | None = None
    while page := store.page(ACTIVE, after, _PAGE):
        yield from page
        last = page[-1].operation
        after = last.create_time, last.operation_id
