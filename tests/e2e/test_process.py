"""The backend as a process: how it starts, ends and refuses to start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import KtrdrProcess
from tests.support.programs import ROOT, SMALL, Programs

TRAIN = ("models", "train", "--strategy", str(SMALL), "--symbols", "IBM", "--timeframes", "1d")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_backend_told_to_stop_ends_its_work_and_exits_0(
    how: signal.Signals, tmp_path: Path
) -> None:
    with KtrdrProcess("backend", tmp_path, KTRDR_SHUTDOWN_GRACE="0.2") as backend:
        programs = Programs(backend.address)
        programs.ktrdr(
            *(*TRAIN, "--set", "model.training.epochs=10000", "--detach", "--request-id", "x")
        )
        backend.process.send_signal(how)
        code = backend.process.wait(30)

    assert 0 == code
    log = backend.log.read_text()
    assert "op_training_x ended FAILED: PROCESS_STOPPED" in log
    assert "Traceback" not in log


def test_a_watcher_sees_how_its_operation_ended_when_the_backend_was_stopped(
    tmp_path: Path,
) -> None:
    with KtrdrProcess("backend", tmp_path, KTRDR_SHUTDOWN_GRACE="0.2") as backend:
        watch = subprocess.Popen(
            [
                *Programs.command("ktrdr"),
                *(*TRAIN, "--set", "model.training.epochs=10000", "--backend", backend.address),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert watch.stdout is not None
        for line in watch.stdout:
            if "1/10000" in line:
                break
        backend.process.send_signal(signal.SIGTERM)
        output, _ = watch.communicate(timeout=30)

    assert 1 == watch.returncode
    assert "PROCESS_STOPPED" in output


def test_a_watcher_of_a_killed_backend_ends_with_exit_code_4(tmp_path: Path) -> None:
    with KtrdrProcess("backend", tmp_path) as backend:
        programs = Programs(backend.address)
        programs.ktrdr(*TRAIN, "--detach", "--request-id", "x")
        backend.kill()
        done = programs.ktrdr("operations", "get", "op_training_x")

    assert 4 == done.returncode
    assert "Traceback" not in done.stderr


def test_a_second_backend_on_the_same_port_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with KtrdrProcess("backend", tmp_path / "first") as backend:
        done = subprocess.run(
            [sys.executable, "-m", "backend"],
            cwd=ROOT,
            env={
                **os.environ,
                "KTRDR_BACKEND_ADDRESS": backend.address,
                "KTRDR_HOME": str(tmp_path / "second"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert 2 == done.returncode
    assert f"Cannot listen on {backend.address}" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_settings_stop_the_start_with_each_name_and_the_mend() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backend"],
        cwd=ROOT,
        env={
            **os.environ,
            "KTRDR_BACKEND_ADDRESS": "somewhere",
            "OPERATIONS_CACHE_TTL": "-1",
            "KTRDR_TRAINING_WORKERS": "many",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert 2 == done.returncode
    for name in ("KTRDR_BACKEND_ADDRESS", "OPERATIONS_CACHE_TTL", "KTRDR_TRAINING_WORKERS"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_is_not_lost_if_another_thread_gets_it_first(tmp_path: Path) -> None:
    """After SIGSTOP it is often not the main thread that a signal finds."""
    with KtrdrProcess("backend", tmp_path) as backend:
        assert 0 == Programs(backend.address).ktrdr("health").returncode  # so it waits by now
        for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM):
            backend.process.send_signal(number)
        code = backend.process.wait(30)

    assert 0 == code


@pytest.mark.parametrize("process", ["backend", "training_host", "ib_host"])
def test_an_argument_is_refused_before_a_process_starts(process: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", process, "--port", "50099"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (2, "") == (done.returncode, done.stdout)
    assert "Cannot start: '--port 50099' is not taken" in done.stderr
