from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from socket import gethostname
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared import process
from shared.process import SWITCH_INTERVAL, guarded, reachable, serve_until_stopped, stop
from shared.rpc.errors import KtrdrError
from shared.rpc.server import AddressError
from shared.settings import SettingsError
from tests.support.rpc import TIMEOUT, failure_of

PROGRAM = """
import sys
import threading
import grpc
from shared.logs import configure_logging
from shared.operations.model import Owner
from shared.operations.service import OperationsService
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.worker_pool import WorkerPool
from shared.process import guarded, serve_until_stopped
from shared.rpc.server import RpcServer, ServedService, ServerLimits

def hang(request, context):
    threading.Event().wait()

def add(_servicer, server):
    handler = grpc.unary_unary_rpc_method_handler(hang)
    generic = grpc.method_handlers_generic_handler("test.v1.Stuck", {"Hang": handler})
    server.add_generic_rpc_handlers((generic,))

def main():
    configure_logging("INFO", "text")
    serve_until_stopped(
        "probe",
        RpcServer([ServedService("test.v1.Stuck", None, add)], sys.argv[1], ServerLimits(), "me"),
        OperationsService(MemoryOperationStore(), Owner("i", incarnation="c", address="a")),
        [WorkerPool("probe", workers=1, queue_limit=1)],
        grace=0.1,
    )

sys.exit(guarded(main))
"""


