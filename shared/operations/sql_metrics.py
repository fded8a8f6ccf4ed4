"""Metrics into the database, by the thousand: what is kept of a log is left as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from sqlalchemy import Connection

from shared.operations.model import Metric
from shared.operations.sql_records import metric_to_values
from shared.operations.sql_schema import METRICS

CHUNK = 5_000
"""Rows that are in memory at once, and that one statement brings."""
_COLUMNS = ", ".join(f'"{column.name}"' for column in METRICS.columns)
_MARKS = ", ".join("?" for _ in METRICS.columns)
_INSERT = f"INSERT INTO metrics ({_COLUMNS}) VALUES ({_MARKS}) ON CONFLICT DO NOTHING"  # noqa: S608  # our own columns
_COPY = f"COPY metrics ({_COLUMNS}) FROM STDIN"
_Row = tuple[str, str, int, int, str, int, str, str]


def insert_metrics(
    connection: Connection, key: tuple[str, str], metrics: Sequence[Metric], first: int, kept: int
) -> None:
    """Keep `metrics`, the log's from index `first` on, of which there are `kept` already.

    Nobody else writes this log meanwhile: its operation's row is ours. So what
    PostgreSQL copies, which is three times as fast, meets no row that is there.
    """
    rows = _rows(key, metrics, first, kept)
    keep = _copy if connection.dialect.name == "postgresql" else _insert
    while chunk := list(islice(rows, CHUNK)):
        keep(connection, chunk)


def _insert(connection: Connection, rows: list[_Row]) -> None:
    connection.exec_driver_sql(_INSERT, rows)


def _copy(connection: Connection, rows: list[_Row]) -> None:
    cursor = connection.connection.cursor()
    with cursor.copy(_COPY) as copy:  # type: ignore[attr-defined]  # psycopg's, which SQLAlchemy hands through
        for row in rows:
            copy.write_row(row)
    cursor.close()


def _rows(
    key: tuple[str, str], metrics: Sequence[Metric], first: int, kept: int
) -> Iterator[_Row]:
    for place in range(max(0, kept - first), len(metrics)):
        yield (*key, first + place, *metric_to_values(metrics[place]))
