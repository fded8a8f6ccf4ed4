"""The open operations of this process in memory: what it runs, and what it stands in for.

What another process owns is taken up from the store when somebody asks for it.
So a restart needs no list of what there was, and two processes on one store
stand in for the same work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from math import inf

from shared.clock import Clock
from shared.operations.endings import NEVER_STARTED, OPERATION_LOST
from shared.operations.live import LiveOperation
from shared.operations.model import (
    Metric,
    Operation,
    OperationError,
    OperationRecord,
    OperationStatus,
    Owner,
)
from shared.operations.remote import RemoteOperationStub
from shared.operations.remote_source import RemoteSource
from shared.operations.store import OperationStore
from shared.rpc.errors import (
    FailedPreconditionError,
    ProcessStoppingError,
    StoreUnavailableError,
)

logger = logging.getLogger("ktrdr.operations")

StubOf = Callable[[str], RemoteOperationStub]
"""Gives the stub of the process at an address."""


def no_stub(address: str) -> RemoteOperationStub:
    """Lead nowhere: for a process whose records name no other."""
    raise FailedPreconditionError(
        f"This process has no way to {address}, which owns an operation in its store.",
        reason="NO_WAY_TO_OWNER",
    )


HOST_OPERATION_ID = "host_operation_id"
"""The fact that names the host's operation which one of ours stands for."""
_RECONSIDER = 1.0
"""Seconds between two looks at what the store has of an operation that cannot be read."""
_TELLING = 20.0
"""Seconds that a process which has recorded the owner may take to tell it, at most."""
_PAGE = 10_000
"""Metrics taken up at once."""


