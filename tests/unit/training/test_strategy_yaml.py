from contextlib import suppress
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rpc.limits import RequestLimits
from shared.training.strategy_yaml import (
    YamlTextError,
    apply_overrides,
    read_yaml,
)

LIMITS = RequestLimits()
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{this}: &{this} [{','.join([f'*{before}'] * 9)}]\n"
    for before, this in zip("abcdefg", "bcdefgh", strict=True)
)
MERGE = RequestLimits()
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{this}: &{this} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, this in zip("abcdefg", "bcdefgh", strict=True)
)


def test_plain_values_are_read() -> None:
    text = "a: 1\nb: [x, 2.5, true]\nc: &c {d: null}\ne: *c\n"

    assert {"a": 1, "b": ["x", 2.5, True], "c": {"d": None}, "e": {"d": None}} == read_yaml(text)


def test_nothing_reads_as_none() -> None:
    assert read_yaml("") is None


def test_merge_keys_are_understood() -> None:
    text = "a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}\n"

    assert {"x": 1, "y": 2} == read_yaml(text)["b"]  # type: ignore[index]  # a mapping, as asserted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: }", "line 2, column 2: did not find expected ',' or ']'"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' stands here a second time"),
        ("x: {y: 1, y: 2}", "line 1, column 11: the key 'y' stands here a second time"),
        ("a: &a [*a]", "line 1, column 4: an alias contains itself"),
        ("[" * 30, "line 1: nested deeper than 20 levels"),
        (BOMB, "stands for more than 10000 values"),
        (MERGE_BOMB, "stands for more than 10000 values"),
        ("a: 2001-99-99", "a value cannot be read: month must be in 1..12"),
        ("a: " + "9" * 10_000, "a number of 10000 signs"),
        ("a: \x00", "control characters are not allowed"),
        ("? [a, b]\n: 1", "line 1, column 3: found unhashable key"),
        ("a: !!python/object:os.system {}", "a mapping cannot be a python/object:os.system"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("x" * (LIMITS.strategy_bytes + 1), "longer than 256 KiB"),
        ("a: 0x" + "f" * 5000, "line 1, column 4: a number of 5002 signs"),
        ("a: 0b" + "1" * 20_000, "a number of 20002 signs"),
        ("a: 0" + "7" * 6000, "a number of 6001 signs"),
        ("a: " + ":".join("1" * 120_000), "a number of 239999 signs"),
        ("a: " + ":".join("1" * 3000) + ".5", "a number of 6001 signs"),
        ("a: !!timestamp x", "line 1, column 4: 'x' is no timestamp"),
        ("a: !!bool x", "'x' is no bool"),
        ("a: !!int ''", "'' is no int"),
        ("a: !!float x", "'x' is no float"),
        ("a: !!null x", "'x' is no null"),
        ("a: !!map [1]", "a list cannot be a map"),
        ("a: !!seq {b: 1}", "a mapping cannot be a seq"),
        ("a: !!set {b, c}", "a mapping cannot be a set"),
        ("a: !!omap [b: 1]", "a list cannot be a omap"),
        ("a: !!binary aGV", "failed to decode base64 data"),
        ("a: !!binary é", "line 1, column 4: failed to convert base64 data into ascii"),
        (f"a: &a {'x' * 10_000}\nb: [{'*a,' * 50}]", "stands for more than 256 KiB"),
        ("a: !foo b", "a plain value cannot be a !foo"),
        ("!!bool x: 1", "'x' is no bool"),
        ("a: [" + "1," * 20_000 + "]", "stands for more than 10000 values"),
    ],
)
def test_what_may_not_be_read_says_where_and_why(text: str, message: str) -> None:
    with pytest.raises(YamlTextError) as caught:
        read_yaml(text)

    assert message in str(caught.value)


@given(text=st.text(alphabet="ab:-[]{}&*<>!|'\"\\\n \t#?,1.", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(YamlTextError):
        read_yaml(text)


def test_overrides_replace_along_their_path_only() -> None:
    document = {"a": {"b": 1, "c": [10, {"d": 2}]}, "e": 3}

    changed, violations = apply_overrides(document, {"a.c.1.d": "5", "a.b": "[x, y]"})

    assert [] == violations
    assert {"a": {"b": ["x", "y"], "c": [10, {"d": 5}]}, "e": 3} == changed
    assert {"a": {"b": 1, "c": [10, {"d": 2}]}, "e": 3} == document


def test_mappings_on_the_way_are_made() -> None:
    assert {"a": {"b": {"c": 1}}} == apply_overrides({"a": None}, {"a.b.c": "1"})[0]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("a.7", "1", "'7' is not an item of a list of 2; write an index, counted from 0."),
        ("a.x", "1", "'x' is not an item of a list of 2; write an index, counted from 0."),
        ("a.²", "1", "'²' is not an item of a list of 2; write an index, counted from 0."),
        ("b.c", "1", "there is nothing below a plain value, so no 'c'."),
        ("", "1", "write a path like model.training.epochs, without empty parts."),
        ("c..d", "1", "write a path like model.training.epochs, without empty parts."),
        (".".join("x" * 30), "1", "deeper than 20 levels."),
        ("c", "[1", "line 2, column 1: did not find"),
    ],
)
def test_an_override_that_fits_nowhere_is_named(path: str, value: str, message: str) -> None:
    _, (violation,) = apply_overrides({"a": [1, 2], "b": 3}, {path: value})

    assert f'overrides["{path}"]' == violation.field
    assert message in violation.description


def test_too_many_overrides_are_refused_at_once() -> None:
    many = {f"a{number}": "1" for number in range(LIMITS.overrides + 1)}

    document, (violation,) = apply_overrides({}, many)

    assert {} == document
    assert "overrides" == violation.field


def test_overrides_share_the_bytes_of_a_strategy() -> None:
    many = {f"a{number}": "x" * 3000 for number in range(100)}

    document, (violation,) = apply_overrides({}, many)

    assert {} == document
    assert "overrides" == violation.field
    assert "more than 256 KiB together" in violation.description


def test_an_override_is_a_value_not_a_document() -> None:
    _, (violation,) = apply_overrides({}, {"a": "[" + "1," * 600 + "]"})

    assert 'overrides["a"]' == violation.field
    assert "stands for more than 500 values" in violation.description


@pytest.mark.parametrize("tag", ["str", "int", "float", "bool", "null", "timestamp"])
def test_tags_that_say_what_a_value_is_are_understood(tag: str) -> None:
    values = {
        "str": ("5", "5"),
        "int": ("5", 5),
        "float": ("5.0", 5.0),
        "bool": ("yes", True),
        "null": ("~", None),
        "timestamp": ("2001-01-01", date(2001, 1, 1)),
    }
    text, value = values[tag]

    assert {"a": value} == read_yaml(f"a: !!{tag} {text}")
