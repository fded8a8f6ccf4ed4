"""How the default of OPERATIONS_CACHE_TTL was chosen: hit rate and staleness against the TTL.

python -m benchmarks.ttl                 a table; exit 1 if a target is missed
python -m benchmarks.ttl --picture FILE  the same, and the curves as PNG

The service itself answers, over a clock that is moved on from one question to the
next, so that ten minutes of watching take a second. Each watcher asks at its own
interval, a tenth more or less. A hit is an answer for which nothing was read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heapify, heapreplace
from pathlib import Path
from random import Random
from statistics import quantiles

from benchmarks.quiet_host import RestingLaunch
from benchmarks.targets import Target, exit_code, judged
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import OperationType, Owner
from shared.operations.service import OperationsLimits, OperationsService
from shared.operations.starts import NewOperation
from shared.settings import ProcessSettings

TTLS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
WATCHED = 600.0
"""Seconds, of the clock that is moved on."""
WANTED = 0.9
"""Hit rate that the default has to exceed with the team."""
COMMAND, PAGE, SCRIPT = 0.5, 1.0, 2.0
"""Seconds between two questions of `ktrdr operations watch`, of a page, of a script."""
ALONE, TEAM, CROWD = "one command", "a team", "a crowd"
WATCHERS: Mapping[str, Sequence[float]] = {
    ALONE: [COMMAND],
    TEAM: [COMMAND] * 4 + [PAGE] * 4 + [SCRIPT],
    CROWD: [COMMAND] * 20 + [PAGE] * 60 + [SCRIPT] * 20,
}
"""Intervals of those who watch one operation."""
DEFAULT: float = ProcessSettings.model_fields["cache_ttl"].default


class MovedClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        """Seconds since it began."""
        return self.at

    def now(self) -> datetime:
        """The wall time that belongs to it."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.at)


@dataclass(frozen=True, slots=True)
class Watched:
    """What watchers got with one TTL."""

    hit_rate: float
    mean: float
    """Seconds that an answer was old."""
    p95: float
    oldest: float


def watch(intervals: Sequence[float], ttl: float) -> Watched:
    """Let watchers with these intervals watch one operation."""
    clock, chance = MovedClock(), Random(7)  # noqa: S311  # no secret
    operations = OperationsService(
        MemoryOperationStore(),
        Owner("here", "now", ""),
        limits=OperationsLimits(cache_ttl=ttl),
        clock=clock,
    )
    new = NewOperation("op", "op", OperationType.TRAINING, "", {})
    operations.start_operation(new, RestingLaunch(operations))
    due = [(chance.uniform(0, interval), interval) for interval in intervals]
    heapify(due)
    ages, hits = [], 0
    while due[0][0] < WATCHED:
        clock.at, interval = due[0]
        freshness = operations.get_operation("op").freshness
        ages.append(freshness.age)
        hits += freshness.cached
        heapreplace(due, (clock.at + interval * chance.uniform(0.9, 1.1), interval))
    return Watched(hits / len(ages), sum(ages) / len(ages), quantiles(ages, n=20)[-1], max(ages))


def draw(curves: Mapping[str, Sequence[Watched]], file: Path) -> None:
    """Draw hit rates and the team's staleness against the TTL."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams |= {"font.size": 10}
    from matplotlib import pyplot as plt

    figure, (rates, ages) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    figure.patch.set_facecolor("white")  # readable on a dark page as well
    for name, watched in curves.items():
        label = f"{name}, {len(WATCHERS[name])} watching"
        rates.plot(TTLS, [100 * each.hit_rate for each in watched], "o-", ms=3, label=label)
    rates.axhline(100 * WANTED, color="gray", lw=0.8, ls=":")
    rates.set(ylabel="answers from the cache, %", ylim=(0, 101))
    rates.legend(loc="lower right", frameon=False)
    ages.plot(TTLS, [each.p95 for each in curves[TEAM]], "o-", ms=3, label="95 %")
    ages.plot(TTLS, [each.mean for each in curves[TEAM]], "o-", ms=3, label="mean")
    ages.set(ylabel="age of the team's answers, s")
    ages.legend(loc="upper left", frameon=False)
    for axes in (rates, ages):
        axes.axvline(DEFAULT, color="gray", lw=0.8, ls="--")
        axes.set(xlabel="OPERATIONS_CACHE_TTL, s; dashed: the default", xscale="log")
        axes.set_xticks(TTLS, [f"{ttl:g}" for ttl in TTLS])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="Hit rate and staleness against the TTL.")
    parser.add_argument("--picture", type=Path, help="draw the curves into this file")
    picture = parser.parse_args().picture
    curves = {name: [watch(who, ttl) for ttl in TTLS] for name, who in WATCHERS.items()}
    heads = "".join(f"{f'{name}, {len(WATCHERS[name])}':>18}" for name in WATCHERS)
    print("Answers from the cache, and the age of the team's answers in seconds\n")
    print(f"{'TTL':<8}{heads}{'mean':>10}{'95 %':>10}")
    for place, ttl in enumerate(TTLS):
        rates = "".join(f"{curves[name][place].hit_rate:>18.1%}" for name in WATCHERS)
        team = curves[TEAM][place]
        mark = "  the default" if ttl == DEFAULT else ""
        print(f"{f'{ttl:g} s':<8}{rates}{team.mean:>10.2f}{team.p95:>10.2f}{mark}")
    if picture is not None:
        draw(curves, picture)
    return exit_code(judged(targets(curves[TEAM])))


def targets(team: Sequence[Watched]) -> list[Target]:
    """The default is the first of these TTLs with which the team hits often enough."""
    chosen = team[TTLS.index(DEFAULT)]
    enough = [ttl for ttl, each in zip(TTLS, team, strict=True) if each.hit_rate > WANTED]
    first = f"{enough[0]:g} s" if enough else "none will"
    return [
        Target(
            f"with the default of {DEFAULT:g} s a team's hit rate is above {WANTED:.0%}",
            chosen.hit_rate > WANTED,
            f"{chosen.hit_rate:.1%}",
        ),
        Target("no smaller one of these will do", enough[:1] == [DEFAULT], first),
        Target("no answer is older than it", chosen.oldest <= DEFAULT, f"{chosen.oldest:.3f} s"),
    ]


if __name__ == "__main__":
    sys.exit(main())