@contextmanager
def running(address: str = "127.0.0.1:0") -> Iterator[subprocess.Popen[str]]:
    """Run the program above; end it whatever happens."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def ready_address(child: subprocess.Popen[str]) -> str:
    """The address in the line the child prints when it is ready."""
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line.startswith("probe ready on 127.0.0.1:"), line
    return line.split()[-1]


class Parts:
    """Server, operations and pool in one; writes down what it is told."""

    connections = 10

    def __init__(self, *, joins: tuple[bool, ...] = (True,), ends: bool = True) -> None:
        self.told: list[str] = []
        self._joins = iter(joins)
        self._ends = ends

    def bind(self) -> str:
        """Name an address."""
        self.told.append("bind")
        return "127.0.0.1:7"

    def start(self) -> None:
        """Be told to stop at once."""
        self.told.append("start")
        signal.raise_signal(signal.SIGTERM)

    def __getattr__(self, name: str) -> Any:
        """Write down any other call."""
        return lambda *_: self.told.append(name)

    def join(self, timeout: float) -> bool:
        """Answer as scripted."""
        self.told.append(f"join {round(timeout, 2)}")
        return next(self._joins)

    def stop(self, grace: float) -> bool:
        """Answer as scripted."""
        self.told.append("stop")
        return self._ends


class Frozen(Parts):
    """Sees as well what is out of garbage collections when serving begins."""

    frozen = 0

    def start(self) -> None:
        """Look, and be told to stop."""
        self.frozen = gc.get_freeze_count()
        super().start()


@pytest.fixture
def _process_as_it_was() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    interval = sys.getswitchinterval()
    yield
    gc.unfreeze()
    sys.setswitchinterval(interval)
    for number, handler in handlers.items():
        signal.signal(number, handler)


# ------------------------------------------------------------------------- guarded


def test_a_main_that_returns_exits_with_zero() -> None:
    assert guarded(lambda: None) == 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SettingsError("KTRDR_HOME: must name a folder"), "need mending:\nKTRDR_HOME: must"),
        (AddressError("Cannot listen on x."), "Cannot start: Cannot listen on x."),
        (KtrdrError("The state is in use."), "Cannot start: The state is in use."),
    ],
)
def test_errors_of_the_start_are_sentences(
    capsys: pytest.CaptureFixture[str], error: Exception, text: str
) -> None:
    def main() -> None:
        raise error

    assert guarded(main) == 2
    told = capsys.readouterr()
    assert text in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


@pytest.mark.parametrize("arguments", [["--help"], ["--port", "50099"]])
def test_arguments_start_nothing_and_are_told_that_settings_are_variables(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    begun: list[str] = []

    assert guarded(lambda: begun.append("main"), arguments) == 2
    told = capsys.readouterr()
    assert (
        f"Cannot start: {' '.join(arguments)!r} is not taken, nor any other argument. Settings are "
        "variables of the environment, such as KTRDR_HOME; ARCHITECTURE.md lists them all.\n"
    ) == told.err
    assert ([], "") == (begun, told.out)


def test_a_defect_keeps_its_trace() -> None:
    def main() -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        guarded(main)


# ---------------------------------------------------------------------------- stop


def stopped(parts: Any) -> bool:
    return stop(parts, parts, [parts], grace=0.5)


def test_stopping_goes_in_order() -> None:
    parts = Parts()
    assert stopped(parts)
    assert parts.told == [
        "announce_stopping",
        "refuse_starts",
        "close",
        "join 0.5",
        "end_unfinished",
        "stop",
    ]


def test_work_that_outlasts_the_grace_is_interrupted() -> None:
    parts = Parts(joins=(False, True))
    assert stopped(parts)
    assert parts.told[3:] == [
        "join 0.5",
        "interrupt_work",
        f"join {process._INTERRUPT_GRACE}",
        "end_unfinished",
        "stop",
    ]


def test_work_that_does_not_stop_is_recorded_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts(joins=(False, False))
    assert not stopped(parts)  # a worker in native code would abort the interpreter's end
    assert parts.told[-2:] == ["end_unfinished", "stop"]
    assert "Some workers did not stop" in caplog.text


# ----------------------------------------------------------------- serve_until_stopped


@pytest.mark.usefixtures("_process_as_it_was")
def test_a_signal_during_the_start_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    parts: Any = Parts()
    serve_until_stopped("probe", parts, parts, [parts], grace=0.5)
    assert capsys.readouterr().out == "probe ready on 127.0.0.1:7\n"
    assert (parts.told[:4], parts.told[-1]) == (["bind", "advertise", "recover", "start"], "stop")
    assert pytest.approx(SWITCH_INTERVAL, rel=0.01) == sys.getswitchinterval()


@pytest.mark.usefixtures("_process_as_it_was")
def test_what_has_been_loaded_is_out_of_garbage_collections_before_calls_are_served() -> None:
    loaded, parts = len(gc.get_objects()), Frozen()
    anything: Any = parts
    serve_until_stopped("probe", anything, anything, [anything], grace=0.5)
    assert parts.frozen > 0.9 * loaded > 10_000


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])  # noqa: S104  # compared
def test_a_process_that_listens_everywhere_is_reached_by_the_machines_name(everywhere: str) -> None:
    assert f"{gethostname()}:7" == reachable(f"{everywhere}:7")
    assert "10.0.0.1:7" == reachable("10.0.0.1:7")


@pytest.mark.usefixtures("_process_as_it_was")
def test_calls_that_do_not_end_are_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    parts: Any = Parts(ends=False)
    serve_until_stopped("probe", parts, parts, [parts], grace=0.5)
    assert exits == [0]
    assert "Some threads did not end" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_process_serves_until_a_signal_and_exits_with_zero(number: signal.Signals) -> None:
    with running() as child:
        address = ready_address(child)
        with grpc.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            response = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
            assert response.status == health_pb2.HealthCheckResponse.SERVING
            child.send_signal(number)
            out, err = child.communicate(timeout=TIMEOUT)
    assert (child.returncode, out) == (0, "")
    assert "Stopped" in err
    assert "Traceback" not in err


def test_a_call_that_never_ends_does_not_keep_the_process() -> None:
    with running() as child:
        address = ready_address(child)
        channel: Any = grpc.insecure_channel(address)
        with channel:
            stuck = channel.unary_unary("/test.v1.Stuck/Hang").future(b"", timeout=60)
            stub: Any = health_pb2_grpc.HealthStub(channel)
            stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
            child.send_signal(signal.SIGTERM)
            _, err = child.communicate(timeout=TIMEOUT)
            assert failure_of(stuck.result).code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    assert child.returncode == 0
    assert "Some threads did not end" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_more_signals_until_the_very_end_do_no_harm(number: signal.Signals) -> None:
    with running() as child:
        ready_address(child)
        while child.poll() is None:
            child.send_signal(number)
        _, err = child.communicate(timeout=TIMEOUT)
    assert (child.returncode, "KeyboardInterrupt" in err) == (0, False)


def test_a_port_that_is_taken_ends_the_start_with_a_sentence() -> None:
    with running() as first:
        address = ready_address(first)
        with running(address) as second:
            out, err = second.communicate(timeout=TIMEOUT)
            assert (second.returncode, out) == (2, "")
            assert f"Cannot start: Cannot listen on {address}" in err
            assert "Traceback" not in err
        assert first.poll() is None
