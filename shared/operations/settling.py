"""Settling: how an ending that has been decided becomes the record.

Drain, store, publish, in this order: nothing terminal is ever seen before its
last metrics, nor before it is stored.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from math import inf

from shared.clock import Clock
from shared.operations.flights import FULL_TIMEOUT, PAGE, log_refresh
from shared.operations.live import LiveOperation
from shared.operations.model import (
    FreshnessSource,
    Operation,
    OperationRecord,
    OperationStatus,
)
from shared.operations.monitor import OperationsMonitor
from shared.operations.registry import Registry
from shared.operations.store import OperationStore
from shared.rpc.errors import StoreUnavailableError

logger = logging.getLogger("ktrdr.operations")


NEWS = 5.0
"""Seconds between two writes of what readers have learnt of one operation."""


class Settler:
    """Brings live operations to the store; a store that is away stops no work."""

    def __init__(
        self, store: OperationStore, registry: Registry, clock: Clock, monitor: OperationsMonitor
    ) -> None:
        """`registry` lets go of what has ended."""
        self._monitor = monitor
        self._store = store
        self._registry = registry
        self._clock = clock

    def settle(self, live: LiveOperation, *, wait: bool, within: float | None = None) -> bool:
        """Drain, store and publish; False if that is still to be done.

        If the store is away the operation stays open, for the next query to try
        again; if it has been forgotten there, it is here as well. Another caller's
        attempt is left alone without `wait`, else waited for, if need be no longer
        than `within` seconds.
        """
        patience = within if wait and within is not None else -1
        if not live.store_lock.acquire(blocking=wait, timeout=patience):
            return False
        try:
            self._drain(live)
            sealed = live.seal()
            if sealed is None:
                return live.status.terminal
            record = self._store.finish(*sealed)
            if record is None:
                self._registry.forget(live)
                return False
            self._publish(live, record)
        except StoreUnavailableError as error:
            self._note(live, error)
            return False
        finally:
            live.store_lock.release()
        self._monitor.ended(record.operation.type, record.operation.status)
        _log_end(record.operation)
        return True

    def settle_or_save(self, live: LiveOperation) -> None:
        """Store what a read has brought; carry out an ending, also one not stored before.

        Listings are filtered by what is stored. What another process on this
        store runs, it stores itself.
        """
        if live.status.terminal:
            return
        if live.ending is not None:
            self.settle(live, wait=False)
        elif live.to_store(self._clock.monotonic, NEWS) and self._registry.keeps(live.record):
            self.save(live, wait=False)

    def save(self, live: LiveOperation, *, wait: bool = True) -> None:
        """Store a transition or news; if the store is away, readers are told.

        Without `wait`, another caller's attempt is left alone.
        """
        if not live.store_lock.acquire(blocking=wait):
            return
        try:
            self._save(live)
        except StoreUnavailableError as error:
            self._note(live, error)
        finally:
            live.store_lock.release()

    def save_strictly(self, live: LiveOperation) -> None:
        """Store what must be stored before anything else is done; or StoreUnavailableError."""
        with live.store_lock:
            self._save(live)

    def _save(self, live: LiveOperation) -> None:
        """Store the record as it is, under the store lock.

        If another process on the same store was first to end it, that stands; or to have it
        forgotten.
        """
        if live.status.terminal:
            return  # stored and published while we waited; it may have been deleted since
        record, metrics, first = live.unstored_part()
        kept = self._store.save(self._dated(live, record), metrics, first)
        if kept is None:
            self._registry.forget(live)
        elif kept.operation.status.terminal:
            self._publish(live, kept)
        else:
            live.note_stored(record.operation, first + len(metrics), self._clock.monotonic())

    def _publish(self, live: LiveOperation, record: OperationRecord) -> None:
        """Make a stored ending visible.

        From then on it is read from the store: one who sees it and deletes it
        must not find it here once more.
        """
        self._registry.drop(live.operation_id)
        live.publish(record)

    def _dated(self, live: LiveOperation, record: OperationRecord) -> OperationRecord:
        """Add when another process's state was so, for whoever takes it up later."""
        if live.observed_at == -inf or self._registry.owns(record):
            return record
        age = self._clock.monotonic() - live.observed_at
        return replace(record, known_time=self._clock.now() - timedelta(seconds=age))

    def _note(self, live: LiveOperation, error: StoreUnavailableError) -> None:
        """Let readers see that the store is away, and waiters look."""
        if live.note_not_stored(error, self._clock.monotonic()):
            logger.error("Operation %s could not be stored: %s", live.operation_id, error)
        live.wake_waiters()

    def _drain(self, live: LiveOperation) -> None:
        """Read all there is in a bridge.

        Its worker has stopped writing, or is told to; what it still writes after
        this is lost, for the ending is sealed then. Work elsewhere needs none:
        its end arrives only with its last metrics.
        """
        source = live.source
        if source is None or source.kind is not FreshnessSource.BRIDGE:
            return
        first_cursor = live.metrics_count
        try:
            while not live.sealed:
                sent_at = self._clock.monotonic()
                reading = source.read(live.metrics_count, PAGE, 0.0, FULL_TIMEOUT)
                if live.adopt(reading, sent_at) and not reading.has_more:
                    live.drained(sent_at)
                    log_refresh(live, source, first_cursor)
                    break
        except Exception:  # a bridge that cannot be read must not keep its operation open
            logger.exception("The bridge of operation %s could not be drained", live.operation_id)


def _log_end(operation: Operation) -> None:
    if operation.status is OperationStatus.COMPLETED:
        logger.info("Completed operation %s with results", operation.operation_id)
    elif operation.error is not None:
        logger.info(
            "Operation %s ended %s: %s: %s",
            operation.operation_id,
            operation.status.value,
            operation.error.reason,
            operation.error.message,
        )
