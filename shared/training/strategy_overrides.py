"""Overrides: values that a request puts in place of its strategy's, each at a dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.rpc.errors import FieldViolation
from shared.rpc.limits import RequestLimits
from shared.training.strategy_yaml import MAX_DEPTH, YamlTextError, read_yaml

_LIMITS = RequestLimits()
_MAX_NODES = 500
"""Values that one override may stand for."""


def override_field(path: str) -> str:
    """Name an override in a violation."""
    return f'overrides["{path[:200]}"]'


def apply_overrides(
    document: dict[str, Any], overrides: Mapping[str, str], limits: RequestLimits = _LIMITS
) -> tuple[dict[str, Any], list[FieldViolation]]:
    """Return the document with the overrides put in, and those that fit nowhere.

    A path is dotted, list items by index ("indicators.0.period"); values are
    read as YAML. Mappings that are missing on the way are made. The document
    given is left as it is.
    """
    if len(overrides) > limits.overrides:
        problem = f"{len(overrides)} overrides; at most {limits.overrides} are taken."
        return document, [FieldViolation("overrides", problem)]
    if sum(len(text.encode("utf-8", "replace")) for text in overrides.values()) > (
        limits.strategy_bytes
    ):
        problem = f"have more than {limits.strategy_bytes // 1024} KiB together; shorten them."
        return document, [FieldViolation("overrides", problem)]
    changed: Any = document
    violations = []
    for path, text in overrides.items():
        try:
            changed = _replaced(changed, path.split("."), _value(text, limits))
        except (YamlTextError, _PathError) as error:
            violations.append(FieldViolation(override_field(path), str(error)))
    return changed, violations


def _value(text: str, limits: RequestLimits) -> object:
    return read_yaml(text, limits.strategy_bytes, _MAX_NODES)


class _PathError(Exception):
    """The path leads nowhere; the message says where it ends."""


def _replaced(value: Any, path: list[str], new: object) -> Any:
    """Copy `value` with the place at `path` replaced; copies only along the path."""
    if not path:
        return new
    head, rest = path[0], path[1:]
    if not head:
        raise _PathError("write a path like model.training.epochs, without empty parts.")
    if len(path) > MAX_DEPTH:
        raise _PathError(f"deeper than {MAX_DEPTH} levels.")
    if isinstance(value, list):
        if not (head.isascii() and head.isdigit() and len(head) < 6 and int(head) < len(value)):
            raise _PathError(
                f"{head[:60]!r} is not an item of a list of {len(value)}; "
                "write an index, counted from 0."
            )
        index = int(head)
        return [*value[:index], _replaced(value[index], rest, new), *value[index + 1 :]]
    if value is not None and not isinstance(value, dict):
        raise _PathError(f"there is nothing below a plain value, so no {head[:60]!r}.")
    mapping = value or {}
    return {**mapping, head: _replaced(mapping.get(head), rest, new)}
