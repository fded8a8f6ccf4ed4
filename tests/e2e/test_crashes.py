"""Processes that are killed at each call of their store, in turn, and started again.

What they carry is loads of market data: the engine does not know which work it
carries, and a load needs no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest

from ktrdr.operations.v1 import operation_pb2
from tests.support.processes import TERMINAL, KtrdrProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COMPLETED = operation_pb2.OPERATION_STATUS_COMPLETED
FAILED = operation_pb2.OPERATION_STATUS_FAILED
SIMULATED: dict[str, Any] = {"KTRDR_IB_GATEWAY": "simulator"}
MOST_CALLS = 40
"""Calls of the store that one load makes at most."""


def crashed_during(
    process: KtrdrProcess, request_id: str
) -> tuple[bool, operation_pb2.Operation | None]:
    """Start a load and watch it to its end, or its process's; whether that came, and the last look.

    Any other refusal than the crash is the caller's to see.
    """
    seen = None
    try:
        seen = process.start_load(request_id)
        while seen.status not in TERMINAL:
            seen = process.look(seen.operation_id).operation
    except grpc.RpcError as error:
        if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
            raise
        return True, seen
    return False, seen


def found(process: KtrdrProcess, operation_id: str) -> operation_pb2.Operation | None:
    """The operation after the restart, if there is one; its log is whole."""
    try:
        answer = process.look(operation_id)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return None
    assert list(range(1, len(answer.metrics) + 1)) == [m.step for m in answer.metrics]
    assert answer.operation.metrics_count == len(answer.metrics)
    return answer.operation


@pytest.fixture(scope="module")
def home_with_a_past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a backend that has completed a load."""
    home = tmp_path_factory.mktemp("past")
    with KtrdrProcess("backend", home) as backend:
        assert COMPLETED == backend.ended(backend.start_load("past").operation_id).status
    return home


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_backend_killed_at_any_write_of_its_own_work_knows_what_became_of_it(
    home_with_a_past: Path, tmp_path: Path, when: str
) -> None:
    for number in count(1):
        home = tmp_path / str(number)
        shutil.copytree(home_with_a_past, home)
        with KtrdrProcess("backend", home, crash=(number, when)) as crashing:
            crashed, seen = crashed_during(crashing, "cut-off")
            if not crashed:
                break  # it makes fewer writes
            crashing.process.wait(20)
        with KtrdrProcess("backend", home) as backend:
            assert (0, 0) == (backend.listed().active_count, len(_open(backend)))
            kept = found(backend, "op_data_cut-off")
            if seen is not None and seen.status in TERMINAL:
                assert kept is not None
                assert seen.status == kept.status
            if kept is not None and kept.status != COMPLETED:
                assert (FAILED, "PROCESS_RESTARTED", True) == (
                    kept.status,
                    kept.error.reason,
                    kept.error.retryable,
                )
            again = backend.start_load("cut-off").operation_id
            assert "op_data_cut-off" == again
            if kept is None:
                assert COMPLETED == backend.ended(again).status
            assert COMPLETED == backend.ended(backend.start_load("next").operation_id).status
            past = backend.look("op_data_past")
            assert (COMPLETED, 2, True) == (
                past.operation.status,
                len(past.metrics),
                past.operation.HasField("result"),
            )
        assert number < MOST_CALLS
    assert number > 4, "created, pruned, begun, ended"


@pytest.fixture(scope="module")
def ib_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KtrdrProcess]:
    with KtrdrProcess("ib_host", tmp_path_factory.mktemp("host"), **SIMULATED) as host:
        yield host


def front_of(host: KtrdrProcess) -> dict[str, Any]:
    return {"KTRDR_DATA_SOURCE": "ib", "IB_HOST_SERVICE_URL": host.address}


def test_a_backend_killed_at_any_write_finds_its_hosts_work_again(
    tmp_path: Path, ib_host: KtrdrProcess
) -> None:
    for number in count(1):
        home, request_id = tmp_path / str(number), f"front-{number}"
        with KtrdrProcess(
            "backend", home, crash=(number, "after"), **front_of(ib_host)
        ) as crashing:
            if not crashed_during(crashing, request_id)[0]:
                break
            crashing.process.wait(20)
        with KtrdrProcess("backend", home, **front_of(ib_host)) as backend:
            operation_id = f"op_data_{request_id}"
            ended = backend.ended(operation_id)
            kept = found(backend, operation_id)
            at_host = found(ib_host, f"host_data_{operation_id}")
            assert kept is not None
            assert ended.status == kept.status
            if at_host is None:
                assert kept.error.reason == "NEVER_STARTED"
            else:
                assert (at_host.status, at_host.metrics_count) == (
                    kept.status,
                    kept.metrics_count,
                )
            assert [] == _open(backend)
        assert number < MOST_CALLS
    assert number > 5, "created, pruned, given to the host, running, ended"


def test_a_host_killed_at_any_write_tells_after_its_restart_what_became_of_its_work(
    tmp_path: Path,
) -> None:
    for number in count(1):
        home, operation_id = tmp_path / f"host-{number}", "op_data_cut-off"
        with KtrdrProcess("ib_host", home, crash=(number, "after"), **SIMULATED) as crashing:
            address = crashing.address
            front = KtrdrProcess("backend", tmp_path / f"b-{number}", **front_of(crashing))
            with front as backend:
                if not crashed_during(backend, "cut-off")[0]:
                    break
                crashing.process.wait(20)
                with KtrdrProcess(
                    "ib_host", home, **SIMULATED, KTRDR_IB_HOST_ADDRESS=address
                ) as host:
                    kept = found(backend, operation_id)
                    if kept is not None:  # else the start was refused for good
                        ended = backend.ended(operation_id)
                        at_host = found(host, f"host_data_{operation_id}")
                        assert at_host is not None
                        assert at_host.status == ended.status
                        assert ended.status == COMPLETED or (
                            ended.error.reason == "PROCESS_RESTARTED"
                        )
                    assert [] == _open(backend)
                    assert [] == _open(host)
        assert number < MOST_CALLS
    assert number > 4, "created, pruned, begun, ended"


def _open(process: KtrdrProcess) -> list[str]:
    """What is open, as listed after a refresh."""
    return [each.operation_id for each in process.listed(active_only=True).operations]
