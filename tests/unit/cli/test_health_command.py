from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc

from backend.cli.commands.health import DEADLINE
from backend.cli.failures import ExitCode
from tests.support.rpc import LOOPBACK, PROBE, Gate, Wire, probe, served
from tests.unit.cli.command_line import Run
from tests.unit.cli.scripted_backend import ScriptedBackend


def ask(run: Run, wire: Wire, *arguments: str) -> tuple[int, str]:
    """The exit code and what was said on stdout."""
    ended = run("health", *arguments, "--backend", wire.address)
    return ended.exit_code, ended.stdout


@contextmanager
def stuck() -> Iterator[str]:
    """The address of a server whose health is asked for and not told."""
    gate, servicer = Gate(), health_pb2_grpc.HealthServicer()
    servicer.Check = gate  # type: ignore[method-assign]  # the only thing it is asked
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(LOOPBACK)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        gate.opened.set()
        server.stop(None).wait()


def test_a_process_that_serves_is_one_line_and_exit_code_0(run: Run) -> None:
    with served([]) as wire:
        assert (0, f"The process at {wire.address} serves.\n") == ask(run, wire)


def test_a_process_that_is_stopping_is_exit_code_1(run: Run) -> None:
    with served([]) as wire:
        wire.server.announce_stopping()
        assert (1, f"The process at {wire.address} does not serve.\n") == ask(run, wire)


def test_one_service_may_be_asked_about(run: Run) -> None:
    with served([probe()]) as wire:
        expected = (0, f"{PROBE} at {wire.address} serves.\n")
        assert expected == ask(run, wire, "--service", PROBE)


def test_a_service_that_is_not_there_is_a_usage_error(run: Run) -> None:
    with served([]) as wire:
        ended = run("health", "--service", "no.such", "--backend", wire.address)
    assert ExitCode.USAGE == ended.exit_code
    assert "There is no service 'no.such' here" in ended.complaint


@pytest.mark.parametrize(("stopping", "status"), [(False, "SERVING"), (True, "NOT_SERVING")])
def test_a_script_gets_the_status_as_json(run: Run, stopping: bool, status: str) -> None:
    with served([]) as wire:
        if stopping:
            wire.server.announce_stopping()
        ended = run("health", "--format", "json", "--backend", wire.address)
    assert {"status": status} == ended.document
    assert int(stopping) == ended.exit_code


def test_an_address_where_nobody_listens_is_exit_code_4(run: Run) -> None:
    ended = run("health", "--backend", "127.0.0.1:1")
    assert ExitCode.UNREACHABLE == ended.exit_code
    assert "no backend answers at 127.0.0.1:1" in ended.complaint
    assert "" == ended.stdout


def test_a_process_that_does_not_answer_is_exit_code_4(run: Run) -> None:
    with stuck() as address:
        ended = run("health", "--backend", address)
    assert ExitCode.UNREACHABLE == ended.exit_code
    assert f"the backend at {address} did not answer within {DEADLINE:g} s" in ended.complaint


def test_a_server_without_health_is_not_taken_for_healthy(
    run: Run, scripted: ScriptedBackend
) -> None:
    ended = run("health", "--backend", scripted.address)
    assert ExitCode.FAILED == ended.exit_code
    assert "does not offer this" in ended.complaint
