"""Whatever a strategy's text holds, it is taken or refused by field, soon and at little cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from time import thread_time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shared.rpc.errors import InvalidArgumentError
from shared.training.strategy import load_strategy
from tests.support.fuzz_values import HOSTILE, MEANT, SMALL, VALUES, mutated_yaml
from tests.support.fuzzing import examples

AT_ONCE = 0.2
"""Seconds of the processor that need no comparison; most texts take milliseconds."""
SOON = 4.0
"""Times what PyYAML's parser in C takes for a plain list of as many bytes as a text may have."""
PLAIN = "a: [" + "1," * 125_000 + "]"
MODEST = 60 * 1024 * 1024
"""Bytes that reading a text may take for a moment."""
NAMES = [f"{'a' * 50}{number}" for number in range(1200)]
BOMBS: Mapping[str, str] = {
    "a number in base 16": SMALL.replace("epochs: 10", f"epochs: 0x{'f' * 5000}"),
    "a number in base 60": SMALL.replace("epochs: 10", "epochs: " + ":".join("1" * 120_000)),
    "a fraction in base 60": SMALL.replace("epochs: 10", "epochs: " + ":".join("1" * 999) + ".5"),
    "a list": PLAIN,
    "a mapping": "".join(f"{key:x}: 1\n" for key in range(25_000)),
    "unknown keys": "".join(f"{key:x}: 1\n" for key in range(4_900)),
    "brackets": "[" * 260_000,
    "braces": "{" * 260_000,
    "dashes": "- " * 130_000,
    "escapes": '"' + "\\x41" * 60_000 + '"',
    "anchors": "".join(f"a{key}: &a{key} 1\n" for key in range(15_000)),
    "aliases": "a: &a 1\nb: [" + "*a," * 80_000 + "]",
    "a long text many times": f"a: &a {'x' * 100_000}\nb: [" + "*a," * 9_000 + "]",
    "documents": "---\n" * 65_000,
    "directives": "%YAML 1.1\n" * 20_000,
    "comments": "#\n" * 130_000,
    "tags": "!!str " * 40_000,
    "many names that do not meet": SMALL.replace(
        "indicators:\n",
        "indicators:\n" + "".join(f"  - {{name: rsi, feature_id: {name}}}\n" for name in NAMES),
    ).replace(
        "fuzzy_sets:\n",
        "fuzzy_sets:\n" + "".join(f"  x{name}: {{a: {{type: x}}}}\n" for name in NAMES),
    ),
}


def plain_list() -> float:
    """What a plain list costs on this machine at this moment, in seconds of the processor."""
    began = thread_time()
    assert len(yaml.load(PLAIN, yaml.CSafeLoader)["a"]) == 125_000
    return thread_time() - began


def refusal(text: str, overrides: Mapping[str, str] | None = None) -> InvalidArgumentError | None:
    """Read a text; return why it is refused, or None if it is taken and survives writing."""
    began = thread_time()
    try:
        strategy = load_strategy(text, overrides)
    except InvalidArgumentError as error:
        return error
    finally:
        took = thread_time() - began
        assert took < AT_ONCE or took < SOON * plain_list()
    assert strategy == load_strategy(strategy.to_yaml())
    return None


def fields(refused: InvalidArgumentError | None) -> list[str]:
    """The fields that are named."""
    assert refused is not None
    assert len(refused.message) < 100_000
    return [violation.field for violation in refused.violations]


@pytest.mark.parametrize("name", BOMBS)
def test_a_text_that_is_meant_to_cost_much_costs_little(name: str) -> None:
    assert fields(refusal(BOMBS[name]))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgumentError):
            load_strategy(BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < MODEST
    finally:
        tracemalloc.stop()


def test_overrides_that_are_meant_to_cost_much_cost_little() -> None:
    many = {f"decisions.a{number}": "[" + "1," * 400 + "]" for number in range(100)}
    refused = refusal(SMALL, many)
    assert ["strategy_yaml"] == fields(refused)
    assert "in full, with its overrides" in str(refused)
    assert len(many) > len(fields(refusal(SMALL, dict.fromkeys(many, f"0x{'f' * 2000}"))))


def test_a_strategy_that_would_be_too_long_once_written_is_refused() -> None:
    deep = "[" * 15 + "1," * 9_000 + "]" * 15
    assert ["strategy_yaml"] == fields(refusal(f"{SMALL}\ndecisions: {{a: {deep}}}\n"))


@examples(300)
@given(text=mutated_yaml())
def test_a_mutated_strategy_is_taken_or_refused_by_field(text: str) -> None:
    refused = refusal(text)
    assert refused is None or fields(refused)


@examples(150)
@given(overrides=st.dictionaries(MEANT["key"] | HOSTILE, st.sampled_from(VALUES) | HOSTILE))
def test_any_overrides_are_taken_or_refused_by_field(overrides: Mapping[str, str]) -> None:
    refused = refusal(SMALL, overrides)
    assert refused is None or fields(refused)


@examples(150)
@given(text=st.one_of(HOSTILE, st.text(st.characters(), max_size=80)))
def test_any_text_is_refused_by_field(text: str) -> None:
    assert fields(refusal(text))


@pytest.mark.parametrize("coding", ["utf-16", "latin-1", "utf-7"])
def test_a_text_in_another_coding_is_refused_or_read_as_it_stands(coding: str) -> None:
    refused = refusal(SMALL.replace("RSI", "RSÍ").encode(coding).decode("latin-1"))
    assert refused is None or ["strategy_yaml"] == fields(refused)


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert refusal(f"\ufeff{SMALL}") is None
