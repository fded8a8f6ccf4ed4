"""From pydantic's errors to violations that name the path and the mend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.rpc.errors import FieldViolation
from shared.training.strategy_overrides import override_field

ROOT = "strategy_yaml"

Path = tuple[str | int, ...]
"""Keys and indexes from the strategy's root to a place in it."""
Problem = tuple[Path, str]
"""A place in the strategy and what to put right there."""


def strategy_field(path: Path) -> str:
    """Name a place in the strategy: strategy_yaml.indicators[1].period."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part[:60]}" for part in path)
    return ROOT + "".join(parts)


def unknown_name(noun: str, name: object, known: Iterable[str]) -> str:
    """Say that a name is not known, which is near, and which there are."""
    names = list(known)
    near = get_close_matches(str(name)[:60].lower(), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {noun} {brief(name)}{hint} Known: {', '.join(names) or 'none'}."


def brief(value: object) -> str:
    """Show a value in a message without letting it fill the message."""
    # repr of a plain value only: a container may be as large as the text.
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    shown = repr(value[:60]) if isinstance(value, str) else repr(value)[:60]
    return f"{shown}..." if isinstance(value, str) and len(value) > 60 else shown


def pydantic_problems(
    error: ValidationError, model: type[BaseModel], document: object
) -> Iterator[Problem]:
    """Yield each of pydantic's errors as a place in the document and its mend."""
    for details in error.errors(include_url=False):
        if _follows_from_items(details):
            continue
        path = _document_path(details["loc"], document)
        yield path, _mend(details, model)


def _follows_from_items(details: ErrorDetails) -> bool:
    """Tell a list that is short only because pydantic left its bad items out."""
    given = details["input"]
    return (
        details["type"] == "too_short"
        and isinstance(given, list | dict)
        and len(given) >= details["ctx"]["min_length"]
    )


def violations_of(
    problems: Sequence[Problem], overrides: Mapping[str, str]
) -> list[FieldViolation]:
    """Name each problem's field: the override that put it there, or the strategy's."""
    return [_violation(path, text, overrides) for path, text in problems]


def _violation(path: Path, text: str, overrides: Mapping[str, str]) -> FieldViolation:
    dotted = ".".join(map(str, path))
    for override in overrides:
        if f"{override}.".startswith(f"{dotted}."):
            return FieldViolation(override_field(override), text)
        if f"{dotted}.".startswith(f"{override}."):
            below = dotted.removeprefix(f"{override}.")
            return FieldViolation(override_field(override), f"{below}: {text}")
    return FieldViolation(strategy_field(path), text)


def _document_path(location: tuple[str | int, ...], document: object) -> Path:
    """Leave out what pydantic adds to a place, such as the tag of a union's member."""
    path: list[str | int] = []
    value = document
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if part == "[key]":
            continue
        if isinstance(value, dict):
            if part not in value and not last:
                continue
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        path.append(part)
    return tuple(path)


def _mend(details: ErrorDetails, model: type[BaseModel]) -> str:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = sorted(_keys_at(model, details["loc"][:-1]))
        return unknown_name("key", details["loc"][-1], known)
    if kind == "missing":
        return "required, but not there."
    if kind == "value_error":
        return f"{details['msg'].removeprefix('Value error, ')}."
    for kinds, wanted in _WANTED:
        if kind in kinds:
            return f"must be {wanted.format(**context)}, not {brief(context.get('tag', given))}."
    return f"{details['msg'][:1].lower()}{details['msg'][1:]}, not {brief(given)}."


_WANTED = (
    ({"literal_error"}, "one of {expected}"),
    ({"union_tag_invalid"}, "one of {expected_tags}"),
    ({"union_tag_not_found"}, "a mapping with a {discriminator}"),
    ({"greater_than_equal"}, "at least {ge:g}"),
    ({"less_than_equal"}, "at most {le:g}"),
    ({"greater_than"}, "above {gt:g}"),
    ({"less_than"}, "below {lt:g}"),
    ({"int_type", "int_parsing", "int_from_float", "int_parsing_size"}, "a whole number"),
    ({"float_type", "float_parsing", "finite_number"}, "a finite number"),
    ({"string_type"}, "text"),
    ({"string_pattern_mismatch"}, "text that matches {pattern}"),
    ({"string_too_long"}, "at most {max_length} characters long"),
    ({"string_too_short"}, "at least {min_length} characters long"),
    ({"too_short"}, "at least {min_length} long"),
    ({"too_long"}, "at most {max_length} long"),
    ({"bool_type"}, "true or false"),
    ({"tuple_type", "list_type"}, "a list"),
    ({"model_type", "model_attributes_type", "dict_type"}, "a mapping"),
)
"""What pydantic's kinds of error ask for, in our words."""


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """Return the keys that may stand at a place, as pydantic names places."""
    models = [model]
    for part in location:
        inner = [
            found
            for current in models
            for name, field in current.model_fields.items()
            if part in (name, field.validation_alias)
            for found in _models_in(field.annotation)
        ]
        # A part that is no field is the tag of a union's member, or the index or
        # key of a collection, whose members the step before has unpacked.
        tagged = [m for m in models if _has_tag(m, part)]
        models = inner or tagged or models
    return {
        str(field.validation_alias or name)
        for current in models
        for name, field in current.model_fields.items()
    }


def _has_tag(model: type[BaseModel], tag: int | str) -> bool:
    return any(tag in get_args(field.annotation) for field in model.model_fields.values())


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models inside an annotation: of unions, tuples and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
