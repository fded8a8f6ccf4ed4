"""How long the command takes to say what it can do, beside a bare typer app.

python -m benchmarks.help    a table with a ratio; exit 1 if a target is missed
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from backend.program import ROOT
from benchmarks.rounds import measure, repeated, table
from benchmarks.targets import Target, exit_code, judged

ROUNDS = 15
MS = 1e6
"""Nanoseconds."""
BARE = """
import typer

app = typer.Typer()


@app.command()
def first(name: str) -> None:
    '''Do the first thing.'''


@app.command()
def second(name: str) -> None:
    '''Do the second thing.'''


app()
"""
OURS = "from backend.cli.__main__ import main; main()"
HEAVY = ("torch", "grpc", "pandas", "matplotlib", "sqlalchemy")
LOADED = f"""
import sys
from backend.cli.__main__ import main
try:
    main()
except SystemExit:
    pass
sys.stderr.write(",".join(name for name in {HEAVY!r} if name in sys.modules))
"""


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own program
        [sys.executable, *arguments], check=True, capture_output=True, text=True, cwd=ROOT
    )


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    with TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE, "utf-8")
        subjects = {
            "ktrdr --help": repeated(lambda: _python("-c", OURS, "--help")),
            "a bare typer app --help": repeated(lambda: _python(str(bare), "--help")),
            "python -c pass": repeated(lambda: _python("-c", "pass")),
        }
        times = measure(subjects, calls=1, rounds=ROUNDS)
    print(f"{ROUNDS} interleaved rounds; ms from start to end\n")
    print(table(times, unit=MS))
    loaded = _python("-c", LOADED, "--help").stderr
    ratio = times["ktrdr --help"].over(times["a bare typer app --help"])
    targets = [
        Target(
            "ktrdr --help at most 1.5 times a bare typer app", ratio.median <= 1.5, f"{ratio:.2f}"
        ),
        Target(f"it imports none of {', '.join(HEAVY)}", not loaded, loaded or "none"),
    ]
    return exit_code(judged(targets))


if __name__ == "__main__":
    sys.exit(main())
