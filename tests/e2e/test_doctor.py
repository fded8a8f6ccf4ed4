"""The doctor as cron runs it, against a real backend and a real training host."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.test_host_process import frozen, start
from tests.support.processes import KtrdrProcess
from tests.support.programs import Programs

DOCTOR = ("operations", "doctor")


def test_a_backend_of_which_nothing_is_asked_is_well(programs: Programs) -> None:
    done = programs.ktrdr(*DOCTOR, "--quiet")
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_without_a_backend_the_exit_code_is_4() -> None:
    done = Programs("127.0.0.1:1").ktrdr(*DOCTOR, "--quiet")
    assert 4 == done.returncode
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_host_that_trains_freezes_and_dies_is_told_as_what_it_is(tmp_path: Path) -> None:
    with KtrdrProcess("training_host", tmp_path / "host") as host:
        on_host = {"KTRDR_TRAINING_MODE": "host", "TRAINING_HOST_SERVICE_URL": host.address}
        with KtrdrProcess("backend", tmp_path / "backend", crash=None, **on_host) as backend:
            programs = Programs(backend.address)
            operation_id = start(programs, "long")

            well = programs.ktrdr(*DOCTOR)
            assert (0, "1 open operation; all is well.\n") == (well.returncode, well.stderr)
            assert [operation_id, "answers", "alive", "ok"] == well.stdout.splitlines()[1].split()[
                :4
            ]

            with frozen(host.process):
                silent = programs.ktrdr(*DOCTOR, "--format", "json")
            assert 1 == silent.returncode
            (found,) = json.loads(silent.stdout)["operations"]
            assert ["SILENT", "UNKNOWN", "UNKNOWN"] == [
                found[name]["state"] for name in ("host", "worker", "progress")
            ]
            assert host.address == found["host"]["address"]

            assert 0 == programs.ktrdr(*DOCTOR, "--quiet").returncode
            host.kill()
            gone = programs.ktrdr(*DOCTOR)
            assert 1 == gone.returncode
            assert f"  Start the host at {host.address}; if it runs, see its log." in gone.stdout

            backend.process.send_signal(signal.SIGTERM)
            backend.process.wait(20)
            assert 4 == programs.ktrdr(*DOCTOR).returncode
