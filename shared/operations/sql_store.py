"""Records in a database: the store of every process, over SQLAlchemy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    delete,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from shared.clock import Clock, SystemClock
from shared.operations.model import Metric, OperationRecord
from shared.operations.sql_connections import Connections
from shared.operations.sql_metrics import insert_metrics
from shared.operations.sql_pages import count_query, page_parameters, page_query
from shared.operations.sql_records import (
    escaped,
    record_to_row,
    row_to_metric,
    row_to_record,
    to_micros,
    unescaped,
)
from shared.operations.sql_schema import ENDED, METRICS, OPEN, OPERATIONS, PRUNED_BY_COUNT
from shared.operations.store import OperationFilter, SortKey
from shared.rpc.errors import StoreUnavailableError

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_o = OPERATIONS.c
_m = METRICS.c
_KEY = {"service", "operation_id"}
_DELETED_AT_ONCE = 50_000
"""Metrics that one statement removes, so that none takes long."""
_PRUNED_AT_ONCE = 200_000
"""Metrics that a call to `prune` removes at most, but for those of one operation."""


class SqlOperationStore:
    """Keeps the records of one service in a database, which others may share."""

    def __init__(self, engine: Engine, service: str, clock: Clock | None = None) -> None:
        """`service` names the kind of process whose records these are."""
        self._connections = Connections(engine, clock or SystemClock())
        self._service = service
        self._insert: Any = _INSERT[engine.dialect.name](OPERATIONS)

    def close(self) -> None:
        """Close the connections to the database."""
        self._connections.close()

    def create(self, record: OperationRecord) -> OperationRecord:
        """Keep a new record; if its id is taken, change nothing and return the kept one."""
        row = record_to_row(self._service, record)
        operation_id = record.operation.operation_id
        with self._connections.writing(f"Operation {operation_id} could not be created") as c:
            if c.execute(self._insert.on_conflict_do_nothing(), row).rowcount:
                return record
            return self._kept(c, operation_id) or record

    def discard(self, operation_id: str) -> None:
        """Forget an operation that was refused before it began; one that has ended stays."""
        with self._connections.writing(f"Operation {operation_id} could not be discarded") as c:
            self._forget(c, operation_id, OPEN)

    def save(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord:
        """Replace the record of an operation that has not ended and keep `metrics`, as one."""
        return self._replace(record, metrics, first)

    def finish(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord:
        """Keep a terminal record and the rest of its metrics, durably and as one."""
        return self._replace(record, metrics, first)

    def get(self, operation_id: str) -> OperationRecord | None:
        """Return a record, or None."""
        with self._connections.reading(f"Operation {operation_id} could not be read") as c:
            return self._kept(c, operation_id)

    def metrics(self, operation_id: str, cursor: int, limit: int) -> Sequence[Metric]:
        """Return the kept metrics of an operation from `cursor` on, at most `limit`."""
        query = (
            select(_m.time, _m.kind, _m.step, _m["values"], _m.labels)
            .where(self._metrics_of(operation_id), _m.index >= cursor)
            .order_by(_m.index)
            .limit(limit)
        )
        with self._connections.reading(f"Metrics of {operation_id} could not be read") as c:
            return tuple(map(row_to_metric, c.execute(query)))

    def page(
        self, wanted: OperationFilter, after: SortKey | None, limit: int
    ) -> Sequence[OperationRecord]:
        """Return the newest records that match and are older than `after`."""
        query = page_query(wanted, first=after is None)
        parameters = page_parameters(self._service, after, limit)
        with self._connections.reading("Operations could not be listed") as c:
            return list(map(row_to_record, c.execute(query, parameters)))

    def count(self, wanted: OperationFilter) -> int:
        """Return how many records match."""
        with self._connections.reading("Operations could not be counted") as c:
            return int(c.execute(count_query(wanted), {"service": self._service}).scalar_one())

    def mark_read(self, operation_id: str) -> None:
        """Note that whoever started a finished operation knows how it ended."""
        unread = and_(self._is(operation_id), ENDED, _o.outcome_read.is_(False))
        what = f"That the end of {operation_id} is known could not be noted"
        with self._connections.reading(what) as c:
            if c.execute(select(_o.operation_id).where(unread)).first() is None:
                return
        with self._connections.writing(what) as c:
            c.execute(update(OPERATIONS).where(unread).values(outcome_read=True))

    def delete(self, operation_id: str) -> bool:
        """Forget a finished operation and its metrics; False if there is none or it is open."""
        with self._connections.writing(f"Operation {operation_id} could not be deleted") as c:
            return self._forget(c, operation_id, ENDED)

    def prune(self, keep: int, ended_before: datetime, limit: int) -> Sequence[str]:
        """Forget finished operations beyond the retention, the oldest first; return their ids."""
        what = "Old operations could not be pruned"
        with self._connections.reading(what) as c:
            beyond = self._beyond(c, keep, to_micros(ended_before), limit)
        if not beyond:
            return []
        with self._connections.writing(what) as c:
            return [each for each in beyond if self._forget(c, each, ENDED)]

    def _replace(
        self, record: OperationRecord, metrics: Sequence[Metric], first: int
    ) -> OperationRecord:
        operation_id = record.operation.operation_id
        row = record_to_row(self._service, record)
        upsert = self._insert.on_conflict_do_update(
            index_elements=[_o.service, _o.operation_id],
            set_={name: value for name, value in row.items() if name not in _KEY},
            where=OPEN,
        )
        with self._connections.writing(f"Operation {operation_id} could not be stored") as c:
            if not c.execute(upsert, row).rowcount:
                return self._kept(c, operation_id) or record
            self._append(c, operation_id, metrics, first)
        return record

    def _append(
        self, connection: Connection, operation_id: str, metrics: Sequence[Metric], first: int
    ) -> None:
        """Add to an operation's log what it lacks of `metrics`; its row is ours meanwhile."""
        if not metrics:
            return
        kept = self._metrics_kept(connection, operation_id)
        if first > kept:
            raise StoreUnavailableError(
                f"Metrics of {operation_id} could not be stored: the store has {kept} of the "
                f"{first} before them. Store them from {kept} on.",
                metadata={"metrics_kept": str(kept)},
            )
        key = (self._service, escaped(operation_id))
        insert_metrics(connection, key, metrics, first, kept)

    def _metrics_kept(self, connection: Connection, operation_id: str) -> int:
        last = select(func.max(_m.index)).where(self._metrics_of(operation_id))
        index = connection.execute(last).scalar_one()
        return 0 if index is None else int(index) + 1

    def _kept(self, connection: Connection, operation_id: str) -> OperationRecord | None:
        row = connection.execute(select(OPERATIONS).where(self._is(operation_id))).first()
        return None if row is None else row_to_record(row)

    def _forget(
        self, connection: Connection, operation_id: str, state: ColumnElement[bool]
    ) -> bool:
        """Remove an operation in this state, and its metrics."""
        forgotten = delete(OPERATIONS).where(self._is(operation_id), state)
        if not connection.execute(forgotten).rowcount:
            return False
        kept = self._metrics_kept(connection, operation_id)
        for end in range(_DELETED_AT_ONCE, kept + _DELETED_AT_ONCE, _DELETED_AT_ONCE):
            mine = self._metrics_of(operation_id)
            connection.execute(delete(METRICS).where(mine, _m.index < end))
        return True

    def _beyond(
        self, connection: Connection, keep: int, ended_before: int, limit: int
    ) -> list[str]:
        """The ids beyond the retention, the oldest first, with metrics that are not too many."""
        age = tuple_(_o.retention_time, _o.operation_id)
        ended = select(_o.retention_time, _o.operation_id, _o.metrics_count).where(
            _o.service == self._service
        )
        oldest = ended.order_by(_o.retention_time, _o.operation_id).limit(limit)
        rows = set(connection.execute(oldest.where(ENDED, _o.retention_time < ended_before)))
        newest = ended.where(ENDED).order_by(_o.retention_time.desc(), _o.operation_id.desc())
        surplus = connection.execute(newest.offset(keep).limit(1)).first()
        if surplus is not None:
            until = tuple_(surplus.retention_time, surplus.operation_id)
            rows |= set(connection.execute(oldest.where(PRUNED_BY_COUNT, age <= until)))
        found, metrics = list[str](), 0
        for _, operation_id, count in sorted(rows)[:limit]:
            metrics += count
            if found and metrics > _PRUNED_AT_ONCE:
                break
            found.append(unescaped(operation_id))
        return found

    def _is(self, operation_id: str) -> ColumnElement[bool]:
        return and_(_o.service == self._service, _o.operation_id == escaped(operation_id))

    def _metrics_of(self, operation_id: str) -> ColumnElement[bool]:
        return and_(_m.service == self._service, _m.operation_id == escaped(operation_id))
