"""The demo, run for real with its files in a folder of a test's own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.programs import ROOT

_CODE = """
import sys, pathlib, backend.demo as demo
sys.exit(demo.main(pathlib.Path(sys.argv[1]), kind=getattr(demo, sys.argv[2])))
"""


def demo(kind: str, home: Path) -> list[str]:
    """How to run one of the demos there are: PLAIN, HOSTS or DATA."""
    return [sys.executable, "-c", _CODE, str(home), kind]


def stopped(kind: str, home: Path, how: signal.Signals, *, within: float = 60.0) -> int:
    """Tell a demo to stop once it has started its first work; return its exit code."""
    process = subprocess.Popen(demo(kind, home), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Started"):
            break
    process.send_signal(how)
    process.communicate(timeout=within)
    return process.returncode
