from __future__ import annotations

from collections.abc import Callable
from itertools import count

from benchmarks.rounds import Spread, measure


def test_a_ratio_is_taken_within_each_round() -> None:
    """A round that was slow for both says nothing about either."""
    ratio = Spread((2.0, 20.0, 4.0)).over(Spread((1.0, 10.0, 4.0)))

    assert (2.0, 2.0, 1.0) == ratio.rounds
    assert 2.0 == ratio.median


def test_subjects_take_turns_and_the_first_round_does_not_count() -> None:
    called: list[str] = []
    ticks = count(0, 1000)

    def subject(name: str) -> Callable[[], Callable[[int], None]]:
        return lambda: lambda calls: called.extend([name] * calls)

    subjects = {"a": subject("a"), "b": subject("b")}
    spreads = measure(subjects, calls=2, rounds=2, clock=lambda: next(ticks))

    assert list("aabb" * 3) == called
    assert {"a": (500.0, 500.0), "b": (500.0, 500.0)} == {
        name: spread.rounds for name, spread in spreads.items()
    }
