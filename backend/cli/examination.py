"""The doctor's look: every open operation, read once, within a bounded time.

The backend lists what is open and how it is; then each operation is read by itself,
now, with its last metrics. A few are read at once, of different hosts first, so that
one that is slow does not keep the others waiting. A host that was silent once is not
asked for its other operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import zip_longest

from backend.cli.client import Backend
from backend.cli.failures import RpcFailedError
from backend.cli.observation import STORE_AWAY, Observation, Trouble
from backend.cli.pace import Pace
from backend.cli.states import is_terminal
from ktrdr.operations.v1 import operation_pb2, operations_service_pb2

DEADLINE = 4.0
"""Seconds one read may take; the backend leaves a silent host a tenth before that."""
TOGETHER = 12.0
"""Seconds after which no more reads are begun."""
_AT_ONCE = 4
"""Reads under way at the same time: fewer than may wait for one host."""
_LAST = 20
"""Metrics that show the pace."""
_ALL = 1_000_000
_SILENT = "HOST_UNREACHABLE"
_NO_ROOM = frozenset({"REFRESH_BUSY", "TOO_MANY_CALLS"})


def examine(backend: Backend, pace: Pace) -> list[Observation]:
    """Look at every operation that is open; newest first.

    Raises RpcFailedError if the backend does not answer.
    """
    request = operations_service_pb2.ListOperationsRequest(active_only=True)
    rows = backend.list_operations(request, _ALL).operations
    found = _Examination(backend, pace).look_at(rows)
    seen = {one.operation.operation_id: one for one in found}
    ids = dict.fromkeys(row.operation_id for row in rows)
    return [seen[id_] for id_ in ids if id_ in seen]


class _Examination:
    """The reads of one look."""

    def __init__(self, backend: Backend, pace: Pace) -> None:
        self._backend = backend
        self._pace = pace
        self._begun_at = datetime.now(UTC)
        self._until = pace.monotonic() + TOGETHER
        # Written by several threads; each entry is stored as one, and a late one
        # only costs a read more.
        self._silent: dict[str, Trouble] = {}

    def look_at(self, rows: Sequence[operation_pb2.Operation]) -> list[Observation]:
        """Read each; those that have ended meanwhile are left out."""
        threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="doctor")
        try:
            return [one for one in threads.map(self._look, _in_turn(rows)) if one is not None]
        finally:
            threads.shutdown(cancel_futures=True)

    def _look(self, row: operation_pb2.Operation) -> Observation | None:
        host = row.metadata.get("host_service_url", "")
        if silent := self._silent.get(host):
            return self._last_known(row, silent)
        if self._pace.monotonic() >= self._until:
            return self._as_listed(row)
        try:
            return self._read(row)
        except RpcFailedError as error:
            if error.status == "NOT_FOUND":
                return None
            if error.status == "UNAVAILABLE" and not error.reason:
                raise  # the backend itself is gone
            trouble = Trouble.of_call(error)
            if host and trouble.reason == _SILENT:
                self._silent[host] = trouble
            return self._last_known(row, trouble)

    def _read(self, row: operation_pb2.Operation) -> Observation | None:
        answer = self._get(row.operation_id, row.metrics_count)
        if answer.has_more:  # the listing knew an older log
            answer = self._get(row.operation_id, answer.operation.metrics_count)
        if is_terminal(answer.operation):
            return None
        metrics = tuple(answer.metrics[-_LAST:])
        trouble = Trouble.of_answer(answer.operation)
        return Observation(answer.operation, datetime.now(UTC), metrics, trouble)

    def _get(self, operation_id: str, count: int) -> operations_service_pb2.GetOperationResponse:
        """Read one operation now; asked again once if there was no room."""
        try:
            return self._get_once(operation_id, count)
        except RpcFailedError as error:
            if error.reason not in _NO_ROOM or self._pace.monotonic() >= self._until:
                raise
            self._pace.pause(min(max(error.retry_after, 0.1), 1.0))
        return self._get_once(operation_id, count)

    def _get_once(
        self, operation_id: str, count: int
    ) -> operations_service_pb2.GetOperationResponse:
        return self._backend.get_operation(
            operation_id,
            force_refresh=True,
            metrics_cursor=max(0, count - _LAST),
            deadline=DEADLINE,
        )

    def _as_listed(self, row: operation_pb2.Operation) -> Observation:
        """What the listing said, for want of time."""
        trouble = Trouble.of_answer(row)
        if trouble is not None and trouble.reason != STORE_AWAY:
            return self._last_known(row, trouble)
        return Observation(row, self._begun_at, trouble=trouble)

    def _last_known(self, row: operation_pb2.Operation, trouble: Trouble) -> Observation:
        return Observation(row, self._begun_at, trouble=trouble, is_current=False)


def _in_turn(rows: Sequence[operation_pb2.Operation]) -> Iterator[operation_pb2.Operation]:
    """The rows with those of one host as far apart as can be."""
    by_host: dict[str, list[operation_pb2.Operation]] = {}
    for row in rows:
        by_host.setdefault(row.metadata.get("host_service_url", ""), []).append(row)
    for several in zip_longest(*by_host.values()):
        yield from (row for row in several if row is not None)
