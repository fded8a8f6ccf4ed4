"""Metrics into the database, by the thousand: what is kept of a log is left as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from shared.operations.model import Metric
from shared.operations.sql_records import metric_to_values

CHUNK = 5_000
"""Rows that are in memory at once."""
_COLUMNS = ("service", "operation_id", "index", "time", "kind", "step", "values", "labels")


def insert_metrics(
    connection: Connection, key: tuple[str, str], metrics: Sequence[Metric], first: int, kept: int
) -> None:
    """Keep `metrics`, the log's from index `first` on, of which there are `kept` already."""
    rows = _rows(key, metrics, first, kept)
    columns = ", ".join(f'"{column}"' for column in _COLUMNS)
    marks = ", ".join("?" for _ in _COLUMNS)
    statement = f"INSERT INTO metrics ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608
    while chunk := list(islice(rows, CHUNK)):
        connection.exec_driver_sql(statement, chunk)


def _rows(
    key: tuple[str, str], metrics: Sequence[Metric], first: int, kept: int
) -> Iterator[tuple[Any, ...]]:
    for place in range(max(0, kept - first), len(metrics)):
        yield (*key, first + place, *metric_to_values(metrics[place]))
