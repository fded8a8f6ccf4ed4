"""A training host and a backend as processes: killed, frozen, stopped and restarted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from backend.program import Program
from tests.support.eventually import eventually
from tests.support.programs import ROOT, SMALL, Programs

TRAIN = ("models", "train", "--strategy", str(SMALL), "--symbols", "IBM", "--timeframes", "1d")
GET = "ktrdr.operations.v1.OperationsService/GetOperation"
LONG = 10_000
"""Epochs that outlast every test."""
BATCH = "model.training.batch_size=32"
"""Makes an epoch last some hundredths of a second."""
ANSWER = 10.0
"""Seconds that the command gives the backend for an answer."""


class Processes:
    """A backend over training hosts, each a process with files below `home`."""

    def __init__(self, home: Path, started: ExitStack) -> None:
        self._home = home
        self._started = started
        self.hosts: list[Program] = []

    def start_host(self, name: str = "host", address: str = "127.0.0.1:0") -> Program:
        """Start a training host whose state is that of earlier ones of this name."""
        host = self._started.enter_context(
            Program(
                "training_host",
                self._home / name,
                self.log(name),
                {"KTRDR_TRAINING_HOST_ADDRESS": address, "KTRDR_SHUTDOWN_GRACE": "0.2"},
            )
        )
        self.hosts.append(host)
        return host

    def start_backend(self, **settings: str) -> Program:
        """Start the backend over the hosts that there are."""
        return self._started.enter_context(
            Program(
                "backend",
                self._home / "backend",
                self.log("backend"),
                {
                    "KTRDR_TRAINING_MODE": "host",
                    "TRAINING_HOST_SERVICE_URL": ",".join(host.address for host in self.hosts),
                    **settings,
                },
            )
        )

    def log(self, name: str) -> Path:
        """Where a process logs to."""
        return self._home / f"{name}.log"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as started:
        yield Processes(tmp_path, started)


@contextmanager
def frozen(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop a process as a debugger does, so that its sockets stay open."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def start(programs: Programs, request_id: str, *, epochs: int = LONG) -> str:
    """Start a training and return its id once an epoch has ended."""
    done = programs.ktrdr(
        *(*TRAIN, "--set", f"model.training.epochs={epochs}", "--set", BATCH, "--detach"),
        *("--request-id", request_id, "--seed", "7"),
    )
    assert 0 == done.returncode, done.stderr
    operation_id = f"op_training_{request_id}"
    eventually(lambda: metrics_count(look(programs, operation_id)) > 0, within=60)
    return operation_id


def look(programs: Programs, operation_id: str) -> dict[str, Any]:
    """The operation as the backend tells it."""
    operation: dict[str, Any] = programs.call(GET, operation_id=operation_id)["operation"]
    return operation


def metrics_count(operation: dict[str, Any]) -> int:
    return int(operation.get("metrics_count", 0))


def refresh_error(operation: dict[str, Any]) -> str:
    reason: str = operation["freshness"].get("refresh_error", {}).get("reason", "")
    return reason


@pytest.mark.slow
def test_of_a_killed_host_the_last_known_state_is_told_and_after_its_restart_the_end(
    processes: Processes,
) -> None:
    host = processes.start_host()
    programs = Programs(processes.start_backend().address)
    operation_id = start(programs, "killed")
    host.kill()
    asked_at = monotonic()
    eventually(lambda: refresh_error(look(programs, operation_id)) == "HOST_UNREACHABLE")
    known = look(programs, operation_id)
    shown = programs.ktrdr("operations", "get", operation_id)
    listed = programs.ktrdr("operations", "list")
    strict = programs.ktrdr("operations", "get", operation_id, "--refresh")

    assert monotonic() - asked_at < 5 * ANSWER
    assert "OPERATION_STATUS_RUNNING" == known["status"]
    assert 0 < metrics_count(known)
    assert "Last known, " in shown.stdout
    assert host.address in shown.stdout
    assert "running?" in listed.stdout
    assert f"{host.address} did not answer" in listed.stderr
    assert (4, "") == (strict.returncode, strict.stdout)
    assert "HOST_UNREACHABLE" in strict.stderr

    processes.start_host(address=host.address)
    cut_off = programs.ktrdr("operations", "wait", operation_id)
    ended = look(programs, operation_id)

    assert 1 == cut_off.returncode
    assert "PROCESS_RESTARTED" in cut_off.stdout
    assert "OPERATION_STATUS_FAILED" == ended["status"]
    assert ended["error"]["retryable"]
    assert metrics_count(known) == metrics_count(ended)
    kept = programs.ktrdr("operations", "metrics", operation_id, "--format", "csv").stdout
    assert metrics_count(known) == len(kept.splitlines()) - 1
    log = processes.log("backend").read_text()
    assert f"{operation_id} ended FAILED: PROCESS_RESTARTED" in log


@pytest.mark.slow
def test_what_ran_on_a_host_that_comes_back_without_its_records_is_lost(
    processes: Processes, tmp_path: Path
) -> None:
    host = processes.start_host()
    programs = Programs(processes.start_backend().address)
    operation_id = start(programs, "lost")
    known = look(programs, operation_id)
    host.kill()
    for file in (tmp_path / "host" / "state").glob("training_host.db*"):
        file.unlink()
    processes.start_host(address=host.address)
    lost = programs.ktrdr("operations", "wait", operation_id)

    assert (1, True) == (lost.returncode, "OPERATION_LOST" in lost.stdout)
    assert metrics_count(known) <= metrics_count(look(programs, operation_id))


@pytest.mark.slow
def test_a_backend_that_was_killed_shows_its_hosts_training_running_on(
    processes: Processes,
) -> None:
    processes.start_host()
    backend = processes.start_backend()
    programs = Programs(backend.address)
    operation_id = start(programs, "outlives", epochs=300)
    before = look(programs, operation_id)
    backend.kill()
    programs = Programs(processes.start_backend().address)
    after = look(programs, operation_id)
    again = programs.ktrdr(
        *(*TRAIN, "--set", "model.training.epochs=300", "--set", BATCH, "--detach"),
        *("--request-id", "outlives", "--seed", "7"),
    )
    waited = programs.ktrdr("operations", "wait", operation_id)
    steps = programs.ktrdr("operations", "metrics", operation_id, "--format", "csv").stdout

    assert "OPERATION_STATUS_RUNNING" == after["status"]
    assert before["create_time"] == after["create_time"]
    assert metrics_count(before) <= metrics_count(after)
    assert 0 == again.returncode, again.stderr
    assert 0 == waited.returncode, waited.stdout + waited.stderr
    rows = steps.splitlines()[1:]
    assert [str(step) for step in range(1, 301)] == [row.split(",")[0] for row in rows]


@pytest.mark.slow
def test_a_host_that_was_killed_after_its_work_tells_how_it_ended(processes: Processes) -> None:
    host = processes.start_host()
    programs = Programs(processes.start_backend().address)
    done = programs.ktrdr(
        *(*TRAIN, "--set", "model.training.epochs=3", "--detach", "--request-id", "unasked")
    )
    assert 0 == done.returncode, done.stderr
    ended = "Completed operation host_training_op_training_unasked with results"
    eventually(lambda: ended in processes.log("host").read_text(), within=60)
    host.kill()
    processes.start_host(address=host.address)
    told = look(programs, "op_training_unasked")

    assert ("OPERATION_STATUS_COMPLETED", 3) == (told["status"], metrics_count(told))
    assert "model_path" in json.dumps(told["result"])


@pytest.mark.slow
def test_a_frozen_host_delays_nobody_beyond_the_deadline_and_no_other_host(
    processes: Processes,
) -> None:
    processes.start_host("first")
    processes.start_host("second")
    programs = Programs(processes.start_backend(OPERATIONS_CACHE_TTL="0").address)
    stuck = start(programs, "stuck")
    free = start(programs, "free")
    url = look(programs, stuck)["metadata"]["host_service_url"]
    assert url != look(programs, free)["metadata"]["host_service_url"]
    (owner,) = (host for host in processes.hosts if host.address == url)

    with frozen(owner.process):
        asked_at = monotonic()
        known = look(programs, stuck)
        answered_after = monotonic() - asked_at
        before = metrics_count(look(programs, free))
        with asking(programs, stuck):
            eventually(lambda: metrics_count(look(programs, free)) > before, within=30)
            assert "" == refresh_error(look(programs, free))

    assert answered_after < ANSWER
    assert refresh_error(known) in {"HOST_UNREACHABLE", "HOST_TIMEOUT"}
    eventually(lambda: metrics_count(look(programs, stuck)) > metrics_count(known), within=30)
    assert "" == refresh_error(look(programs, stuck))


@contextmanager
def asking(programs: Programs, operation_id: str) -> Iterator[None]:
    """Have an operation asked for again and again meanwhile."""
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            look(programs, operation_id)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@pytest.mark.slow
def test_a_training_on_a_host_that_was_frozen_completes_with_every_epoch(
    processes: Processes,
) -> None:
    host = processes.start_host()
    programs = Programs(processes.start_backend(OPERATIONS_CACHE_TTL="0").address)
    operation_id = start(programs, "thawed", epochs=200)
    with frozen(host.process):
        known = look(programs, operation_id)
    waited = programs.ktrdr("operations", "wait", operation_id)
    steps = programs.ktrdr("operations", "metrics", operation_id, "--format", "csv").stdout

    assert "" != refresh_error(known)
    assert 0 == waited.returncode, waited.stdout + waited.stderr
    rows = steps.splitlines()[1:]
    assert [str(step) for step in range(1, 201)] == [row.split(",")[0] for row in rows]


def test_a_second_host_with_the_same_files_is_refused_with_a_sentence(
    processes: Processes, tmp_path: Path
) -> None:
    processes.start_host()
    done = subprocess.run(
        [sys.executable, "-m", "training_host"],
        cwd=ROOT,
        env={
            **os.environ,
            "KTRDR_HOME": str(tmp_path / "host"),
            "KTRDR_TRAINING_HOST_ADDRESS": "127.0.0.1:0",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (2, "") == (done.returncode, done.stdout)
    assert "KTRDR_HOME" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_watcher_at_the_backend_sees_that_the_host_was_stopped(processes: Processes) -> None:
    host = processes.start_host()
    programs = Programs(processes.start_backend().address)
    operation_id = start(programs, "stopped")
    with watching(programs, operation_id) as watch:
        host.process.terminate()
        output, errors = watch.communicate(timeout=60)
    shown = json.loads(programs.ktrdr("operations", "get", operation_id, "--format", "json").stdout)

    assert 1 == watch.returncode, output + errors
    assert "PROCESS_STOPPED" in output
    assert "OPERATION_STATUS_FAILED" == shown["status"]
    assert shown["error"]["retryable"]
    assert 0 == host.process.wait(30)


@contextmanager
def watching(programs: Programs, operation_id: str) -> Iterator[subprocess.Popen[str]]:
    """Watch an operation that has at least one epoch; begins with its first row."""
    watch = subprocess.Popen(
        [
            *programs.command("ktrdr"),
            *("operations", "watch", operation_id, "--backend", programs.address),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None
        for line in watch.stdout:
            if f"1/{LONG}" in line:
                break
        yield watch
    finally:
        watch.kill()
        watch.communicate()


@pytest.mark.slow
def test_a_host_goes_on_when_its_backend_is_stopped(processes: Processes) -> None:
    host = processes.start_host()
    backend = processes.start_backend()
    operation_id = start(Programs(backend.address), "kept")
    at_host = f"host_training_{operation_id}"
    backend.process.terminate()
    assert 0 == backend.process.wait(30)
    programs = Programs(host.address)
    then = look(programs, at_host)
    eventually(lambda: metrics_count(look(programs, at_host)) > metrics_count(then), within=30)

    assert "OPERATION_STATUS_RUNNING" == look(programs, at_host)["status"]
    log = processes.log("backend").read_text()
    assert "Traceback" not in log
    assert "PROCESS_STOPPED" not in log
