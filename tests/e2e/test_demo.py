"""`make demo`, as a newcomer runs it."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.demo import stopped
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
    assert 130 == stopped("PLAIN", tmp_path, signal.SIGTERM, within=30.0)
    assert [] == processes_with_home(tmp_path)


def _path_after(word: str, text: str) -> Path:
    found = re.search(rf"^ +{word} +(\S+)$", text, flags=re.MULTILINE)
    assert found is not None, text
    return Path(found[1])
