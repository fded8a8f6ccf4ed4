"""Runs all benchmarks, each in a process of its own, and writes the report.

python -m benchmarks                     all; exit 1 if one misses a target
python -m benchmarks bridge remote       these
python -m benchmarks --report FILE.md    all, and the report of what was measured

A benchmark that ends without having judged anything counts as a miss.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.report import Outcome, now, report_of, run
from benchmarks.targets import PASS, exit_code

NAMES = (
    "bridge",
    "remote",
    "http",
    "ttl",
    "isolation",
    "overload",
    "interference",
    "growth",
    "monitoring",
    "store",
    "bars",
    "epoch",
    "help",
)
PICTURE = "performance-ttl.png"


def main() -> int:
    """Run, print, and write the report if asked; 1 if anything was missed."""
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--report", type=Path, help="write the report into this file")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, _end)
    # What is ignored here benchmarks would ignore as well, and they are ended with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = now()
    outcomes: list[Outcome] = []
    for name in arguments.names or NAMES:
        options = []
        if name == "ttl" and arguments.report:
            options = ["--picture", str(arguments.report.with_name(PICTURE))]
        outcomes.append(run(name, options))
    if arguments.report:
        arguments.report.write_text(report_of(outcomes, began, PICTURE), "utf-8")
    missed = [row for outcome in outcomes for row in outcome.rows if not row.startswith(PASS)]
    total = sum(len(outcome.rows) for outcome in outcomes)
    print(f"\n{total - len(missed)} of {total} targets met", *missed, sep="\n")
    return exit_code(not missed)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
