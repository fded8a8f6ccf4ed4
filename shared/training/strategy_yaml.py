"""Strategy text: YAML in, plain values out, with every bound kept.

Knows YAML, not strategies. Untrusted text costs at most its size: duplicate
keys, deep nesting and aliases that unfold into much more are refused.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import yaml

from shared.rpc.limits import RequestLimits

_LIMITS = RequestLimits()
MAX_DEPTH = 20
"""Levels to which a text may nest, and parts that a path into it may have."""
_MAX_NODES = 10_000
_MAX_DIGITS = 100
"""The longest number: in some bases a long one takes seconds to read and cannot be shown."""
_YAML = "tag:yaml.org,2002:"
_MERGE = f"{_YAML}merge"
_NUMBERS = frozenset({"int", "float"})
_TEXTS = frozenset({"str", "binary", "merge", "value"})
_SCALARS = _NUMBERS | _TEXTS | {"bool", "null", "timestamp"}
"""Tags of plain values; PyYAML knows more, which no strategy has a use for."""

# libyaml's loader when PyYAML was built with it: ten times faster, same results.
if TYPE_CHECKING:
    _SafeLoader = yaml.SafeLoader
else:
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlTextError(Exception):
    """The text is not YAML that may be read; the message says where and why."""


class _Loader(_SafeLoader):
    """Safe YAML in which a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key_node.value[:60]!r} stands here a second time",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key_node.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def read_yaml(
    text: str, most_bytes: int = _LIMITS.strategy_bytes, most_nodes: int = _MAX_NODES
) -> object:
    """Return what a text of at most so many bytes in UTF-8 and so many values says.

    Raises YamlTextError, with line and column if known.
    """
    if len(text.encode("utf-8", "replace")) > most_bytes:
        raise YamlTextError(f"longer than {most_bytes // 1024} KiB; shorten it.")
    try:
        _refuse_deep(text, most_nodes)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            nodes, letters = _Unfolding(loader).measure(node)
            if nodes > most_nodes:
                raise _too_many(most_nodes)
            if letters > most_bytes:
                raise YamlTextError(f"stands for more than {most_bytes // 1024} KiB; shorten it.")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise YamlTextError(_place(error)) from error
    except (ValueError, OverflowError) as error:  # a number or a date that Python cannot hold
        raise YamlTextError(f"a value cannot be read: {str(error)[:200]}.") from error


def _too_many(nodes: int) -> YamlTextError:
    return YamlTextError(f"stands for more than {nodes} values; shorten it.")


def _refuse_deep(text: str, most_nodes: int) -> None:
    """Bound depth and length before anything is built of it or recurses over it."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        nodes += isinstance(event, yaml.NodeEvent)
        if nodes > most_nodes:
            raise _too_many(most_nodes)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise YamlTextError(f"line {line}: nested deeper than {MAX_DEPTH} levels.")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Unfolding:
    """Measures what a text stands for once its aliases are unfolded; refuses odd values."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._measured: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()

    def measure(self, node: yaml.Node) -> tuple[int, int]:
        """The values and the letters of a node and all below it."""
        key = id(node)
        if key in self._open:
            raise _refused(node, "an alias contains itself")
        if key not in self._measured:
            _refuse_odd(node, self._loader)
            self._open.add(key)
            parts = [self.measure(child) for child in _children(node)]
            self._open.discard(key)
            own = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
            self._measured[key] = (
                1 + sum(nodes for nodes, _ in parts),
                own + sum(letters for _, letters in parts),
            )
        return self._measured[key]


def _refuse_odd(node: yaml.Node, loader: _Loader) -> None:
    """Refuse what PyYAML would stumble over, or work on for longer than the text is long."""
    tag = node.tag.removeprefix(_YAML)
    if isinstance(node, yaml.CollectionNode):
        kind, own = ("mapping", "map") if isinstance(node, yaml.MappingNode) else ("list", "seq")
        if tag != own:
            raise _refused(node, f"a {kind} cannot be a {tag[:60]}")
        return
    if tag not in _SCALARS:
        raise _refused(node, f"a plain value cannot be a {tag[:60]}")
    if tag in _NUMBERS and len(node.value) > _MAX_DIGITS:
        raise _refused(node, f"a number of {len(node.value)} signs")
    seen = _implied_tag(node.value, loader)
    if tag not in _TEXTS and seen != tag and not {seen, tag} <= _NUMBERS:
        raise _refused(node, f"{node.value[:60]!r} is no {tag}")


def _implied_tag(text: str, loader: _Loader) -> str:
    """The tag that a plain value has by itself."""
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # PyYAML's
    return tag.removeprefix(_YAML)


def _refused(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _place(error: yaml.YAMLError) -> str:
    """Say where and why, counting lines and columns from 1."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    reason = f"{problem} ({context})" if context else str(problem)
    if mark is None:
        return f"{reason[:300]}."
    return f"line {mark.line + 1}, column {mark.column + 1}: {reason[:300]}."
