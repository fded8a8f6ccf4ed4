from typing import Any

import pytest

from shared.training.strategy_rules import indicator_problems, link_problems


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"indicators": 3, "fuzzy_sets": 3},
        {"indicators": [3, None, {}, {"name": []}, {"name": "rsi", "period": None}]},
        {"fuzzy_sets": {"a": 3, 4: {5: 6}}, "model": {"features": []}},
        {"indicators": [{"name": "ppo", "fast_period": "x", "feature_id": 3}], "fuzzy_sets": {}},
    ],
)
def test_values_of_any_shape_are_looked_at_without_harm(document: dict[str, Any]) -> None:
    problems = [*indicator_problems(document), *link_problems(document)]

    assert all(text for _, text in problems)


def test_a_fast_period_may_stay_the_default() -> None:
    item = {"name": "ppo", "feature_id": "p", "slow_period": 12}

    ((path, text),) = indicator_problems({"indicators": [item]})

    assert ("indicators", 0, "slow_period") == path
    assert "fast_period 12 must be below slow_period 12." == text
