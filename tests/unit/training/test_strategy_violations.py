import pytest

from shared.rpc.errors import FieldViolation
from shared.training.strategy_violations import brief, strategy_field, unknown_name, violations_of


def test_a_field_is_a_dotted_path_with_indexes() -> None:
    assert "strategy_yaml.indicators[1].period" == strategy_field(("indicators", 1, "period"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, "3"),
        ("abc", "'abc'"),
        ({"a": 1}, "a mapping of 1"),
        ([1, 2], "a list of 2"),
        ("x" * 100, f"'{'x' * 60}'..."),
    ],
)
def test_values_are_shown_briefly(value: object, expected: str) -> None:
    assert expected == brief(value)


def test_an_unknown_name_without_a_near_one_only_lists_the_known() -> None:
    assert "unknown key 'zzz'. Known: a, b." == unknown_name("key", "zzz", ["a", "b"])
    assert "unknown key 'zzz'. Known: none." == unknown_name("key", "zzz", [])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b", FieldViolation('overrides["a.b"]', "bad.")),
        ("a", FieldViolation('overrides["a"]', "b: bad.")),
        ("a.b.c", FieldViolation('overrides["a.b.c"]', "bad.")),
        ("a.bc", FieldViolation("strategy_yaml.a.b", "bad.")),
    ],
)
def test_a_problem_belongs_to_the_override_that_put_it_there(
    override: str, expected: FieldViolation
) -> None:
    assert [expected] == violations_of([(("a", "b"), "bad.")], {override: "1"})