class Registry:
    """Open operations by id; safe to use from several threads."""

    def __init__(self, store: OperationStore, me: Owner, stub_of: StubOf, clock: Clock) -> None:
        """`me` says which records are this process's own."""
        self._store = store
        self._me = me
        self._stub_of = stub_of
        self._clock = clock
        # Guards the two fields below. Never held while a live operation's lock,
        # the store or a source is used.
        self._lock = threading.Lock()
        self._live: dict[str, LiveOperation] = {}
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether the process is about to end."""
        return self._stopping

    def get(self, operation_id: str) -> LiveOperation | None:
        """Return an operation that is in memory, or None."""
        return self._live.get(operation_id)  # one look, which needs no lock

    def all(self) -> list[LiveOperation]:
        """Return all that are in memory."""
        with self._lock:
            return list(self._live.values())

    def add(self, live: LiveOperation) -> None:
        """Take in a new operation; raises ProcessStoppingError if the process is about to end."""
        with self._lock:
            if self._stopping:
                raise ProcessStoppingError(
                    "This process is shutting down and starts no more work; try another or "
                    "the same once it is up again."
                )
            self._live[live.operation_id] = live

    def drop(self, operation_id: str) -> None:
        """Let an operation go: it has ended, or was refused before it began."""
        with self._lock:
            self._live.pop(operation_id, None)

    def forget(self, live: LiveOperation) -> None:
        """Let go of an operation that the store has forgotten, not of another that has its id."""
        with self._lock:
            if self._live.get(live.operation_id) is live:
                del self._live[live.operation_id]
        live.forget()

    def refuse_new(self) -> list[LiveOperation]:
        """Take in no new operation any more; return those there are."""
        with self._lock:
            self._stopping = True
            return list(self._live.values())

    # ------------------------------------------------------------ from the store

    def find(self, operation_id: str) -> LiveOperation | OperationRecord | None:
        """Return the open operation, or the record of one that has ended, or None.

        Raises StoreUnavailableError if it is not in memory and the store is away.
        """
        live = self._live.get(operation_id)
        if live is not None:
            return live
        record = self._store.get(operation_id)
        return None if record is None else self.take_up(record)

    def take_up(self, record: OperationRecord) -> LiveOperation | OperationRecord | None:
        """Return the open operation behind a record, taken up if need be; the record if it ended.

        None if there is no operation behind it.
        """
        if record.operation.status.terminal:
            return record
        live = self.get(record.operation.operation_id)
        if live is not None:
            return live
        if self.owns(record):
            return self._leftover(record)
        taken = self._stand_in(record)
        with self._lock:
            live = self._live.setdefault(taken.operation_id, taken)
        return self._if_still_open(taken) if live is taken else live

    def _if_still_open(self, taken: LiveOperation) -> LiveOperation | OperationRecord | None:
        """What was just taken up, unless it had ended before that, unseen by whoever read it.

        Whoever has got hold of it meanwhile finds that out likewise.
        """
        again = self._store.get(taken.operation_id)
        ended = again is None or again.operation.status.terminal
        if again is not None and not ended and not _is_another(again, taken.record):
            address = taken.record.owner.address
            logger.info("Took up operation %s, which is at %s", taken.operation_id, address)
            return taken
        self.forget(taken)
        return None if again is None else self.take_up(again)

    def reconsider(self, live: LiveOperation) -> LiveOperation | OperationRecord | None:
        """What the store makes of an operation whose owner could not be asked.

        Another process on the same store may know how it ended, or that it is
        elsewhere. None if it has been forgotten. Looks at most once a second.
        """
        now = self._clock.monotonic()
        if self.owns(live.record) or now - live.reconsidered_at < _RECONSIDER:
            return live
        live.reconsidered_at = now
        try:
            record = self._store.get(live.operation_id)
        except StoreUnavailableError:
            return live
        if record is None or _is_another(record, live.record):
            self.forget(live)
            return None
        if record.operation.status.terminal:
            return record if self._show_end(live, record) else live
        if record.owner != live.record.owner or _told_anew(live.record, record):
            live.follow(record, self._source_of(record))
        return live

    def _show_end(self, live: LiveOperation, record: OperationRecord) -> bool:
        """Make an end visible that another process has stored; False if not just now.

        Who sees it may delete it, and whoever is about to store what he read
        before would bring it back; he finds the end himself.
        """
        if not live.store_lock.acquire(blocking=False):
            return False
        try:
            self.drop(live.operation_id)
            live.publish(record)
        finally:
            live.store_lock.release()
        return True

    def owns(self, record: OperationRecord) -> bool:
        """Whether the work is this process's own."""
        return record.owner.instance_id == self._me.instance_id

    def keeps(self, record: OperationRecord) -> bool:
        """Whether it is for this process to store what it learns of the work."""
        return self.owns(record) or stands_for_host(record)

    def _source_of(self, record: OperationRecord) -> RemoteSource:
        """The way to the owner of an operation that is another process's."""
        operation = record.operation
        return RemoteSource(
            self._stub_of(record.owner.address),
            operation.metadata.get(HOST_OPERATION_ID, operation.operation_id),
            record.owner,
            self._clock,
            None,
            if_unknown=_if_unknown(record),
            told_until=self._told_until(record),
        )

    def _told_until(self, record: OperationRecord) -> float:
        """Until when another process on this store may still be telling a host to start it.

        What an earlier life of this one has not told it never will.
        """
        tellers = {"", self._me.instance_id, record.owner.instance_id}
        if record.told_by in tellers or _heard_of(record):
            return -inf
        age = (self._clock.now() - record.operation.update_time).total_seconds()
        return self._clock.monotonic() + _TELLING - max(0.0, age)

    def _stand_in(self, record: OperationRecord) -> LiveOperation:
        known = record.known_time or record.operation.update_time
        age = max(0.0, (self._clock.now() - known).total_seconds())
        metrics = self._kept_metrics(record.operation)
        live = LiveOperation(record, self._clock.monotonic() - age, metrics)
        live.source = self._source_of(record)
        return live

    def _kept_metrics(self, operation: Operation) -> list[Metric]:
        """The metrics that go with a record; others may have been kept since it was read."""
        kept: list[Metric] = []
        while (left := operation.metrics_count - len(kept)) > 0:
            page = self._store.metrics(operation.operation_id, len(kept), min(left, _PAGE))
            kept.extend(page)
            if not page:
                break
        return kept

    def _leftover(self, record: OperationRecord) -> LiveOperation | OperationRecord | None:
        """What an open record of ours means that is not in memory.

        It has ended between two looks; or its start was refused, and the store
        was away when it was to be forgotten.
        """
        operation_id = record.operation.operation_id
        again = self._store.get(operation_id)
        if again is None or again.operation.status.terminal:
            return again
        live = self.get(operation_id)
        if live is None:
            self._store.discard(record)
        return live


def _is_another(record: OperationRecord, known: OperationRecord) -> bool:
    """Whether it is of another operation: the known one was forgotten, and its id used anew."""
    return record.operation.create_time != known.operation.create_time


def stands_for_host(record: OperationRecord) -> bool:
    """Whether the work is a host's that was told by a process on this store."""
    return HOST_OPERATION_ID in record.operation.metadata


def _if_unknown(record: OperationRecord) -> OperationError | None:
    """What it means if the owner, in the life that was recorded, does not know an operation.

    Another process on this very store has its records here: what it does not
    know, the store knows, or has been told to forget.
    """
    if not stands_for_host(record):
        return None
    return OPERATION_LOST if _heard_of(record) else NEVER_STARTED


def _heard_of(record: OperationRecord) -> bool:
    """Whether the owner has answered since it was recorded."""
    started = record.operation.status is not OperationStatus.PENDING
    return started or record.known_time is not None


def _told_anew(known: OperationRecord, record: OperationRecord) -> bool:
    """Whether the owner was to be told once more since it was `known`."""
    return not _heard_of(record) and record.operation.update_time > known.operation.update_time
