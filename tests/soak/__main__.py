"""`python -m tests.soak`: everything at once for minutes; exit code 1 if anything did not hold.

`SOAK_SECONDS` says for how long, `SOAK_SEED` what happens.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.report import report
from tests.soak.schedule import SEED
from tests.soak.soak import run_soak

SECONDS = 180


def main() -> int:
    """Run one soak and print its report."""
    seconds, seed = _number("SOAK_SECONDS", SECONDS, least=20), _number("SOAK_SEED", SEED, least=0)
    _forget_settings()
    home = Path(tempfile.mkdtemp(prefix="ktrdr-soak-"))
    print(f"Soaking for {seconds} s with seed {seed}; files are in {home}", flush=True)
    outcome = run_soak(seed, seconds, home)
    told = report(outcome)
    print(told)
    if outcome.tally.findings:
        (home / "report.txt").write_text(told, "utf-8")
        print(f"The logs are kept in {home}; SOAK_SEED={seed} draws the same schedule again.")
        return 1
    shutil.rmtree(home)
    return 0


def _number(name: str, default: int, *, least: int) -> int:
    """Read a variable; ends the program with a sentence if it is of no use."""
    text = os.environ.get(name, "") or str(default)
    if not text.isdecimal() or int(text) < least:
        sys.exit(f"{name}: must be a whole number of at least {least} (got {text!r})")
    return int(text)


def _forget_settings() -> None:
    """Settings of whoever runs it must not reach the processes."""
    for name in list(os.environ):
        if name.startswith("KTRDR_") or name in {
            "OPERATIONS_CACHE_TTL",
            "TRAINING_HOST_SERVICE_URL",
            "IB_HOST_SERVICE_URL",
        }:
            del os.environ[name]


if __name__ == "__main__":
    sys.exit(main())
