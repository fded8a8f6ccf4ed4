"""How much is fuzzed: the same few examples each time, or many new ones with FUZZ_FACTOR."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
"""Examples are so many times as many; from 2 on, other ones at each run."""


def examples(count: int) -> settings:
    """Settings of a fuzzing test that tries `count` examples, times FACTOR."""
    alone = FACTOR == 1
    return settings(
        max_examples=count * FACTOR,
        derandomize=alone,
        database=None,
        deadline=None,
        print_blob=True,
        # What fails is shrunk only on demand: over the wire that takes a while.
        phases=[Phase.explicit, Phase.generate, *([] if alone else [Phase.shrink])],
        suppress_health_check=list(HealthCheck),
    )
