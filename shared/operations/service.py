"""The operations of this process: how they start, are read, cancelled, awaited and end.

State lives where it is produced. The service reads it when somebody asks and
what it knows is too old; nothing here polls, calls back or runs by itself.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import inf

from shared.clock import Clock, SystemClock
from shared.operations import endings
from shared.operations.bridge import ProgressBridge
from shared.operations.cancelling import Cancelling
from shared.operations.live import LiveOperation
from shared.operations.model import (
    FreshnessSource,
    Operation,
    OperationRecord,
    OperationStatus,
    OperationType,
    Owner,
    PackedResult,
)
from shared.operations.monitor import UNMONITORED, OperationsMonitor
from shared.operations.reader import OperationsPage, Reader
from shared.operations.recovery import end_orphans
from shared.operations.refresh import Refresher
from shared.operations.registry import Registry, StubOf, no_stub
from shared.operations.remote import RemoteOperationStub
from shared.operations.remote_source import RemoteSource, StartAgain
from shared.operations.settling import Settler
from shared.operations.source import BridgeSource, OperationSource
from shared.operations.starts import Launch, NewOperation, Starts
from shared.operations.store import OperationFilter, OperationStore, SortKey
from shared.operations.views import OperationView
from shared.operations.waiting import Waiter, WaitingRoom
from shared.operations.waits import Waits
from shared.rpc.errors import (
    KtrdrError,
    OperationActiveError,
    OperationCancelledError,
    RequestIdReusedError,
    StoreUnavailableError,
)

logger = logging.getLogger("ktrdr.operations")

_PRUNED_AT_ONCE = 100
"""Operations beyond the retention that one start forgets at most, so that it stays quick."""


@dataclass(frozen=True, slots=True)
class OperationsLimits:
    """What bounds the service."""

    cache_ttl: float = 1.0
    """Seconds an answer may be old if the caller does not say."""
    refresh_waiters: int = 6
    """Callers that may wait for one remote target at once."""
    wait_slots: int = 16
    """Callers that may wait for the end of operations at once."""
    keep_finished: int = 10_000
    """Finished operations that are kept."""
    keep_finished_days: float = 90.0
    """Days that finished operations are kept."""


class OperationsService:
    """Every operation this process runs or stands in for.

    Thread-safe. Deadlines are instants of the monotonic clock, `inf` for none.
    """

    def __init__(
        self,
        store: OperationStore,
        owner: Owner,
        *,
        limits: OperationsLimits | None = None,
        stub_of: StubOf | None = None,
        clock: Clock | None = None,
        monitor: OperationsMonitor = UNMONITORED,
    ) -> None:
        """`stub_of` leads to the owners of recorded operations that are other processes'.

        Without it there must be none: a store of one's own, and no hosts.
        """
        self._limits = limits or OperationsLimits()
        self._store = store
        self._owner = owner
        self._clock = clock or SystemClock()
        self.monitor = monitor
        self._refresher = Refresher(
            self._clock,
            ttl=self._limits.cache_ttl,
            max_waiters_per_target=self._limits.refresh_waiters,
            monitor=monitor,
        )
        self._room = WaitingRoom(self._limits.wait_slots, self._clock)
        self._starts = Starts()
        self._registry = Registry(store, owner, stub_of or no_stub, self._clock)
        self._settler = Settler(store, self._registry, self._clock, monitor)
        self._reader = Reader(
            store, self._registry, self._settler, self._refresher, owner, self._limits.cache_ttl
        )
        self._waits = Waits(self._room, self._registry, self._reader, self._starts, self._clock)
        self._cancelling = Cancelling(
            self._starts,
            self._registry,
            self._reader,
            self._settler,
            self._refresher.outages,
            self._clock,
        )

    @property
    def owner(self) -> Owner:
        """This process, as owner of what it runs."""
        return self._owner

    def advertise(self, address: str) -> None:
        """Say where others reach this process; records made from now on name it."""
        self._owner = replace(self._owner, address=address)

    def recover(self) -> None:
        """End what this process ran before it was restarted; raises StoreUnavailableError.

        To be called once, before anybody asks.
        """
        end_orphans(self._store, self._owner, self._clock.now())

    # ---------------------------------------------------------------- starting

    def start_operation(
        self, new: NewOperation, launch: Launch, *, deadline: float = inf
    ) -> OperationView:
        """Create an operation and get its work going; the same request again finds it.

        Raises RequestIdReusedError for a different request under the same id,
        ResourceExhaustedError if nothing is free, ProcessStoppingError at the
        end, UnavailableError START_UNDER_WAY if another call is starting it and
        has not done so in time, StoreUnavailableError, and whatever the launch
        raises. One that was refused leaves no operation behind; if the store is
        away just then, its record stays until somebody comes across it.
        """
        timeout = deadline - self._clock.monotonic()
        self._starts.once(new, lambda: self._start(new, launch), timeout)
        return self.get_operation(new.operation_id, deadline=deadline)

    def _start(self, new: NewOperation, launch: Launch) -> None:
        if _is_there(self._store.get(new.operation_id), new):
            return
        record = self._new_record(new, self._owner.instance_id if launch.elsewhere else "")
        launch.reserve()
        try:
            kept = self._create(record)
            if kept is None:
                launch.begin(new.operation_id)
                return
        except BaseException:  # whatever it is, what was begun is undone
            self._discard(record)  # while it is here, nobody takes it up from its record
            self._registry.drop(new.operation_id)
            launch.release()
            raise
        # Another process on the same store was a moment faster.
        self._registry.drop(new.operation_id)
        launch.release()
        _is_there(kept, new)

    def _discard(self, record: OperationRecord) -> None:
        """Forget a refused operation; why it was refused matters more than a store that is away."""
        try:
            self._store.discard(record)
        except StoreUnavailableError as error:
            operation_id = record.operation.operation_id
            logger.error("Operation %s was refused but stays stored: %s", operation_id, error)  # noqa: TRY400  # the sentence says it

    def _new_record(self, new: NewOperation, told_by: str) -> OperationRecord:
        now = self._clock.now()
        operation = Operation(
            operation_id=new.operation_id,
            type=new.type,
            status=OperationStatus.PENDING,
            create_time=now,
            update_time=now,
            metadata=dict(new.metadata),
        )
        return OperationRecord(
            operation,
            self._owner,
            new.request_id,
            new.fingerprint,
            starter=new.starter,
            told_by=told_by,
        )

    def _create(self, record: OperationRecord) -> OperationRecord | None:
        """Keep a new operation; return the record of another that has its id, or None."""
        self._registry.add(LiveOperation(record, self._clock.monotonic()))
        kept = self._store.create(record)
        if kept != record:
            return kept
        self.monitor.created(record.operation.type)
        self._prune()
        return None

    def _prune(self) -> None:
        """Forget some of what is beyond the retention; no start fails for it."""
        before = self._clock.now() - timedelta(days=self._limits.keep_finished_days)
        try:
            pruned = self._store.prune(self._limits.keep_finished, before, _PRUNED_AT_ONCE)
        except StoreUnavailableError as error:
            logger.warning("Finished operations could not be pruned: %s", error)
        else:
            if pruned:
                logger.info("Pruned %d finished operations", len(pruned))

    def register_local_bridge(self, operation_id: str, bridge: ProgressBridge) -> None:
        """Say which bridge the operation's worker in this process writes to.

        Raises OperationNotFoundError if it is not open here.
        """
        self._register(operation_id, BridgeSource(bridge))
        logger.info("Registered local bridge for operation %s", operation_id)

    def assign_owner(self, operation_id: str, owner: Owner, metadata: Mapping[str, str]) -> None:
        """Record who is to run an operation that is being started elsewhere, before it is told.

        `metadata` is added to the operation's. Each time the owner is told anew, this is
        recorded anew: whoever else asks the owner then knows that it may not have heard.
        Raises OperationNotFoundError if it is not open here, also if another process on
        the same store has ended or deleted it; StoreUnavailableError if that cannot be stored.
        """
        live = self._open(operation_id)
        live.assign(owner, metadata, self._owner.instance_id, self._clock.now())
        self._settler.save_strictly(live)
        self._open(operation_id)

    def register_remote_stub(
        self,
        operation_id: str,
        stub: RemoteOperationStub,
        host_operation_id: str,
        *,
        start_again: StartAgain | None = None,
    ) -> None:
        """Say which operation, at its owner behind `stub`, this one stands for.

        `start_again` is given if nobody knows whether the owner has been told:
        it repeats the start, which is idempotent, when the operation is read.
        Raises OperationNotFoundError if it is not open here.
        """
        owner = self._open(operation_id).record.owner
        source = RemoteSource(stub, host_operation_id, owner, self._clock, start_again)
        self._register(operation_id, source)
        logger.info(
            "Registered remote stub for operation %s → host %s", operation_id, host_operation_id
        )

    def _register(self, operation_id: str, source: OperationSource) -> None:
        live = self._open(operation_id)
        with live.lock:
            live.source = source

    def _open(self, operation_id: str) -> LiveOperation:
        live = self._registry.get(operation_id)
        if live is None:
            raise self._reader.unknown(operation_id)
        return live

    # --------------------------------------------------------------- lifecycle

    def run_operation(self, operation_id: str, work: Callable[[], PackedResult]) -> None:
        """Do the work on this thread and record how it ended.

        Does nothing if the operation was cancelled before its turn.
        """
        if not self.begin_operation(operation_id):
            return
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # whatever work raises ends its operation
            self.fail_operation(operation_id, error)
        else:
            self.complete_operation(operation_id, result)

    def begin_operation(self, operation_id: str) -> bool:
        """PENDING → RUNNING on the calling thread; False if it has been ended."""
        live = self._registry.get(operation_id)
        if live is None or not live.begin(threading.current_thread(), self._clock.now()):
            return False
        self._settler.save(live)
        return True

    def complete_operation(self, operation_id: str, result: PackedResult) -> bool:
        """End with a result, also while CANCELLING; True once that is stored and visible.

        False if it had ended already or is unknown; also if the ending could not
        be stored yet, which whoever asks next tries again.
        """
        return self._end(operation_id, endings.completed(result, self._clock.now()))

    def fail_operation(self, operation_id: str, error: BaseException) -> bool:
        """End because the work raised; True and False as for complete_operation.

        CANCELLED if that was asked for, PROCESS_STOPPED if the process stops,
        else FAILED with the error's code, reason and message.
        """
        now = self._clock.now()
        if isinstance(error, OperationCancelledError):
            return self._end(
                operation_id, endings.stopped(now, process_stopping=self._registry.stopping)
            )
        if not isinstance(error, KtrdrError):
            logger.error("Operation %s raised", operation_id, exc_info=error)
        return self._end(operation_id, endings.failed(endings.error_of(error), now))

    def _end(self, operation_id: str, decision: endings.Decision) -> bool:
        live = self._registry.get(operation_id)
        if live is None or not live.claim_ending(decision):
            return False
        return self._settler.settle(live, wait=True)

    # ----------------------------------------------------------------- reading

    def get_operation(
        self,
        operation_id: str,
        *,
        max_staleness: float | None = None,
        metrics_cursor: int = 0,
        metrics_limit: int = 0,
        deadline: float = inf,
    ) -> OperationView:
        """Return a snapshot and at most `metrics_limit` metrics from the cursor on.

        `max_staleness` in seconds is strict, 0 reads now; None accepts the TTL
        and, if that cannot be had, whatever is known. Raises
        OperationNotFoundError; UnavailableError if a strict bound cannot be met,
        or if the store is away and the operation not in memory.
        """
        return self._reader.get_operation(
            operation_id,
            max_staleness=max_staleness,
            metrics_cursor=metrics_cursor,
            metrics_limit=metrics_limit,
            deadline=deadline,
        )

    def get_at_once(
        self,
        operation_id: str,
        *,
        max_staleness: float | None = None,
        metrics_cursor: int = 0,
        metrics_limit: int = 0,
    ) -> OperationView | None:
        """As get_operation if that takes microseconds, else None.

        None whenever something has to be waited for: an owner elsewhere, another
        caller, the store; also if there are many new metrics. Raises what a bridge raises.
        """
        return self._reader.get_at_once(
            operation_id,
            max_staleness=max_staleness,
            metrics_cursor=metrics_cursor,
            metrics_limit=metrics_limit,
        )

    def get_metrics(
        self, operation_id: str, cursor: int, limit: int, *, deadline: float = inf
    ) -> OperationView:
        """Return a snapshot and a page of its metrics.

        Raises OperationNotFoundError; CursorOutOfRangeError for a cursor past the
        end, once a read of the worker has confirmed it; UnavailableError if it
        cannot, or if the store is away and the operation not in memory.
        """
        return self._reader.get_metrics(operation_id, cursor, limit, deadline=deadline)

    def list_operations(
        self, wanted: OperationFilter, after: SortKey | None, limit: int, *, deadline: float = inf
    ) -> OperationsPage:
        """Return a page of operations, newest first; only the page is refreshed.

        Rows that no longer match once refreshed are left out; counts are as
        recorded; targets that did not answer are named. Raises
        StoreUnavailableError.
        """
        return self._reader.list_operations(wanted, after, limit, deadline=deadline)

    def note_told(self, operation_id: str, told: Collection[str]) -> None:
        """Note that these instances know how an operation ended, if the store takes it.

        Until the one that started it does, its record is not pruned by count. So
        what could not be noted is only kept longer, and noted when it is told
        again. Raises nothing.
        """
        if not told:
            return
        try:
            record = self._store.get(operation_id)
            if record is not None and not record.outcome_read and record.starter in told:
                self._store.mark_read(operation_id)
        except StoreUnavailableError as error:
            logger.warning("Who knows how operation %s ended is not noted: %s", operation_id, error)

    def open_operations(self) -> Counter[tuple[OperationType, OperationStatus]]:
        """Count the open operations in memory by type and state."""
        operations = [live.record.operation for live in self._registry.all()]
        return Counter((operation.type, operation.status) for operation in operations)

    def unreachable(self) -> Collection[str]:
        """The other processes that did not answer when last asked."""
        return self._refresher.outages.unreachable()

    # -------------------------------------------------------------- cancelling

    def cancel_operation(
        self, operation_id: str, reason: str = "", *, give_up: bool = False, deadline: float = inf
    ) -> OperationView:
        """Ask an operation to stop; once its owner was told, or it ended, nothing more happens.

        With `give_up` an owner that does not answer is asked no more: the operation
        ends here, FAILED with reason OWNER_GIVEN_UP.

        Raises OperationNotFoundError; UnavailableError, with nothing changed,
        if the owner of the work cannot be told.
        """
        self._cancelling.cancel(operation_id, reason, deadline, give_up=give_up)
        return self.get_operation(operation_id, deadline=deadline)

    # ---------------------------------------------------------------- deleting

    def delete_operation(self, operation_id: str, *, deadline: float = inf) -> None:
        """Forget a finished operation; what its work has made stays.

        Raises OperationNotFoundError; OperationActiveError if it has not ended,
        UnavailableError if that cannot be found out now.
        """
        view = self.get_operation(operation_id, max_staleness=0.0, deadline=deadline)
        if not view.operation.status.terminal:
            raise OperationActiveError(operation_id)
        self._store.delete(operation_id)

    # ----------------------------------------------------------------- waiting

    def wait_operation(
        self, operation_id: str, timeout: float, waiter: Waiter, *, deadline: float = inf
    ) -> tuple[OperationView, float | None]:
        """Return the latest state when it is terminal or the time is up.

        The second value is set if the call returned early for want of a slot:
        the seconds after which to come back. Raises OperationNotFoundError;
        StoreUnavailableError if the store is away and the operation not in memory.
        """
        return self._waits.wait(operation_id, timeout, waiter, deadline=deadline)

    def wait_in_place(
        self, operation_id: str, timeout: float, waiter: Waiter, *, deadline: float = inf
    ) -> OperationView:
        """As wait_operation, for callers that an answer cannot tell when to come back.

        Raises what that raises; WaitLimitError for one that gets no slot, and
        ProcessStoppingError for one that comes when the process stops. One whose wait has to be
        given up keeps its slot until it may come back.
        """
        return self._waits.wait_in_place(operation_id, timeout, waiter, deadline=deadline)

    # ---------------------------------------------------------------- stopping

    def refuse_starts(self) -> bool:
        """Begin to stop: start nothing more and send every waiter home with what is known.

        True if work of this process is still open, so that somebody may watch it.
        """
        for live in self._registry.refuse_new():
            live.wake_waiters()
        return bool(self._local())

    def interrupt_work(self) -> None:
        """Tell every worker of this process to stop; their operations end PROCESS_STOPPED."""
        for _, source in self._local():
            source.cancel("The process is stopping.", 0.0)

    def end_unfinished(self) -> None:
        """Record every operation of this process that is still open as PROCESS_STOPPED."""
        decision = endings.stopped(self._clock.now(), process_stopping=True)
        for live, _ in self._local():
            live.claim_ending(decision)
            self._settler.settle(live, wait=True)  # also what had ended and could not be stored

    def _local(self) -> Sequence[tuple[LiveOperation, OperationSource]]:
        """What runs in this process, with its source, which goes when it ends."""
        sources = [(live, live.source) for live in self._registry.all()]
        return [
            (live, source)
            for live, source in sources
            if source is not None and source.kind is FreshnessSource.BRIDGE
        ]


def _is_there(kept: OperationRecord | None, new: NewOperation) -> bool:
    """Whether the operation exists; RequestIdReusedError if it is of a different request."""
    if kept is not None and kept.fingerprint != new.fingerprint:
        raise RequestIdReusedError(new.request_id, new.operation_id)
    return kept is not None
