"""The rules of a strategy that tie its parts together.

They look at the plain values, whatever else is wrong with them, so that one
answer names every bad field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, TypeGuard

from shared.training.indicator_catalogue import INDICATORS, IndicatorSpec, ParameterSpec
from shared.training.strategy_violations import Problem, brief, unknown_name

MAX_FEATURES = 2000
"""The most features of one timeframe, price context and lags included."""
PRICE_COLUMNS = ("price_return", "price_range", "price_place")
"""What the price context adds to the memberships of a bar."""
_SHOWN = 20
"""Names that are listed in a message."""
_LAG = re.compile(r"_lag\d+$")
_OWN_KEYS = frozenset({"name", "feature_id", "source"})


def indicator_problems(document: dict[str, Any]) -> Iterator[Problem]:
    """Yield what the catalogue says against each indicator."""
    for index, item in enumerate(_list(document.get("indicators"))):
        if not isinstance(item, dict):
            continue
        name = item.get("name")
        if not isinstance(name, str):
            continue  # the shape says so
        if name not in INDICATORS:
            path = ("indicators", index, "name")
            yield path, unknown_name("indicator", name, sorted(INDICATORS))
            continue
        for key, text in _against(item, INDICATORS[name]):
            yield ("indicators", index, key), text


def _against(item: dict[str, Any], spec: IndicatorSpec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with an indicator's parameters, by key."""
    for key in item:
        if key == "source" and not spec.has_source:
            yield key, f"{spec.name} is computed on the whole bar; leave source out."
        elif key not in spec.keys and key not in _OWN_KEYS:
            yield str(key), unknown_name(f"parameter of {spec.name}", key, spec.keys)
    for parameter in spec.parameters:
        if parameter.name in item and (text := _out_of_range(item[parameter.name], parameter)):
            yield parameter.name, text
    if spec.ascending:
        low, high = spec.ascending
        defaults = {parameter.name: parameter.default for parameter in spec.parameters}
        first, second = (item.get(key, defaults[key]) for key in (low, high))
        if _number(first) and _number(second) and first >= second:
            yield (low if low in item else high), f"{low} {first} must be below {high} {second}."


def _out_of_range(value: object, parameter: ParameterSpec) -> str:
    """Say what is wrong with a parameter's value; empty if nothing is."""
    kind = "a whole number" if parameter.whole else "a number"
    wanted = f"must be {kind} from {parameter.lowest:g} to {parameter.highest:g}"
    if _number(value) and not (parameter.whole and isinstance(value, float)):
        return "" if parameter.lowest <= value <= parameter.highest else f"{wanted}, not {value}."
    return f"{wanted}, not {brief(value)}."


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def link_problems(document: dict[str, Any]) -> Iterator[Problem]:
    """Yield where indicators and fuzzy sets do not meet, and clashing feature names."""
    indicators = [i for i in _list(document.get("indicators")) if isinstance(i, dict)]
    ids = [i["feature_id"] for i in indicators if isinstance(i.get("feature_id"), str)]
    shown = [feature_id[:60] for feature_id in dict.fromkeys(ids)]
    shown[_SHOWN:] = ["..."] if len(shown) > _SHOWN else []
    sets = document.get("fuzzy_sets")
    if not isinstance(sets, dict):
        return
    there = frozenset(ids)
    for feature_id in sets:
        if feature_id not in there:
            listed = ", ".join(shown) or "none"
            text = (
                f"fuzzy set for {brief(feature_id)}, but no indicator has that feature_id; "
                f"there are: {listed}."
            )
            yield ("fuzzy_sets", str(feature_id)), text
    yield from _feature_id_problems(document, sets)
    yield from _clashes(sets)
    yield from _too_many(document, sets)


def _feature_id_problems(document: dict[str, Any], sets: dict[str, Any]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, item in enumerate(_list(document.get("indicators"))):
        feature_id = item.get("feature_id") if isinstance(item, dict) else None
        if not isinstance(feature_id, str):
            continue
        path = ("indicators", index, "feature_id")
        if feature_id in seen:
            first = seen[feature_id]
            yield path, f"{brief(feature_id)} is already that of indicators[{first}]; rename one."
        elif feature_id not in sets:
            mend = "add them or leave the indicator out"
            yield path, f"{brief(feature_id)} has no fuzzy sets, so nothing would use it; {mend}."
        elif feature_id == "price":
            yield path, "'price' is kept for the price context; choose another feature_id."
        seen.setdefault(feature_id, index)


def _clashes(sets: dict[str, Any]) -> Iterator[Problem]:
    """Yield fuzzy sets whose feature would have another's name."""
    seen: dict[str, str] = {}
    for feature_id, members in sets.items():
        for name in members if isinstance(members, dict) else ():
            path = ("fuzzy_sets", str(feature_id), str(name))
            column = f"{feature_id}_{name}"
            if _LAG.search(column):
                yield path, "a name that ends in _lag and a number is kept for lags; rename it."
            if column in seen:
                yield path, f"gives the same feature name as {seen[column]}; rename one."
            seen.setdefault(column, f"fuzzy_sets.{feature_id}.{name}")


def _too_many(document: dict[str, Any], sets: dict[str, Any]) -> Iterator[Problem]:
    options: Any = document
    for key in ("model", "features"):
        options = options.get(key) if isinstance(options, dict) else None
    options = options if isinstance(options, dict) else {}
    lags = options.get("lookback_periods")
    lookback = lags if isinstance(lags, int) else 0
    context = len(PRICE_COLUMNS) if options.get("include_price_context") is True else 0
    count = sum(len(members) for members in sets.values() if isinstance(members, dict))
    total = (count + context) * (1 + max(0, lookback))
    if total > MAX_FEATURES:
        beside = f" and {context} columns of the price context" if context else ""
        text = (
            f"{count} fuzzy sets{beside} with {lookback} lags are {total} features a timeframe; "
            f"at most {MAX_FEATURES} are taken. Lower model.features.lookback_periods."
        )
        yield ("fuzzy_sets",), text


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
