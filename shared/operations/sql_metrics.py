"""The logs of metrics in a database: written by the thousand, read by their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select

from shared.operations.model import Metric
from shared.operations.sql_records import escaped, metric_to_values, row_to_metric
from shared.operations.sql_schema import METRICS

_m = METRICS.c
_WRITTEN_AT_ONCE = 5_000
"""Rows that one statement writes, and that are in memory for it."""
_DELETED_AT_ONCE = 20_000
"""Rows that one statement removes, so that none takes long."""
_COLUMNS = ", ".join(f'"{column.name}"' for column in _m)
_MARKS = ", ".join("?" for _ in _m)
_INSERT = f"INSERT INTO metrics ({_COLUMNS}) VALUES ({_MARKS}) ON CONFLICT DO NOTHING"  # noqa: S608  # our own columns
_COPY = f"COPY metrics ({_COLUMNS}) FROM STDIN"
_Row = tuple[str, str, int, int, str, int, str, str]


class MetricsLog:
    """The metrics of one operation, over a connection; it raises what the database raises.

    Whoever writes it holds the operation's row, so nobody else writes meanwhile.
    """

    def __init__(self, connection: Connection, service: str, operation_id: str) -> None:
        self._connection = connection
        self._key = service, escaped(operation_id)

    def count(self) -> int:
        """How many are kept; there are no gaps."""
        last = self._connection.execute(select(func.max(_m.index)).where(self._mine)).scalar()
        return 0 if last is None else last + 1

    def read(self, cursor: int, limit: int) -> tuple[Metric, ...]:
        """At most `limit` from `cursor` on."""
        entry = select(_m.time, _m.kind, _m.step, _m["values"], _m.labels)
        query = entry.where(self._mine, _m.index >= cursor).order_by(_m.index).limit(limit)
        return tuple(row_to_metric(*row) for row in self._connection.execute(query))

    def append(self, metrics: Sequence[Metric], first: int, kept: int) -> None:
        """Keep `metrics`, the log's from index `first` on, of which there are `kept` already."""
        rows = self._rows(metrics, first, kept)
        # Three times as fast as inserting, and nothing can be in the way of a copy.
        copying = self._connection.dialect.name == "postgresql"
        while chunk := list(islice(rows, _WRITTEN_AT_ONCE)):
            if copying:
                self._copy(chunk)
            else:
                self._connection.exec_driver_sql(_INSERT, chunk)

    def remove(self) -> None:
        """Remove all."""
        kept = self.count()
        for end in range(_DELETED_AT_ONCE, kept + _DELETED_AT_ONCE, _DELETED_AT_ONCE):
            self._connection.execute(delete(METRICS).where(self._mine, _m.index < end))

    def _rows(self, metrics: Sequence[Metric], first: int, kept: int) -> Iterator[_Row]:
        for place in range(max(0, kept - first), len(metrics)):
            yield (*self._key, first + place, *metric_to_values(metrics[place]))

    def _copy(self, rows: Sequence[_Row]) -> None:
        cursor = self._connection.connection.cursor()
        with cursor.copy(_COPY) as copy:  # psycopg's own
            for row in rows:
                copy.write_row(row)
        cursor.close()

    @property
    def _mine(self) -> ColumnElement[bool]:
        service, operation_id = self._key
        return and_(_m.service == service, _m.operation_id == operation_id)
