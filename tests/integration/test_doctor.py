"""The doctor against real servers: each way in which work can be unwell, told apart."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest

from backend.cli import diagnosis, examination
from backend.cli.app import main
from backend.cli.client import Backend
from backend.cli.diagnosis import diagnose
from backend.cli.examination import examine
from backend.cli.failures import ExitCode
from backend.cli.pace import Pace
from backend.cli.signs import Diagnosis
from ktrdr.operations.v1.operation_pb2 import OPERATION_TYPE_TRAINING
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import OperationRecord
from shared.operations.starts import Launch
from shared.operations.worker_pool import Job
from shared.rpc.errors import StoreUnavailableError
from shared.training.launcher import TrainingOrder
from tests.integration.hosted import Hosted, backend_on, host_id, hosted, let_end
from tests.integration.running import CANCELLING, RunningBackend, running_backend
from tests.support.eventually import eventually
from tests.support.false_hosts import HTTP_1, NOISE, says
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.relay import Relay
from tests.support.rpc import served
from tests.support.scripted_work import RESULT, ScriptedLaunch, ScriptedWork

HALF_AN_HOUR = 1_800.0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path, cache_ttl=1.0) as pair:
        yield pair


def seen(running: RunningBackend, stale_after: float = HALF_AN_HOUR) -> dict[str, Diagnosis]:
    """What the doctor finds, by operation."""
    with Backend(running.address) as backend:
        found = [diagnose(one, stale_after) for one in examine(backend, Pace())]
    return {one.operation.operation_id: one for one in found}


def states(found: Diagnosis) -> tuple[str, str, str]:
    """The answers to the three questions."""
    return found.host.state, found.worker.state, found.progress.state


class VanishingLaunch(ScriptedLaunch):
    """Work whose thread ends without a word."""

    def begin(self, operation_id: str) -> None:
        """Register the bridge and take the work up, on a thread that leaves it at that."""
        self._operations.register_local_bridge(operation_id, self._work.bridge)

        def vanish() -> None:
            self._operations.begin_operation(operation_id)

        self._pool.submit(Job(vanish, self._work.bridge.cancel))


@contextmanager
def losing_workers(host: ScriptedHost) -> Iterator[None]:
    """Have every worker of a host vanish; at the end, their operations are ended."""

    def launch(order: TrainingOrder, deadline: float = inf) -> Launch:
        work = ScriptedWork(host_id(order.request_id))
        return VanishingLaunch(host.operations, host.pool, work)

    host.launch = launch  # type: ignore[method-assign]  # in place of work that can be scripted
    try:
        yield
    finally:
        for live, _ in host.operations._local():
            host.operations.complete_operation(live.operation_id, RESULT)


# ---------------------------------------------------------------------------- on a host


def test_a_training_on_a_host_that_goes_at_its_pace_is_well(pair: Hosted) -> None:
    operation_id, _ = pair.training(3)
    found = seen(pair.running)[operation_id]
    assert ("ANSWERS", "ALIVE", "STEADY") == states(found)
    assert not found.wrong
    assert pair.relay.address == found.host.facts["address"]
    assert "epoch" == found.progress.facts["usualOf"]


def test_a_host_that_is_down_is_silent_and_nothing_is_said_of_its_workers(pair: Hosted) -> None:
    operation_id, _ = pair.training(3)
    pair.relay.cut()
    found = seen(pair.running)[operation_id]
    assert ("SILENT", "UNKNOWN", "UNKNOWN") == states(found)
    assert "the connection was refused" in found.host.why
    assert found.remedy is not None
    assert found.remedy.advice.startswith(f"Start the host at {pair.relay.address};")


def test_a_host_that_is_frozen_is_silent_and_holds_nobody_up_for_long(
    pair: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "DEADLINE", 0.5)
    ids = [pair.training(2)[0] for _ in range(4)]
    queued = [pair.running.train() for _ in range(4)]  # four workers, four places to wait
    reads = pair.host.calls["GetOperation"]
    pair.relay.freeze()
    try:
        found = seen(pair.running)
    finally:
        pair.relay.thaw()

    assert {*ids, *queued} == found.keys()
    assert {("SILENT", "UNKNOWN", "UNKNOWN")} == {states(one) for one in found.values()}
    assert all("did not answer within" in one.host.why for one in found.values())
    eventually(lambda: not pair.running.backend.operations._refresher.outages._waiting)
    assert pair.host.calls["GetOperation"] - reads < 8 * 3  # listed once, few read


def test_another_instance_at_the_hosts_address_is_the_wrong_one(
    pair: Hosted, tmp_path: Path
) -> None:
    operation_id, _ = pair.training(3)
    with scripted_host(tmp_path / "other") as other:
        pair.lead_to(other.address)
        found = seen(pair.running)[operation_id]
    assert ("WRONG", "UNKNOWN", "UNKNOWN") == states(found)
    assert found.remedy is not None
    assert found.remedy.advice.endswith(f"back to {pair.relay.address}.")


def test_another_server_at_the_hosts_address_is_no_host(pair: Hosted) -> None:
    operation_id, _ = pair.training(3)
    with served([]) as stranger:
        pair.lead_to(stranger.address)
        found = seen(pair.running)[operation_id]
    assert ("MALFORMED", "UNKNOWN", "UNKNOWN") == states(found)


@pytest.mark.parametrize("answer", [HTTP_1, NOISE], ids=["http/1", "noise"])
def test_what_speaks_no_grpc_at_the_hosts_address_does_not_answer(
    pair: Hosted, answer: bytes
) -> None:
    operation_id, _ = pair.training(3)
    with says(answer) as stranger:
        pair.lead_to(stranger)
        found = seen(pair.running)[operation_id]
    assert ("SILENT", "UNKNOWN", "UNKNOWN") == states(found)


def test_a_host_that_answers_beside_one_that_does_not_is_well(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "a") as first,
        scripted_host(tmp_path / "b") as second,
        closing(Relay(first.address)) as relay,
        backend_on(tmp_path, relay.address, second.address) as running,
    ):
        ids = [running.train() for _ in range(2)]
        relay.cut()
        found = [states(seen(running)[id_]) for id_ in ids]
        assert [("ANSWERS", "ALIVE", "STARTING"), ("SILENT", "UNKNOWN", "UNKNOWN")] == sorted(found)
        relay.restore()
        let_end(first, second)


def test_a_worker_that_is_gone_is_told_from_a_host_that_is(pair: Hosted) -> None:
    with losing_workers(pair.host):
        operation_id = pair.running.train()
        eventually(lambda: "GONE" == seen(pair.running)[operation_id].worker.state)
        found = seen(pair.running)[operation_id]
        assert ("ANSWERS", "GONE", "STOPPED") == states(found)
        assert found.remedy is not None
        assert f"See the log of the host at {pair.relay.address}." in found.remedy.advice

        pair.relay.cut()
        assert ("SILENT", "UNKNOWN", "UNKNOWN") == states(seen(pair.running)[operation_id])
        pair.relay.restore()


def test_a_worker_that_reports_nothing_is_silent_though_its_thread_lives(pair: Hosted) -> None:
    operation_id, work = pair.training(3)
    eventually(lambda: "SILENT" == seen(pair.running, 0.1)[operation_id].progress.state)
    assert ("ANSWERS", "ALIVE", "SILENT") == states(seen(pair.running, 0.1)[operation_id])
    work.report_epochs(1, first=3)
    assert ("ANSWERS", "ALIVE", "STEADY") == states(seen(pair.running, 10.0)[operation_id])


def test_a_worker_far_behind_its_own_pace_is_slow(
    pair: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(diagnosis.LEAST_LAG, OPERATION_TYPE_TRAINING, 0.2)
    operation_id, _ = pair.training(5)  # one after the other, each in less than a millisecond
    eventually(lambda: "SLOW" == seen(pair.running)[operation_id].progress.state)
    found = seen(pair.running)[operation_id]
    assert ("ANSWERS", "ALIVE", "SLOW") == states(found)
    assert "for the next epoch, which usually takes" in found.progress.why


class FullStore(MemoryOperationStore):
    """A store that takes no terminal record while it is full."""

    full = True

    def finish(self, *args: Any, **kwargs: Any) -> OperationRecord | None:
        """Keep the record, unless full."""
        if self.full:
            raise StoreUnavailableError("The record could not be written: no space left.")
        return super().finish(*args, **kwargs)


def test_work_whose_end_cannot_be_recorded_is_no_dead_worker(tmp_path: Path) -> None:
    store = FullStore()
    with hosted(tmp_path, cache_ttl=1.0, store=store) as pair:
        operation_id, work = pair.training(3)
        work.finish()
        eventually(lambda: "ENDED" == seen(pair.running)[operation_id].worker.state)
        found = seen(pair.running)[operation_id]
        assert ("STORE_AWAY", "ENDED", "ENDED") == states(found)
        assert "no space left" in found.host.why
        assert found.remedy is not None
        assert f"the records of the host at {pair.relay.address}" in found.remedy.advice

        store.full = False
        eventually(lambda: {} == seen(pair.running))


def test_a_training_that_waits_for_a_worker_of_its_host_is_queued(pair: Hosted) -> None:
    for _ in range(4):
        pair.training(1)
    operation_id = pair.running.train()
    found = seen(pair.running)[operation_id]
    assert ("ANSWERS", "QUEUED", "QUEUED") == states(found)
    assert not found.wrong


def test_a_worker_that_does_not_notice_its_cancellation_is_a_finding(pair: Hosted) -> None:
    operation_id, work = pair.training(3)
    assert CANCELLING == pair.running.cancel(operation_id).status
    young = seen(pair.running)[operation_id]
    assert ("ANSWERS", "ALIVE", "CANCELLING") == states(young)
    assert not young.wrong

    eventually(lambda: seen(pair.running, 0.1)[operation_id].wrong)
    old = seen(pair.running, 0.1)[operation_id]
    assert ("ANSWERS", "ALIVE", "CANCELLING") == states(old)
    assert "its worker has not noticed" in old.progress.why
    work.notice_cancel()
    eventually(lambda: operation_id not in seen(pair.running))


# ------------------------------------------------------------------- in the backend itself


@pytest.fixture
def local(tmp_path: Path) -> Iterator[RunningBackend]:
    with running_backend(tmp_path, training_workers=1) as running:
        yield running


def test_the_backends_own_work_is_judged_alike(local: RunningBackend) -> None:
    work, queued = local.scripted.start_running(), local.scripted.start()
    work.report_epochs(3)
    found = seen(local)
    assert ("ANSWERS", "ALIVE", "STEADY") == states(found[work.operation_id])
    assert ("ANSWERS", "QUEUED", "QUEUED") == states(found[queued.operation_id])
    assert "address" not in found[work.operation_id].host.facts


def test_what_has_ended_is_not_looked_after(local: RunningBackend) -> None:
    work = local.scripted.start_running()
    work.finish()
    local.ended(work.operation_id)
    assert {} == seen(local)


def test_a_hundred_operations_are_seen_each_once_newest_first(tmp_path: Path) -> None:
    with running_backend(tmp_path, training_workers=1, training_queue=100) as running:
        ids = [running.scripted.start().operation_id for _ in range(100)]
        assert list(reversed(ids)) == list(seen(running))


# -------------------------------------------------------------------------- as a command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `ktrdr` in this process; exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    printed = capsys.readouterr()
    return int(str(left.value.code)), printed.out, printed.err


def test_the_command_tells_by_its_exit_code(
    pair: Hosted, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor = ("operations", "doctor", "--backend", pair.running.address)
    assert (ExitCode.DONE, "", "Nothing waits or runs.\n") == run(capsys, *doctor)

    operation_id, _ = pair.training(3)
    code, _, told = run(capsys, *doctor)
    assert (ExitCode.DONE, "1 open operation; all is well.\n") == (code, told)
    assert (ExitCode.DONE, "", "") == run(capsys, *doctor, "--quiet")

    pair.relay.cut()
    code, printed, _ = run(capsys, *doctor, "--format", "json")
    document: dict[str, Any] = json.loads(printed)
    assert ExitCode.FAILED == code
    assert [operation_id] == [one["operationId"] for one in document["operations"]]
    pair.relay.restore()


def test_the_looks_of_the_doctor_leave_no_thread_behind(pair: Hosted) -> None:
    pair.training(1)
    seen(pair.running)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("doctor")]
