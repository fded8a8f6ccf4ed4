from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backend.program import ROOT
from tests.support.eventually import eventually


def started_by(process: int) -> list[int]:
    """The processes that one has started, and those that they have."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()
    except FileNotFoundError:  # it has ended meanwhile
        return []
    return [each for child in map(int, children) for each in (child, *started_by(child))]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize("before", ["", 'trap "" INT;'], ids=["", "in a shell's background"])
def test_benchmarks_that_are_told_to_end_leave_no_process(before: str) -> None:
    """A shell that is not somebody's has what it runs in the background ignore Ctrl-C."""
    command = ["sh", "-c", f'{before} exec "$0" -m benchmarks remote', sys.executable]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        eventually(lambda: len(started_by(run.pid)) > 2, within=60.0)
        left = started_by(run.pid)
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60.0)
    assert 128 + signal.SIGTERM == run.returncode
    eventually(lambda: not any(Path(f"/proc/{each}").exists() for each in left))
