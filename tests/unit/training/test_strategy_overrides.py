import pytest

from shared.rpc.limits import RequestLimits
from shared.training.strategy_overrides import apply_overrides

LIMITS = RequestLimits()


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
