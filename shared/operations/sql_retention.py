"""Which finished operations are beyond the retention, found in an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, select, tuple_

from shared.operations.sql_records import unescaped
from shared.operations.sql_schema import ENDED, OPERATIONS, PRUNED_BY_COUNT

_o = OPERATIONS.c
_METRICS_AT_ONCE = 200_000
"""Metrics that go at once at most, but for those of one operation; so it stays quick."""
_AGE = (_o.retention_time, _o.operation_id)
_ENDED: Select[Any] = select(*_AGE, _o.metrics_count)


def beyond_retention(
    connection: Connection, service: str, *, keep: int, ended_before: int, limit: int
) -> list[str]:
    """The ids of at most `limit`, the oldest first; `ended_before` in microseconds.

    There may be more than that: whoever forgets them comes back.
    """
    mine = _ENDED.where(_o.service == service)
    oldest = mine.order_by(*_AGE).limit(limit)
    found = list(connection.execute(oldest.where(ENDED, _o.retention_time < ended_before)))
    newest = mine.where(ENDED).order_by(*(column.desc() for column in _AGE))
    surplus = connection.execute(newest.offset(keep).limit(1)).first()
    if surplus is not None:
        until = tuple_(surplus.retention_time, surplus.operation_id)
        found += connection.execute(oldest.where(PRUNED_BY_COUNT, tuple_(*_AGE) <= until))
    return _as_many_as_are_quick(sorted(set(found))[:limit])


def _as_many_as_are_quick(rows: Sequence[Row[Any]]) -> list[str]:
    found, metrics = list[str](), 0
    for row in rows:
        metrics += row.metrics_count
        if found and metrics > _METRICS_AT_ONCE:
            break
        found.append(unescaped(row.operation_id))
    return found
