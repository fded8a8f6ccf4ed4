"""Queries of listings: pages and counts that touch few more rows than they give."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Select,
    and_,
    bindparam,
    case,
    func,
    select,
    tuple_,
    union_all,
)

from shared.operations.model import OperationStatus, OperationType
from shared.operations.sql_records import escaped, to_micros
from shared.operations.sql_schema import OPERATIONS
from shared.operations.store import OperationFilter, SortKey

_o = OPERATIONS.c
_SERVICE: BindParameter[str] = bindparam("service")
_MINE = _o.service == _SERVICE
_ENDS = (func.min, func.max)
_OLDER = tuple_(_o.create_time, _o.operation_id) < tuple_(
    bindparam("time"), bindparam("operation_id")
)
_NEWEST_FIRST = (_o.create_time.desc(), _o.operation_id.desc())
_LIMIT: BindParameter[int] = bindparam("limit")


@lru_cache(256)
def page_query(wanted: OperationFilter, *, first: bool) -> Select[Any]:
    """Select a page of the rows that match, newest first, with `page_parameters`.

    With a filter, the newest of every wanted type and state are found in an
    index and merged; so a rare state costs no more than a common one. `first`
    is whether there is no page before.
    """
    where = [_MINE] if first else [_MINE, _OLDER]
    if wanted == OperationFilter():
        return select(OPERATIONS).where(*where).order_by(*_NEWEST_FIRST).limit(_LIMIT)
    newest = union_all(
        *(
            select(_o.operation_id, _o.create_time)
            .where(*where, _o.type == type_, _o.status == status)
            .order_by(*_NEWEST_FIRST)
            .limit(_LIMIT)
            .subquery()
            .select()
            for type_ in _types(wanted)
            for status in _statuses(wanted)
        )
    ).subquery()
    merged = (newest.c.create_time.desc(), newest.c.operation_id.desc())
    page = select(newest).order_by(*merged).limit(_LIMIT).subquery()
    whole = select(OPERATIONS).join(page, _o.operation_id == page.c.operation_id).where(_MINE)
    return whole.order_by(page.c.create_time.desc(), page.c.operation_id.desc())


def page_parameters(service: str, after: SortKey | None, limit: int) -> Mapping[str, object]:
    """What a `page_query` is carried out with."""
    parameters: dict[str, object] = {"service": service, "limit": limit}
    if after is not None:
        parameters |= {"time": to_micros(after[0]), "operation_id": escaped(after[1])}
    return parameters


@lru_cache(256)
def count_query(wanted: OperationFilter) -> Select[Any]:
    """Count the rows of a `service` that match."""
    everything = select(func.count()).select_from(OPERATIONS)
    query = everything.where(_MINE)
    if wanted == OperationFilter():
        # SQLite counts all rows of a table in a third of the time that those of one service take,
        # and in most files there is only one. Its first and its last are found at once.
        alone = and_(*(select(end(_o.service)).scalar_subquery() == _SERVICE for end in _ENDS))
        counts = case((alone, everything.scalar_subquery()), else_=query.scalar_subquery())
        return select(counts)
    # Types are named even if any is wanted: the index has them before the states.
    return query.where(_o.type.in_(_types(wanted)), _o.status.in_(_statuses(wanted)))


def _types(wanted: OperationFilter) -> list[str]:
    return sorted(each.value for each in wanted.types or OperationType)


def _statuses(wanted: OperationFilter) -> list[str]:
    return sorted(each.value for each in wanted.statuses or OperationStatus)
