from contextlib import suppress
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rpc.limits import RequestLimits
from shared.training.strategy_yaml import YamlTextError, read_yaml

LIMITS = RequestLimits()
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{this}: &{this} [{','.join([f'*{before}'] * 9)}]\n"
    for before, this in zip("abcdefg", "bcdefgh", strict=True)
)
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
