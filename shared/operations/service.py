"""The operations of this process: registry, lifecycle, and reads that are fresh enough.

State lives where it is produced. The service reads it when somebody asks and
what it knows is too old; nothing here polls, calls back or runs by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from shared.clock import Clock, SystemClock
from shared.operations import endings
from shared.operations.bridge import ProgressBridge
from shared.operations.end_wait import EndWait
from shared.operations.flights import FULL_TIMEOUT
from shared.operations.live import LiveOperation, LiveState
from shared.operations.model import (
    FreshnessSource,
    Operation,
    OperationRecord,
    OperationStatus,
    Owner,
    PackedResult,
)
from shared.operations.refresh import Refreshed, Refresher, late
from shared.operations.remote import RemoteOperationStub
from shared.operations.remote_source import RemoteSource, StartAgain
from shared.operations.settling import Settler
from shared.operations.source import BridgeSource, OperationSource
from shared.operations.starts import Launch, NewOperation, Starts
from shared.operations.store import ACTIVE, OperationFilter, OperationStore, SortKey
from shared.operations.sweep import refresh_all
from shared.operations.views import OperationView, view_of_live, view_of_record
from shared.operations.waiting import Waiter, WaitingRoom
from shared.rpc.errors import (
    CursorOutOfRangeError,
    HostUnreachableError,
    KtrdrError,
    OperationActiveError,
    OperationCancelledError,
    OperationNotFoundError,
    ProcessStoppingError,
    RequestIdReusedError,
    ResourceExhaustedError,
    StoreUnavailableError,
    UnavailableError,
)

logger = logging.getLogger("ktrdr.operations")


@dataclass(frozen=True, slots=True)
class OperationsLimits:
    """What bounds the service."""

    cache_ttl: float = 1.0
    """Seconds an answer may be old if the caller does not say."""
    refresh_waiters: int = 6
    """Callers that may wait for one remote target at once."""
    wait_slots: int = 16
    """Callers that may wait for the end of operations at once."""


@dataclass(frozen=True, slots=True)
class OperationsPage:
    """One page of a listing."""

    views: tuple[OperationView, ...]
    next_after: SortKey | None
    """Where the next page begins; None if this is the last."""
    total_count: int
    active_count: int
    unreachable: tuple[str, ...]


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
        clock: Clock | None = None,
    ) -> None:
        limits = limits or OperationsLimits()
        self._store = store
        self._owner = owner
        self._clock = clock or SystemClock()
        self._ttl = limits.cache_ttl
        self._refresher = Refresher(
            self._clock, ttl=limits.cache_ttl, max_waiters_per_target=limits.refresh_waiters
        )
        self._room = WaitingRoom(limits.wait_slots, self._clock)
        self._starts = Starts()
        self._settler = Settler(store, self._clock)
        # Guards _live and _stopping. Never held while a live operation's lock,
        # the store or a source is used.
        self._lock = threading.Lock()
        self._live: dict[str, LiveOperation] = {}
        self._stopping = False

    @property
    def owner(self) -> Owner:
        """This process, as owner of what it runs."""
        return self._owner

    def advertise(self, address: str) -> None:
        """Say where this process listens; records made from now on name it."""
        self._owner = replace(self._owner, address=address)

    # ---------------------------------------------------------------- starting

    def start_operation(
        self, new: NewOperation, launch: Launch, *, deadline: float = inf
    ) -> OperationView:
        """Create an operation and get its work going; the same request again finds it.

        Raises RequestIdReusedError for a different request under the same id,
        ResourceExhaustedError if nothing is free, ProcessStoppingError at the
        end, UnavailableError START_UNDER_WAY if another call is starting it and
        has not done so in time. Whatever else is raised, no operation is left
        behind.
        """
        timeout = deadline - self._clock.monotonic()
        self._starts.once(new, lambda: self._start(new, launch), timeout)
        return self.get_operation(new.operation_id, deadline=deadline)

    def _start(self, new: NewOperation, launch: Launch) -> None:
        kept = self._store.get(new.operation_id)
        if kept is not None:
            if kept.fingerprint != new.fingerprint:
                raise RequestIdReusedError(new.request_id, new.operation_id)
            return
        launch.reserve()
        try:
            self._create(new)
            launch.begin(new.operation_id)
        except BaseException:
            with self._lock:
                self._live.pop(new.operation_id, None)
            self._discard(new.operation_id)
            launch.release()
            raise

    def _discard(self, operation_id: str) -> None:
        """Forget a refused operation; why it was refused matters more than a store that is away."""
        try:
            self._store.discard(operation_id)
        except StoreUnavailableError as error:
            logger.error("Operation %s was refused but stays stored: %s", operation_id, error)  # noqa: TRY400  # the sentence says it

    def _create(self, new: NewOperation) -> None:
        now = self._clock.now()
        operation = Operation(
            operation_id=new.operation_id,
            type=new.type,
            status=OperationStatus.PENDING,
            create_time=now,
            update_time=now,
            metadata=dict(new.metadata),
        )
        record = OperationRecord(operation, self._owner, new.request_id, new.fingerprint)
        with self._lock:
            if self._stopping:
                raise ProcessStoppingError(
                    "This process is shutting down and starts no more work; try another or "
                    "the same once it is up again."
                )
            self._live[new.operation_id] = LiveOperation(record, self._clock.monotonic())
        self._store.create(record)

    def register_local_bridge(self, operation_id: str, bridge: ProgressBridge) -> None:
        """Say which bridge the operation's worker in this process writes to."""
        self._register(operation_id, BridgeSource(bridge))
        logger.info("Registered local bridge for operation %s", operation_id)

    def assign_owner(self, operation_id: str, owner: Owner, metadata: Mapping[str, str]) -> None:
        """Record who is to run an operation that is being started elsewhere, before it is told.

        `metadata` is added to the operation's. Raises StoreUnavailableError if
        that cannot be stored.
        """
        live = self._open(operation_id)
        live.assign(owner, metadata)
        self._settler.save_strictly(live)

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
        with self._lock:
            live = self._live.get(operation_id)
        if live is None or not live.begin(threading.current_thread(), self._clock.now()):
            return False
        self._settler.save(live)
        return True

    def complete_operation(self, operation_id: str, result: PackedResult) -> bool:
        """End with a result, also while CANCELLING; False if it has ended already."""
        return self._end(operation_id, endings.completed(result, self._clock.now()))

    def fail_operation(self, operation_id: str, error: BaseException) -> bool:
        """End because the work raised; False if it has ended already.

        CANCELLED if that was asked for, PROCESS_STOPPED if the process stops,
        else FAILED with the error's code, reason and message.
        """
        now = self._clock.now()
        if isinstance(error, OperationCancelledError):
            return self._end(operation_id, endings.stopped(now, process_stopping=self._stopping))
        if not isinstance(error, KtrdrError):
            logger.error("Operation %s raised", operation_id, exc_info=error)
        return self._end(operation_id, endings.failed(endings.error_of(error), now))

    def _end(self, operation_id: str, decision: endings.Decision) -> bool:
        with self._lock:
            live = self._live.get(operation_id)
        if live is None or not live.claim_ending(decision):
            return False
        return self._settle(live)

    def _settle(self, live: LiveOperation, *, wait: bool = True) -> bool:
        """Carry out the ending; False if it has to be tried again."""
        if not self._settler.settle(live, wait=wait):
            return False
        with self._lock:
            self._live.pop(live.operation_id, None)
        return True

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
        OperationNotFoundError; UnavailableError if a strict bound cannot be met.
        """
        with self._lock:
            live = self._live.get(operation_id)
        if live is None:
            return self._recorded(operation_id, metrics_cursor, metrics_limit)
        staleness = self._ttl if max_staleness is None else max_staleness
        for _ in range(2):
            refreshed = self._refresh(live, staleness, deadline)
            view, error = self._view(live, refreshed, staleness, metrics_cursor, metrics_limit)
            if error is refreshed.error or not refreshed.cached:
                break  # else it was young enough when it was chosen, and is not any more
        if max_staleness is not None:
            if error is not None:
                raise _strict(error)
            live.raise_if_unstored()
        return view

    def get_metrics(
        self, operation_id: str, cursor: int, limit: int, *, deadline: float = inf
    ) -> OperationView:
        """Return a snapshot and a page of its metrics.

        Raises CursorOutOfRangeError for a cursor past the end, once a read of
        the worker has confirmed it.
        """
        view = self.get_operation(
            operation_id, metrics_cursor=cursor, metrics_limit=limit, deadline=deadline
        )
        if cursor > view.operation.metrics_count and not view.operation.status.terminal:
            view = self.get_operation(
                operation_id,
                max_staleness=0.0,
                metrics_cursor=cursor,
                metrics_limit=limit,
                deadline=deadline,
            )
        if cursor > view.operation.metrics_count:
            raise CursorOutOfRangeError(cursor, view.operation.metrics_count)
        return view

    def list_operations(
        self, wanted: OperationFilter, after: SortKey | None, limit: int, *, deadline: float = inf
    ) -> OperationsPage:
        """Return a page of operations, newest first; only the page is refreshed.

        Rows that no longer match once refreshed are left out; counts are as
        recorded; targets that did not answer are named.
        """
        deadline = min(deadline, self._clock.monotonic() + 1.0)
        records = self._store.page(wanted, after, limit + 1)
        ids = [record.operation.operation_id for record in records[:limit]]
        with self._lock:
            lives = {id_: self._live[id_] for id_ in ids if id_ in self._live}
        targets = {id_: live.source.target for id_, live in lives.items() if live.source}
        results = refresh_all(self._refresher, list(lives.values()), self._ttl, deadline)
        refreshed = dict(zip(lives, results, strict=True))
        for live in lives.values():
            self._store_news(live)
        views = [self._row(id_, lives.get(id_), refreshed.get(id_)) for id_ in ids]
        last = records[limit - 1].operation if len(records) > limit else None
        return OperationsPage(
            views=tuple(
                view
                for view in views
                if view is not None and wanted.matches(view.operation.type, view.operation.status)
            ),
            next_after=None if last is None else (last.create_time, last.operation_id),
            total_count=self._store.count(wanted),
            active_count=self._store.count(ACTIVE),
            unreachable=_unreachable(targets, refreshed),
        )

    def _row(
        self, operation_id: str, live: LiveOperation | None, refreshed: Refreshed | None
    ) -> OperationView | None:
        """The row of a listing; None if it has gone or is not ours to read."""
        if live is not None and refreshed is not None:
            return self._view(live, refreshed, self._ttl, 0, 0)[0]
        kept = self._store.get(operation_id)
        return None if kept is None else self._terminal(kept, 0, 0)

    def _refresh(self, live: LiveOperation, staleness: float, deadline: float) -> Refreshed:
        refreshed = self._refresher.refresh(live, staleness, deadline)
        self._store_news(live)
        return refreshed

    def _store_news(self, live: LiveOperation) -> None:
        """Store a state that a read has brought; carry out an ending, also one not stored before.

        Listings are filtered by what is stored.
        """
        if live.status.terminal:
            return
        if live.ending is not None:
            self._settle(live, wait=False)
        elif live.moved_on:
            self._settler.save(live, wait=False)

    def _recorded(self, operation_id: str, cursor: int, limit: int) -> OperationView:
        record = self._store.get(operation_id)
        view = None if record is None else self._terminal(record, cursor, limit)
        if view is None:
            raise self._unknown(operation_id)
        return view

    def _unknown(self, operation_id: str) -> OperationNotFoundError:
        """The error that says who does not know the operation, for whoever stands in for it."""
        return OperationNotFoundError(
            operation_id, instance=self._owner.instance_id, incarnation=self._owner.incarnation
        )

    def _terminal(self, record: OperationRecord, cursor: int, limit: int) -> OperationView | None:
        """The view of a finished record; None if it is open and not ours to read."""
        if not record.operation.status.terminal:
            return None
        metrics = self._store.metrics(record.operation.operation_id, cursor, limit)
        return view_of_record(record.operation, metrics, self._owner.instance_id)

    def _view(
        self, live: LiveOperation, refreshed: Refreshed, staleness: float, cursor: int, limit: int
    ) -> tuple[OperationView, KtrdrError | None]:
        """What is known, and why it is older than it may be; None if it is not."""
        # The clock is read after the state: a read may land in between.
        state = live.state(cursor, limit)
        now = self._clock.monotonic()
        age = now - state.observed_at
        if _too_old(live, state, refreshed, staleness, age):
            refreshed = replace(refreshed, error=late(live, age, staleness))
        return view_of_live(state, refreshed, self._owner.instance_id, now), refreshed.error

    def _open(self, operation_id: str) -> LiveOperation:
        with self._lock:
            live = self._live.get(operation_id)
        if live is None:
            raise self._unknown(operation_id)
        return live

    # -------------------------------------------------------------- cancelling

    def cancel_operation(
        self, operation_id: str, reason: str = "", *, deadline: float = inf
    ) -> OperationView:
        """Ask an operation to stop; once asked or ended, nothing more happens.

        Raises OperationNotFoundError; UnavailableError, with nothing changed,
        if the owner of the work cannot be told.
        """
        # What is being started has no source to tell yet.
        timeout = min(FULL_TIMEOUT, deadline - self._clock.monotonic())
        if not self._starts.settled(operation_id, timeout):
            raise UnavailableError(
                f"Operation {operation_id} is still being started; cancel again."
            )
        with self._lock:
            live = self._live.get(operation_id)
        if live is not None and live.want_cancel(reason, self._clock.now()):
            self._cancel(live, reason, deadline)
        return self.get_operation(operation_id, deadline=deadline)

    def _cancel(self, live: LiveOperation, reason: str, deadline: float) -> None:
        source = live.source
        if source is not None:
            timeout = min(FULL_TIMEOUT, deadline - self._clock.monotonic())
            try:
                self._tell(source, reason, max(0.0, timeout))
            except KtrdrError:
                live.unwant_cancel()
                raise
        here = source is None or source.kind is FreshnessSource.BRIDGE
        if not here:
            self._refresh(live, 0.0, deadline)  # a queued one has ended at once
        if here and live.claim_ending(
            endings.stopped(self._clock.now(), process_stopping=False),
            only_from=OperationStatus.PENDING,  # no worker is at it yet
        ):
            self._settle(live)
        elif live.mark_cancelling(self._clock.now()):
            self._settler.save(live)

    def _tell(self, source: OperationSource, reason: str, timeout: float) -> None:
        """Tell the worker to stop; only so many callers wait for one target that is slow."""
        if source.target is None:
            source.cancel(reason, timeout)
            return
        with self._refresher.outages.waiting_for(source.target, to_cancel=True):
            source.cancel(reason, timeout)

    # ---------------------------------------------------------------- deleting

    def delete_operation(self, operation_id: str) -> None:
        """Forget a finished operation; what its work has made stays.

        Raises OperationNotFoundError; OperationActiveError if it has not ended.
        """
        with self._lock:
            live = self._live.get(operation_id)
        if live is None:
            kept = self._store.get(operation_id)
            if kept is None:
                raise self._unknown(operation_id)
            if kept.operation.status.terminal:
                self._store.delete(operation_id)
                return
        raise OperationActiveError(operation_id)

    # ----------------------------------------------------------------- waiting

    def wait_operation(
        self, operation_id: str, timeout: float, waiter: Waiter, *, deadline: float = inf
    ) -> tuple[OperationView, float | None]:
        """Return the latest state when it is terminal or the time is up.

        The second value is set if the call returned early for want of a slot:
        the seconds after which to come back.
        """
        until = min(self._clock.monotonic() + timeout, deadline)
        # A start that is refused ends no operation, so nothing would wake us.
        self._starts.settled(operation_id, min(FULL_TIMEOUT, until - self._clock.monotonic()))
        view = self.get_operation(operation_id, deadline=deadline)
        with self._lock:
            live = self._live.get(operation_id)
        if live is None or view.operation.status.terminal:
            return self.get_operation(operation_id, deadline=deadline), None
        retry_after = self._room.enter()
        if retry_after is not None:
            return view, retry_after
        try:
            served = EndWait(
                live,
                waiter,
                until,
                self._clock,
                refresh=lambda live: self._refresh(live, 0.0, deadline),
                stopping=lambda: self._stopping,
            ).run()
        finally:
            self._room.leave()
        view = self.get_operation(operation_id, deadline=deadline)
        done = served or view.operation.status.terminal
        return view, None if done else self._room.return_after()

    # ---------------------------------------------------------------- stopping

    def refuse_starts(self) -> bool:
        """Begin to stop: start nothing more and send every waiter home with what is known.

        True if work of this process is still open, so that somebody may watch it.
        """
        with self._lock:
            self._stopping = True
            lives = list(self._live.values())
        for live in lives:
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
            self._settle(live)  # also what had ended and could not be stored

    def _local(self) -> Sequence[tuple[LiveOperation, OperationSource]]:
        """What runs in this process, with its source, which goes when it ends."""
        with self._lock:
            sources = [(live, live.source) for live in self._live.values()]
        return [
            (live, source)
            for live, source in sources
            if source is not None and source.kind is FreshnessSource.BRIDGE
        ]


def _unreachable(
    targets: Mapping[str, str | None], refreshed: Mapping[str, Refreshed]
) -> tuple[str, ...]:
    """The targets that did not answer, each once, in the order of the listing."""
    named = {
        targets.get(id_): None
        for id_, result in refreshed.items()
        if isinstance(result.error, HostUnreachableError)
    }
    return tuple(target for target in named if target is not None)


def _too_old(
    live: LiveOperation, state: LiveState, refreshed: Refreshed, staleness: float, age: float
) -> bool:
    """Whether a state that was young enough when it was chosen was not when it was copied."""
    if live.sealed or refreshed.error is not None or not 0 < staleness < age:
        return False
    if state.source is FreshnessSource.BRIDGE:
        return refreshed.cached  # one that was read just now is as young as can be had
    return state.source is FreshnessSource.REMOTE


def _strict(error: KtrdrError) -> KtrdrError:
    """What a caller with a strict bound gets: UNAVAILABLE, whatever kept us from reading."""
    if isinstance(error, UnavailableError):
        return error
    retry_after = error.retry_after if isinstance(error, ResourceExhaustedError) else 1.0
    return HostUnreachableError(
        error.message, retry_after=retry_after, reason=error.reason, metadata=error.metadata
    )
