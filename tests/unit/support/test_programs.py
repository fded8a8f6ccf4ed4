from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import processes_with_home

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
SERVES = "import sys; print(flush=True); sys.stdin.read()"


def test_only_processes_with_this_home_or_one_below_it_are_found(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("home", "home/below", "home2")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SERVES],
            env={**os.environ, "KTRDR_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for home in homes
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # its environment is its own by now

        found = processes_with_home(tmp_path / "home")
    finally:
        for process in processes:
            process.communicate()

    assert {str(process.pid) for process in processes[:2]} == set(found)
