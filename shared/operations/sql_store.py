"""Records in a database: the store of every process, over SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, Insert, and_, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from shared.clock import Clock, SystemClock
from shared.operations.model import Metric, OperationRecord
from shared.operations.sql_connections import Connections
from shared.operations.sql_forgotten import Forgotten
from shared.operations.sql_metrics import MetricsLog
from shared.operations.sql_pages import count_query, page_parameters, page_query
from shared.operations.sql_records import escaped, record_to_row, row_to_record, to_micros
from shared.operations.sql_retention import beyond_retention
from shared.operations.sql_schema import ENDED, OPEN, OPERATIONS
from shared.operations.store import MetricsMissingError, OperationFilter, SortKey

_o = OPERATIONS.c
_KEY = ("service", "operation_id")
_INSERTS: Mapping[str, sqlite.Insert | postgresql.Insert] = {
    "sqlite": sqlite.insert(OPERATIONS),
    "postgresql": postgresql.insert(OPERATIONS),
}


class SqlOperationStore:
    """Keeps the records of one service in a database, which others may share."""

    def __init__(self, engine: Engine, service: str, clock: Clock | None = None) -> None:
        """`service` names the kind of process whose records these are."""
        self._clock = clock or SystemClock()
        self._connections = Connections(engine, self._clock)
        self._service = service
        # How many rows an insertion has made or changed is wanted.
        insert = _INSERTS[engine.dialect.name].execution_options(preserve_rowcount=True)
        self._insert = insert.on_conflict_do_nothing()
        self._upsert = insert.on_conflict_do_update(
            index_elements=_KEY,
            set_={column.name: column for column in insert.excluded if column.name not in _KEY},
            where=and_(OPEN, _o.create_time == insert.excluded.create_time),
        )

    def close(self) -> None:
        """Close the connections to the database."""
        self._connections.close()

    def create(self, record: OperationRecord) -> OperationRecord:
        """Keep a new record; if its id is taken, change nothing and return the kept one."""
        what = f"Operation {record.operation.operation_id} could not be created"
        with self._connections.writing(what) as db:
            kept = self._put(db, self._insert, record)
            if kept is None:
                Forgotten(db, self._service).remove(*_identity(record))
            return kept or record

    def discard(self, record: OperationRecord) -> None:
        """Forget an operation that was refused before it began, not another of its id."""
        operation_id = record.operation.operation_id
        meant = and_(OPEN, _o.create_time == to_micros(record.operation.create_time))
        with self._connections.writing(f"Operation {operation_id} could not be discarded") as db:
            self._forget(db, [operation_id], meant)

    def save(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord | None:
        """Replace the record of an operation that has not ended and keep `metrics`, as one."""
        return self._replace(record, metrics, first)

    def finish(
        self, record: OperationRecord, metrics: Sequence[Metric] = (), first: int = 0
    ) -> OperationRecord | None:
        """Keep a terminal record and the rest of its metrics, durably and as one."""
        return self._replace(record, metrics, first)

    def get(self, operation_id: str) -> OperationRecord | None:
        """Return a record, or None."""
        with self._connections.reading(f"Operation {operation_id} could not be read") as db:
            return self._kept(db, operation_id)

    def metrics(self, operation_id: str, cursor: int, limit: int) -> Sequence[Metric]:
        """Return the kept metrics of an operation from `cursor` on, at most `limit`."""
        what = f"Metrics of operation {operation_id} could not be read"
        with self._connections.reading(what) as db:
            return MetricsLog(db, self._service, operation_id).read(cursor, limit)

    def page(
        self, wanted: OperationFilter, after: SortKey | None, limit: int
    ) -> Sequence[OperationRecord]:
        """Return the newest records that match and are older than `after`."""
        query = page_query(wanted, first=after is None)
        parameters = page_parameters(self._service, after, limit)
        with self._connections.reading("Operations could not be listed") as db:
            return list(map(row_to_record, db.execute(query, parameters)))

    def count(self, wanted: OperationFilter) -> int:
        """Return how many records match."""
        with self._connections.reading("Operations could not be counted") as db:
            counted: int = db.execute(count_query(wanted), {"service": self._service}).scalar_one()
            return counted

    def mark_read(self, operation_id: str) -> None:
        """Note that whoever started a finished operation knows how it ended."""
        unread = and_(self._is(operation_id), ENDED, _o.outcome_read.is_(False))
        what = f"That the end of operation {operation_id} is known could not be noted"
        with self._connections.reading(what) as db:
            if db.execute(select(_o.operation_id).where(unread)).first() is None:
                return
        with self._connections.writing(what) as db:
            db.execute(update(OPERATIONS).where(unread).values(outcome_read=True))

    def delete(self, operation_id: str) -> bool:
        """Forget a finished operation and its metrics; False if there is none or it is open."""
        with self._connections.writing(f"Operation {operation_id} could not be deleted") as db:
            return bool(self._forget(db, [operation_id], ENDED))

    def prune(self, keep: int, ended_before: datetime, limit: int) -> Sequence[str]:
        """Forget finished operations beyond the retention, the oldest first; return their ids."""
        what = "Old operations could not be forgotten"
        with self._connections.reading(what) as db:
            before = to_micros(ended_before)
            beyond = beyond_retention(
                db, self._service, keep=keep, ended_before=before, limit=limit
            )
        if not beyond:
            return []
        with self._connections.writing(what) as db:
            return self._forget(db, beyond, ENDED)

    def _replace(
        self, record: OperationRecord, metrics: Sequence[Metric], first: int
    ) -> OperationRecord | None:
        operation_id = record.operation.operation_id
        with self._connections.writing(f"Operation {operation_id} could not be stored") as db:
            kept_record = self._put(db, self._upsert, record)
            if kept_record is not None:
                return kept_record if _identity(kept_record) == _identity(record) else None
            # Asked once the row is ours: who has removed one before has committed, or waits for us.
            if Forgotten(db, self._service).has(*_identity(record)):
                self._remove(db, operation_id)
                return None
            if metrics:
                log = MetricsLog(db, self._service, operation_id)
                kept = log.count()
                if first > kept:
                    raise MetricsMissingError(operation_id, kept)
                log.append(metrics, first, kept)
        return record

    def _put(
        self, db: Connection, statement: Insert, record: OperationRecord
    ) -> OperationRecord | None:
        """Keep a record; or return the one that is in its way."""
        row = record_to_row(self._service, record)
        while not db.execute(statement, row).rowcount:
            kept = self._kept(db, record.operation.operation_id)
            if kept is not None:  # else another process has just forgotten it
                return kept
        return None

    def _kept(self, db: Connection, operation_id: str) -> OperationRecord | None:
        row = db.execute(select(OPERATIONS).where(self._is(operation_id))).first()
        return None if row is None else row_to_record(row)

    def _forget(
        self, db: Connection, operation_ids: Sequence[str], state: ColumnElement[bool]
    ) -> Sequence[str]:
        """Remove those operations that are in this state, and their metrics; return their ids."""
        forgotten, now = Forgotten(db, self._service), to_micros(self._clock.now())
        found = []
        for operation_id in operation_ids:
            meant = and_(self._is(operation_id), state)
            # Locked, in PostgreSQL, so that it is the one that is removed.
            create_time = db.execute(select(_o.create_time).where(meant).with_for_update()).scalar()
            if create_time is None:
                continue
            self._remove(db, operation_id)
            forgotten.add(operation_id, create_time, now)
            found.append(operation_id)
        if found:
            forgotten.trim()
        return found

    def _remove(self, db: Connection, operation_id: str) -> None:
        db.execute(delete(OPERATIONS).where(self._is(operation_id)))
        MetricsLog(db, self._service, operation_id).remove()

    def _is(self, operation_id: str) -> ColumnElement[bool]:
        return and_(_o.service == self._service, _o.operation_id == escaped(operation_id))


def _identity(record: OperationRecord) -> tuple[str, int]:
    """Which operation a record is of: an id that was forgotten can be used anew."""
    return record.operation.operation_id, to_micros(record.operation.create_time)
