"""Targets: what a measurement has to show, and a line that says whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PASS, MISS, ABSENT = "PASS", "MISS", "ABSENT"
"""How the lines begin; ABSENT is a rival that is not installed, and as bad as a miss."""


class Target(NamedTuple):
    """One row that is judged."""

    wanted: str
    met: bool
    figure: str


def judged(targets: Sequence[Target], absent: Sequence[str] = ()) -> bool:
    """Print a line for each target and each rival that is missing; whether all is well."""
    print()
    for target in targets:
        print(f"{PASS if target.met else MISS}  {target.wanted}: {target.figure}")
    for rival in absent:
        print(f"{ABSENT}  {rival} is not installed, so nothing was compared with it: make bench")
    return not absent and all(target.met for target in targets)


def exit_code(well: bool) -> int:
    """0 if all is well, else 1."""
    return 0 if well else 1
