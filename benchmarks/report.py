"""The report of a run of benchmarks: what was measured, where, when and under which load."""

from __future__ import annotations

import ast
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic

from benchmarks.targets import ABSENT, MISS, PASS

SHOWN = ("grpcio", "protobuf", "SQLAlchemy", "torch")
RIVALS = (
    "fastapi",
    "uvicorn",
    "httpx",
    "tqdm",
    "prometheus_client",
    "mlflow-skinny",
    "celery",
)
INTRODUCTION = """\
# Performance

What ktrdr costs, as measured in one run of `make bench`. Nothing here is typed by hand: the run
writes this page, `make bench REPORT=docs/performance.md`, and a miss stays in it as a miss.

Absolute times are those of one machine on one day. What is judged are ratios: whatever is compared
runs side by side in interleaved rounds, so that noise hits all alike. A ratio with brackets is
taken within each round; what is judged is the median of all rounds, in brackets are the first and
the ninth decile. A ratio without them, of isolation, of overload and of the clients of growth, is
that of two figures over all rounds, unless its row says otherwise.
The rivals' versions are pinned; what they do stands in [benchmarks/rivals](../benchmarks/rivals).
"""
REPEATING = """\
## How to repeat it

```sh
make bench                              # all of it, about ten minutes; exit 1 on a miss
make bench ONLY="bridge remote"         # some of it
make bench REPORT=docs/performance.md   # all of it, and this page
```

The rivals are installed beside `.venv`, in `.venv-bench`; ktrdr does not need them. Without them
the rows that need them say ABSENT, which is a miss as well. So is a benchmark that ends without a
row.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one benchmark printed."""

    name: str
    text: str
    rows: tuple[str, ...]
    """The lines that judge."""
    seconds: float
    load: float
    """Processes that wanted a processor, over the last minute, when it had ended."""


def now() -> datetime:
    """The time at the beginning of a run."""
    return datetime.now(UTC)


def run(name: str, options: Sequence[str]) -> Outcome:
    """Run one benchmark and show what it prints.

    If this process is told to end meanwhile, so is the benchmark, with what it has started.
    """
    print(f"\n===== {name}\n", flush=True)
    began, lines = monotonic(), list[str]()
    process = subprocess.Popen(  # noqa: S603  # our own module
        [sys.executable, "-u", "-m", f"benchmarks.{name}", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    except SystemExit:
        process.send_signal(signal.SIGINT)  # as from a terminal, which tells it itself
        raise
    finally:
        code = process.wait()
    rows = tuple(line for line in lines if line.startswith((f"{PASS} ", f"{MISS} ", f"{ABSENT} ")))
    rows += unjudged(name, code, rows)
    return Outcome(name, "\n".join(lines).strip(), rows, monotonic() - began, os.getloadavg()[0])


def unjudged(name: str, code: int, rows: Sequence[str]) -> tuple[str, ...]:
    """A row that says that a benchmark did not do what it should, if it did not."""
    well = all(row.startswith(PASS) for row in rows)
    if rows and code == (0 if well else 1):
        return ()
    row = f"{MISS}  benchmarks.{name} ended with code {code} after {len(rows)} judgements"
    print(row)
    return (row,)


def report_of(outcomes: Sequence[Outcome], began: datetime, picture: str) -> str:
    """The page."""
    parts = [INTRODUCTION, _circumstances(outcomes, began), _in_short(outcomes)]
    parts += [_section(outcome, picture) for outcome in outcomes]
    return "\n".join([*parts, REPEATING])


def _circumstances(outcomes: Sequence[Outcome], began: datetime) -> str:
    loads = [outcome.load for outcome in outcomes]
    load = f"{min(loads):.1f} to {max(loads):.1f}"
    rows = {
        "date": f"{began:%Y-%m-%d, %H:%M} UTC",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "load": f"{load} processes at once wanted a processor, this run's among them",
        "libraries": _versions(SHOWN),
        "rivals": _versions(RIVALS),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items()), ""])


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _versions(names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _in_short(outcomes: Sequence[Outcome]) -> str:
    lines = ["## In short", "", "| benchmark | target | measured | |", "|---|---|---|---|"]
    for outcome in outcomes:
        for row in outcome.rows:
            verdict, _, rest = row.partition("  ")
            wanted, _, figure = rest.rpartition(": ")
            shown = verdict if verdict == PASS else f"**{verdict}**"
            lines.append(f"| {outcome.name} | {wanted or rest} | {figure} | {shown} |")
    return "\n".join([*lines, ""])


def _section(outcome: Outcome, picture: str) -> str:
    source = Path(__file__).with_name(f"{outcome.name}.py").read_text("utf-8")
    about = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")
    first, rest = about[0].strip(), " ".join(part.strip() for part in about[2:])
    body = [f"## {outcome.name}", "", first, "", *([rest, ""] if rest else [])]
    if outcome.name == "ttl":
        body += [f"![Hit rate and staleness against the TTL]({picture})", ""]
    body += ["```text", outcome.text, "```", ""]
    body.append(f"Took {outcome.seconds:.0f} s; load at its end {outcome.load:.1f}.")
    return "\n".join([*body, ""])
