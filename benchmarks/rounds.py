"""Interleaved rounds: what is compared runs side by side, so that noise hits all alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter_ns

Round = Callable[[], Callable[[int], None]]
"""Sets up a round and returns what runs `n` calls of the subject."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure per round: nanoseconds per call, or a ratio of two such."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What is reported."""
        return median(self.rounds)

    @property
    def low(self) -> float:
        """First decile."""
        return quantiles(self.rounds, n=10)[0]

    @property
    def high(self) -> float:
        """Ninth decile."""
        return quantiles(self.rounds, n=10)[-1]

    def __iter__(self) -> Iterator[float]:
        """Median, first and ninth decile: the columns of a table."""
        return iter((self.median, self.low, self.high))

    def over(self, other: Spread) -> Spread:
        """The ratio in each round, whose halves lie moments apart and share their noise."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return Spread(tuple(mine / theirs for mine, theirs in pairs))

    def __format__(self, spec: str) -> str:
        """Median and deciles, as in `1.12 (1.05 to 1.31)`."""
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def measure(
    subjects: Mapping[str, Round],
    *,
    calls: int,
    rounds: int,
    clock: Callable[[], int] = perf_counter_ns,
) -> dict[str, Spread]:
    """Time `calls` calls of every subject in turn, `rounds` times, after one to warm up.

    With `thread_time_ns` as clock it is the processor's time: for what waits for
    nobody, on a machine that has other things to do.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for index in range(rounds + 1):
        for name, set_up in subjects.items():
            run = set_up()
            gc.collect()
            start = clock()
            run(calls)
            if index:
                times[name].append((clock() - start) / calls)
    return {name: Spread(tuple(values)) for name, values in times.items()}


def repeated(call: Callable[[], object]) -> Round:
    """A round that makes one call again and again."""

    def run(calls: int) -> None:
        for _ in range(calls):
            call()

    return lambda: run


def table(spreads: Mapping[str, Spread], *, unit: float, digits: int = 1) -> str:
    """Lines of a name, its median and its deciles, in `unit` nanoseconds."""
    width = max(map(len, spreads)) + 2
    head = f"{'':<{width}}{'median':>10}{'10 %':>10}{'90 %':>10}"
    rows = [
        f"{name:<{width}}" + "".join(f"{value / unit:>10,.{digits}f}" for value in spread)
        for name, spread in spreads.items()
    ]
    return "\n".join([head, *rows])
