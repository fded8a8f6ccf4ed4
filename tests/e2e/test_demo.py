"""`make demo`, as a newcomer runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT, processes_with_home


@pytest.mark.slow
def test_make_demo_trains_on_real_prices_shows_progress_and_leaves_no_process() -> None:
    done = subprocess.run(
        ["make", "demo"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    rows = re.findall(r"^ +(\d+)/(\d+) ", done.stdout, flags=re.MULTILINE)
    assert [str(n) for n in range(1, len(rows) + 1)] == [step for step, _ in rows]
    for words in ("training", "accuracy", "baseline", "class shares", "samples per second"):
        assert words in done.stdout
    picture = _path_after("picture", done.stdout)
    assert picture.read_bytes().startswith(b"\x89PNG")
    model = _path_after("path", done.stdout)
    assert (model / "weights.safetensors").is_file()
    assert [] == processes_with_home(ROOT / ".ktrdr-demo")


def test_a_demo_that_is_told_to_stop_stops_its_backend(tmp_path: Path) -> None:
    code = "import sys, pathlib, backend.demo as d; sys.exit(d.main(pathlib.Path(sys.argv[1])))"
    demo = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("Started"):
            break
    demo.send_signal(signal.SIGTERM)
    demo.communicate(timeout=30)

    assert 130 == demo.returncode
    assert [] == processes_with_home(tmp_path)


def _path_after(word: str, text: str) -> Path:
    found = re.search(rf"^ +{word} +(\S+)$", text, flags=re.MULTILINE)
    assert found is not None, text
    return Path(found[1])
