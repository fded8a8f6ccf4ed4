"""Interleaved rounds: what is compared runs side by side, so that noise hits all alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from time import perf_counter_ns
from typing import NamedTuple

Round = Callable[[], Callable[[int], None]]
"""Sets up a round and returns what runs `n` calls of the subject."""


class Spread(NamedTuple):
    """Nanoseconds per call over all rounds."""

    median: float
    low: float
    """First decile."""
    high: float
    """Ninth decile."""


def measure(subjects: Mapping[str, Round], *, calls: int, rounds: int) -> dict[str, Spread]:
    """Time `calls` calls of every subject in turn, `rounds` times, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for index in range(rounds + 1):
        for name, set_up in subjects.items():
            run = set_up()
            gc.collect()
            start = perf_counter_ns()
            run(calls)
            if index:
                times[name].append((perf_counter_ns() - start) / calls)
    return {name: _spread(values) for name, values in times.items()}


def _spread(values: list[float]) -> Spread:
    deciles = quantiles(values, n=10)
    return Spread(median(values), deciles[0], deciles[-1])
