"""Settling: how an ending that has been decided becomes the record.

Drain, store, publish, in this order: nothing terminal is ever seen before its
last metrics, nor before it is stored.
"""

from __future__ import annotations

import logging

from shared.clock import Clock
from shared.operations.flights import FULL_TIMEOUT, PAGE, log_refresh
from shared.operations.live import LiveOperation
from shared.operations.model import FreshnessSource, Operation, OperationError, OperationStatus
from shared.operations.store import OperationStore
from shared.rpc.errors import StoreUnavailableError

logger = logging.getLogger("ktrdr.operations")


class Settler:
    """Brings live operations to the store; a store that is away stops no work."""

    def __init__(self, store: OperationStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def settle(self, live: LiveOperation, *, wait: bool) -> bool:
        """Drain, store and publish; False if that is still to be done.

        If the store is away the operation stays open, for the next query to try
        again. Without `wait`, another caller's attempt is left alone.
        """
        if not live.store_lock.acquire(blocking=wait):
            return False
        try:
            self._drain(live)
            sealed = live.seal()
            if sealed is None:
                return live.status.terminal
            record = self._store.finish(*sealed)
            live.publish(record)
        except StoreUnavailableError as error:
            _note(live, error)
            return False
        finally:
            live.store_lock.release()
        _log_end(record.operation)
        return True

    def save(self, live: LiveOperation, *, wait: bool = True) -> None:
        """Store a transition; if the store is away, readers are told.

        Without `wait`, another caller's attempt is left alone.
        """
        if not live.store_lock.acquire(blocking=wait):
            return
        try:
            self._save(live)
        except StoreUnavailableError as error:
            _note(live, error)
        finally:
            live.store_lock.release()

    def save_strictly(self, live: LiveOperation) -> None:
        """Store what must be stored before anything else is done; or StoreUnavailableError."""
        with live.store_lock:
            self._save(live)

    def _save(self, live: LiveOperation) -> None:
        """Store the record as it is, under the store lock."""
        record = live.record
        self._store.save(record)
        with live.lock:
            live.store_error = None
            live.stored_status = record.operation.status

    def _drain(self, live: LiveOperation) -> None:
        """Read a bridge to its end; its worker has stopped writing.

        Work elsewhere needs none: its end arrives only with its last metrics.
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


def _note(live: LiveOperation, error: StoreUnavailableError) -> None:
    """Let readers see that the store is away, and waiters look."""
    with live.lock:
        live.store_error = OperationError.of(error)
    live.wake_waiters()
    logger.error("Operation %s could not be stored: %s", live.operation_id, error)


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
