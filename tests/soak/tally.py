"""Tallies: what was counted and what was found wrong, from all threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """An invariant that did not hold."""

    invariant: str
    subject: str
    """The operation, the process or the method."""
    what: str


class Tally:
    """Counts by name, and findings; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both fields below
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._findings: Counter[Finding] = Counter()

    def count(self, *name: str) -> None:
        """Count one more of this name."""
        with self._lock:
            self._counts[name] += 1

    def note(self, invariant: str, subject: str, wrong: Iterable[str]) -> None:
        """Take down what is wrong with a subject, if anything is."""
        with self._lock:
            for what in wrong:
                self._findings[Finding(invariant, subject, what)] += 1

    def counts(self, *prefix: str) -> Counter[tuple[str, ...]]:
        """The counts whose names begin so, by the rest of their names."""
        with self._lock:
            return Counter(
                {
                    name[len(prefix) :]: number
                    for name, number in self._counts.items()
                    if name[: len(prefix)] == prefix
                }
            )

    def total(self, *prefix: str) -> int:
        """The sum of the counts whose names begin so."""
        return self.counts(*prefix).total()

    @property
    def findings(self) -> list[Finding]:
        """What was found wrong, each once, in the order in which it was found."""
        with self._lock:
            return list(self._findings)
