"""`make demo-data`, as a newcomer runs it: prices are loaded from a simulated IB gateway first."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from shared.marketdata.sample import SampleBarSource
from shared.marketdata.store import BarStore
from tests.support.demo import demo, stopped
from tests.support.programs import ROOT, processes_with_home


@pytest.mark.slow
def test_make_demo_data_loads_shows_and_trains_and_leaves_no_process() -> None:
    done = subprocess.run(
        ["make", "demo-data"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    home = ROOT / ".ktrdr-demo"

    assert 0 == done.returncode, done.stdout + done.stderr
    store, sample = BarStore(home / "ib_host" / "data"), SampleBarSource()
    loaded, expected = (
        {symbol: source.read(symbol, "1d", None, None) for symbol in ("IBM", "GOOG")}
        for source in (store, sample)
    )
    for symbol, frame in expected.items():
        assert frame.equals(loaded[symbol])
    assert f"{sum(map(len, expected.values())):,} bars of 1d" in done.stdout
    shown = re.findall(r"^2013-\d\d-\d\d +(\S+) ", done.stdout, flags=re.MULTILINE)
    assert [f"{each:.4f}" for each in expected["IBM"]["open"]["2013-01-28":][:10]] == shown
    rows = re.findall(r"^ +(\d+)/40 ", done.stdout, flags=re.MULTILINE)
    assert [str(n) for n in range(1, len(rows) + 1)] == rows
    assert "class shares" in done.stdout
    model = re.search(r"^The model is in (\S+)\.$", done.stdout, flags=re.MULTILINE)
    assert model is not None, done.stdout
    assert (ROOT / model[1] / "weights.safetensors").is_file()
    assert "Registered remote stub for operation op_data_" in (home / "backend.log").read_text()
    assert [] == list((home / "backend" / "data").rglob("*.parquet"))
    assert [] == processes_with_home(home)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_of_data_that_is_told_to_stop_stops_both_in_order(
    how: signal.Signals, tmp_path: Path
) -> None:
    assert 130 == stopped("DATA", tmp_path, how)
    assert [] == processes_with_home(tmp_path)
    assert (tmp_path / "backend.log").read_text().rstrip().endswith("Stopped")
    host_log = (tmp_path / "ib_host.log").read_text()
    assert "ktrdr.process: Stopped" in host_log  # the simulator that it embeds ends after it
    assert "Traceback" not in host_log


def test_a_demo_of_data_whose_backend_does_not_start_says_so_and_stops_the_ib_host(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backend").write_text("a file is where a folder should be")
    done = subprocess.run(demo("DATA", tmp_path), cwd=ROOT, check=False, timeout=60)

    assert 1 == done.returncode
    assert f"backend did not start; {tmp_path / 'backend.log'} says why." in capfd.readouterr().err
    assert [] == processes_with_home(tmp_path)
    assert (tmp_path / "ib_host.log").read_text().rstrip().endswith("Stopped")
