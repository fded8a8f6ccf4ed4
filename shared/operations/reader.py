"""Reads that are fresh enough: an operation, its metrics, a page of operations.

An open operation is refreshed if what is known is too old; one that has ended
is read from the store.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from shared.clock import Clock
from shared.operations.live import LiveOperation
from shared.operations.live_state import LiveState
from shared.operations.model import FreshnessSource, OperationRecord, Owner
from shared.operations.refresh import Refreshed, Refresher, late
from shared.operations.registry import Registry
from shared.operations.settling import NEWS, Settler
from shared.operations.store import ACTIVE, OperationFilter, OperationStore, SortKey
from shared.operations.sweep import refresh_all
from shared.operations.views import OperationView, view_of_live, view_of_record
from shared.rpc.errors import (
    CursorOutOfRangeError,
    HostUnreachableError,
    KtrdrError,
    OperationNotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)

logger = logging.getLogger("ktrdr.operations")

SLOW = 0.1
"""Seconds above which a query is logged."""
_FEW = 100
"""Metrics that are turned into messages in less time than it takes to wake a thread."""
_STORING = 1.0
"""Seconds that a strict read waits for the end of an operation to be stored."""


@dataclass(frozen=True, slots=True)
class OperationsPage:
    """One page of a listing."""

    views: tuple[OperationView, ...]
    next_after: SortKey | None
    """Where the next page begins; None if this is the last."""
    total_count: int
    active_count: int
    unreachable: tuple[str, ...]


class Reader:
    """Answers what callers ask; deadlines are instants of the monotonic clock."""

    def __init__(
        self,
        store: OperationStore,
        registry: Registry,
        settler: Settler,
        refresher: Refresher,
        me: Owner,
        ttl: float,
    ) -> None:
        self._store = store
        self._registry = registry
        self._settler = settler
        self._refresher = refresher
        self._clock: Clock = refresher.clock
        self._me = me
        self._ttl = ttl

    def get_operation(
        self,
        operation_id: str,
        *,
        max_staleness: float | None,
        metrics_cursor: int,
        metrics_limit: int,
        deadline: float,
    ) -> OperationView:
        """As OperationsService.get_operation."""
        began_at, view = self._clock.monotonic(), None
        try:
            view = self._get(operation_id, max_staleness, metrics_cursor, metrics_limit, deadline)
            return view
        finally:
            took = self._clock.monotonic() - began_at
            if took > SLOW:
                source = "nowhere" if view is None else view.freshness.source.value.lower()
                _log_slow(operation_id, source, took)

    def get_at_once(
        self,
        operation_id: str,
        *,
        max_staleness: float | None,
        metrics_cursor: int,
        metrics_limit: int,
    ) -> OperationView | None:
        """As OperationsService.get_at_once."""
        live = self._registry.get(operation_id)
        if live is None or self._concerns_store(live):
            return None
        staleness = self._ttl if max_staleness is None else max_staleness
        refreshed = self._refresher.refresh_at_once(live, staleness)
        if refreshed is None:
            return None
        view, error = self._view(live, refreshed, staleness, metrics_cursor, metrics_limit)
        if error is not None or len(view.metrics) > _FEW or self._concerns_store(live):
            return None
        self._refresher.count(live, cached=refreshed.cached)
        return view

    def _concerns_store(self, live: LiveOperation) -> bool:
        """Whether a read of it does more than to read: it has ended, or news is to be stored."""
        over = live.status.terminal or live.ending is not None or live.forgotten
        return over or live.to_store(self._clock.monotonic, NEWS)

    def _get(
        self,
        operation_id: str,
        max_staleness: float | None,
        metrics_cursor: int,
        metrics_limit: int,
        deadline: float,
    ) -> OperationView:
        while isinstance(known := self._registry.find(operation_id), LiveOperation):
            view = self._open(known, max_staleness, metrics_cursor, metrics_limit, deadline)
            if not known.forgotten:
                return view
            # Perhaps another has been started under its id.
        return self._recorded(operation_id, known, metrics_cursor, metrics_limit)

    def _open(
        self,
        live: LiveOperation,
        max_staleness: float | None,
        metrics_cursor: int,
        metrics_limit: int,
        deadline: float,
    ) -> OperationView:
        """The view of an open operation; it means nothing if that turns out to be forgotten."""
        staleness = self._ttl if max_staleness is None else max_staleness
        for _ in range(2):
            refreshed = self.refresh(live, staleness, deadline)
            view, error = self._view(live, refreshed, staleness, metrics_cursor, metrics_limit)
            if error is refreshed.error or not refreshed.cached:
                break  # else it was young enough when it was chosen, and is not any more
        if error is not None:
            known = self._registry.reconsider(live)
            if known is not None and not isinstance(known, LiveOperation):
                return self._recorded(live.operation_id, known, metrics_cursor, metrics_limit)
        if max_staleness is not None and not live.forgotten:
            if error is not None:
                raise _strict(error)
            if self._has_ended(live, deadline):
                view, _ = self._view(live, refreshed, staleness, metrics_cursor, metrics_limit)
            live.raise_if_unstored()
        return view

    def get_metrics(
        self, operation_id: str, cursor: int, limit: int, *, deadline: float
    ) -> OperationView:
        """As OperationsService.get_metrics."""

        def read(max_staleness: float | None) -> OperationView:
            return self.get_operation(
                operation_id,
                max_staleness=max_staleness,
                metrics_cursor=cursor,
                metrics_limit=limit,
                deadline=deadline,
            )

        view = read(None)
        if cursor > view.operation.metrics_count and not view.operation.status.terminal:
            view = read(0.0)
        if cursor > view.operation.metrics_count:
            raise CursorOutOfRangeError(cursor, view.operation.metrics_count)
        return view

    def list_operations(
        self, wanted: OperationFilter, after: SortKey | None, limit: int, *, deadline: float
    ) -> OperationsPage:
        """As OperationsService.list_operations."""
        began_at = self._clock.monotonic()
        deadline = min(deadline, began_at + 1.0)
        records = self._store.page(wanted, after, limit + 1)
        found = [self._registry.take_up(record) for record in records[:limit]]
        lives = [live for live in found if isinstance(live, LiveOperation)]
        sources = [(live.operation_id, live.source) for live in lives]  # which goes at the end
        targets = {id_: source.target for id_, source in sources if source is not None}
        results = refresh_all(self._refresher, lives, self._ttl, deadline)
        refreshed = {live.operation_id: result for live, result in zip(lives, results, strict=True)}
        for live in lives:
            self._settler.settle_or_save(live)
        if any(live.forgotten for live in lives):
            return self.list_operations(wanted, after, limit, deadline=deadline)  # of the others
        views = [
            self._view(each, refreshed[each.operation_id], self._ttl, 0, 0)[0]
            if isinstance(each, LiveOperation)
            else view_of_record(each.operation, (), self._me.instance_id)
            for each in found
            if each is not None  # the leftover of a refused start
        ]
        last = records[limit - 1].operation if len(records) > limit else None
        page = OperationsPage(
            views=tuple(
                view for view in views if wanted.matches(view.operation.type, view.operation.status)
            ),
            next_after=None if last is None else (last.create_time, last.operation_id),
            total_count=self._store.count(wanted),
            active_count=self._store.count(ACTIVE),
            unreachable=_unreachable(targets, refreshed),
        )
        took = self._clock.monotonic() - began_at
        if took > SLOW:
            _log_slow(f"a page of {len(page.views)} operations", "all sources", took)
        return page

    def refresh(self, live: LiveOperation, staleness: float, deadline: float) -> Refreshed:
        """Bring an open operation up to date and store what is new."""
        refreshed = self._refresher.refresh(live, staleness, deadline)
        self._settler.settle_or_save(live)
        return refreshed

    def _has_ended(self, live: LiveOperation, deadline: float) -> bool:
        """Wait, not for long, for an end that another caller is storing; whether it can be told."""
        if live.ending is None or live.store_error is not None:
            return False
        left = max(0.0, deadline - self._clock.monotonic())
        return self._settler.settle(live, wait=True, within=min(_STORING, left))

    def unknown(self, operation_id: str) -> OperationNotFoundError:
        """The error that says who does not know the operation, for whoever stands in for it."""
        return OperationNotFoundError(
            operation_id, instance=self._me.instance_id, incarnation=self._me.incarnation
        )

    def _recorded(
        self, operation_id: str, record: OperationRecord | None, cursor: int, limit: int
    ) -> OperationView:
        """The view of an operation that has ended; raises OperationNotFoundError if None."""
        if record is None:
            raise self.unknown(operation_id)
        metrics = self._store.metrics(operation_id, cursor, limit) if limit else ()
        if limit and not metrics and cursor < record.operation.metrics_count:
            raise self.unknown(operation_id)  # it was forgotten between the two
        return view_of_record(record.operation, metrics, self._me.instance_id)

    def _view(
        self, live: LiveOperation, refreshed: Refreshed, staleness: float, cursor: int, limit: int
    ) -> tuple[OperationView, KtrdrError | None]:
        """What is known, and why it is older than it may be; None if it is not."""
        # The clock is read after the state: a read may land in between.
        state = live.state(cursor, limit)
        now = self._clock.monotonic()
        age = now - state.observed_at
        if _too_old(live, state, refreshed, staleness, age):
            refreshed = refreshed._replace(error=late(live, age, staleness))
        return view_of_live(state, refreshed, self._me.instance_id, now), refreshed.error


def _log_slow(what: str, source: str, took: float) -> None:
    logger.warning("Slow query: %s from %s took %.3f s", what, source, took)


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
