"""`make demo-hosts`, as a newcomer runs it: the training is another process's."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.demo import demo, stopped
from tests.support.programs import ROOT, processes_with_home


@pytest.mark.slow
def test_make_demo_hosts_trains_on_the_host_and_leaves_no_process() -> None:
    done = subprocess.run(
        ["make", "demo-hosts"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    home = ROOT / ".ktrdr-demo"

    assert 0 == done.returncode, done.stdout + done.stderr
    rows = re.findall(r"^ +(\d+)/(\d+) ", done.stdout, flags=re.MULTILINE)
    assert [str(n) for n in range(1, len(rows) + 1)] == [step for step, _ in rows]
    for words in ("training", "accuracy", "baseline", "class shares", "samples per second"):
        assert words in done.stdout
    assert (home / "training.png").read_bytes().startswith(b"\x89PNG")
    model = re.search(r"^The model is in (\S+)\.$", done.stdout, flags=re.MULTILINE)
    assert model is not None, done.stdout
    assert (ROOT / model[1] / "weights.safetensors").is_file()
    assert "Registered remote stub" in (home / "backend.log").read_text()
    assert "Registered local bridge" in (home / "training_host.log").read_text()
    assert [] == processes_with_home(home)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_on_a_host_that_is_told_to_stop_stops_both_in_order(
    how: signal.Signals, tmp_path: Path
) -> None:
    assert 130 == stopped("HOSTS", tmp_path, how)
    assert [] == processes_with_home(tmp_path)
    for log in ("backend.log", "training_host.log"):
        assert (tmp_path / log).read_text().rstrip().endswith("Stopped")


def test_a_demo_whose_backend_does_not_start_says_so_and_stops_the_host(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backend").write_text("a file is where a folder should be")
    done = subprocess.run(demo("HOSTS", tmp_path), cwd=ROOT, check=False, timeout=60)

    assert 1 == done.returncode
    assert f"backend did not start; {tmp_path / 'backend.log'} says why." in capfd.readouterr().err
    assert [] == processes_with_home(tmp_path)
    assert (tmp_path / "training_host.log").read_text().rstrip().endswith("Stopped")
