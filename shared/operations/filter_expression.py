"""Filters of listings as people write them: a small part of AIP-160.

`done`, `status` and `type`, each compared with `=`, joined with `AND`. Whatever
else the language has is refused with what can be written instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shared.operations.model import ACTIVE_STATUSES, OperationStatus, OperationType
from shared.operations.store import OperationFilter
from shared.rpc.errors import FieldViolation, InvalidArgumentError

MAX_LENGTH = 500
"""Characters of a filter."""
FIELD = "filter"
_AND = re.compile(r"\s+AND\s+")
_TERM = re.compile(r'(\w+)\s*=\s*(?:"(\w+)"|(\w+))', re.ASCII)
_ALL = frozenset(OperationStatus)
_STATUSES: Mapping[str, Mapping[str, frozenset[OperationStatus]]] = {
    "done": {"true": _ALL - ACTIVE_STATUSES, "false": ACTIVE_STATUSES},
    "status": {status.value: frozenset({status}) for status in OperationStatus},
}
_TYPES: Mapping[str, Mapping[str, frozenset[OperationType]]] = {
    "type": {type_.value: frozenset({type_}) for type_ in OperationType},
}
_KNOWN: Mapping[str, Mapping[str, object]] = {**_STATUSES, **_TYPES}
_MEND = "; write done, status or type = VALUE, joined with AND: done = false AND type = TRAINING"


def filter_of(expression: str) -> OperationFilter | None:
    """Read a filter; None if nothing can match it, such as two different states.

    An empty one wants everything. Raises InvalidArgumentError naming each part
    that is not understood, with the mend.
    """
    if len(expression) > MAX_LENGTH:
        raise InvalidArgumentError.of(FIELD, f"must be at most {MAX_LENGTH} characters")
    text = expression.strip()
    terms = [_term(part) for part in _AND.split(text)] if text else []
    violations = [term for term in terms if isinstance(term, FieldViolation)]
    if violations:
        raise InvalidArgumentError(violations)
    statuses, types = _ALL, frozenset(OperationType)
    for field, value in (term for term in terms if not isinstance(term, FieldViolation)):
        statuses &= _STATUSES.get(field, {}).get(value, _ALL)
        types &= _TYPES.get(field, {}).get(value, types)
    return _filter(statuses, types)


def _filter(
    statuses: frozenset[OperationStatus], types: frozenset[OperationType]
) -> OperationFilter | None:
    """The filter for these; of all there are it need not name any."""
    if not statuses or not types:
        return None
    return OperationFilter(
        frozenset() if statuses == _ALL else statuses,
        frozenset() if types == frozenset(OperationType) else types,
    )


def _term(part: str) -> tuple[str, str] | FieldViolation:
    """One comparison: the field and the value it must have."""
    match = _TERM.fullmatch(part)
    if match is None:
        return FieldViolation(FIELD, f"{part!r} is not understood{_MEND}")
    field, value = match[1], match[2] or match[3]
    values = _KNOWN.get(field)
    if values is None:
        return FieldViolation(FIELD, f"{field!r} is no field to filter by{_MEND}")
    if value not in values:
        return FieldViolation(
            FIELD, f"{field} is never {value!r}; it is one of {', '.join(values)}"
        )
    return field, value
