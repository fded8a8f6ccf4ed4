from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from benchmarks.isolation import ALONE, FRESH, FROZEN, HEALTHY, UNREACHABLE, Part, targets

QUICK = [1000, 1000]


def parts(**frozen: int) -> Mapping[str, Part]:
    return {
        ALONE: Part(QUICK),
        FROZEN: Part(QUICK, Counter(frozen)),
        HEALTHY: Part(QUICK, Counter({FRESH: 4})),
    }


def test_a_frozen_host_that_is_felt_by_who_polls_it_meets_the_targets() -> None:
    assert [True, True] == [
        target.met for target in targets(parts(**{UNREACHABLE: 2, "REFRESH_BUSY": 3}))
    ]


@pytest.mark.parametrize("outcomes", [{}, {"REFRESH_BUSY": 3}, {UNREACHABLE: 2, FRESH: 1}])
def test_a_host_that_was_not_frozen_is_a_miss(outcomes: Mapping[str, int]) -> None:
    assert [True, False] == [target.met for target in targets(parts(**outcomes))]
