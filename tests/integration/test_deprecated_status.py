"""The deprecated look at a training: the old shape, answered from the operations service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import pytest

from backend.training_adapter import TrainingAdapter, TrainingHost
from ktrdr.operations.v1 import operation_pb2, operations_service_pb2_grpc
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_host_service_pb2 as old_pb
from ktrdr.training.v1 import (
    training_host_service_pb2_grpc,
    training_service_pb2,
    training_service_pb2_grpc,
)
from shared.rpc.errors import HostUnreachableError, NotFoundError
from shared.rpc.host_channel import HostChannel
from tests.integration.hosted import backend_on
from tests.integration.refusals import refused
from tests.integration.running import CANCELLED, COMPLETED, FAILED, SMALL, RunningBackend
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.relay import Relay
from tests.support.scripted_work import ScriptedWork

Operations = operations_service_pb2_grpc.OperationsServiceStub
SESSION = "abc"
OPERATION = "host_training_abc"
OLD_WORDS = {
    operation_pb2.OPERATION_STATUS_PENDING: "initialized",
    operation_pb2.OPERATION_STATUS_RUNNING: "running",
    operation_pb2.OPERATION_STATUS_CANCELLING: "running",
    COMPLETED: "completed",
    FAILED: "failed",
    CANCELLED: "stopped",
}


@pytest.fixture
def old(host: ScriptedHost) -> Iterator[training_host_service_pb2_grpc.TrainingHostServiceStub]:
    """The service as its old clients call it."""
    with grpc.insecure_channel(host.address) as channel:
        yield training_host_service_pb2_grpc.TrainingHostServiceStub(channel)


Old = training_host_service_pb2_grpc.TrainingHostServiceStub


def _start(host: ScriptedHost, session_id: str = SESSION) -> None:
    with grpc.insecure_channel(host.address) as channel:
        training_service_pb2_grpc.TrainingServiceStub(channel).StartTraining(
            training_service_pb2.StartTrainingRequest(request_id=session_id, strategy_yaml=SMALL)
        )


def _work(host: ScriptedHost) -> ScriptedWork:
    """The work, once a worker is at it."""
    work = host.works[OPERATION]
    work.step(lambda _: None)
    return work


def _status(old: Old, session_id: str = SESSION) -> old_pb.GetTrainingStatusResponse:
    request = old_pb.GetTrainingStatusRequest(session_id=session_id)
    answer: old_pb.GetTrainingStatusResponse = old.GetTrainingStatus(request)
    return answer


def _cancel(at_host: Operations) -> None:
    at_host.CancelOperation(pb.CancelOperationRequest(operation_id=OPERATION, reason="enough"))


def _told_alike(old: Old, at_host: Operations) -> old_pb.GetTrainingStatusResponse:
    """Ask both ways, and return the old answer once it is shown to say what the new one does."""
    request = pb.GetOperationRequest(operation_id=OPERATION, force_refresh=True)
    new = at_host.GetOperation(request).operation  # the old answer then comes from the cache
    told = _status(old)
    assert (SESSION, OLD_WORDS[new.status]) == (told.session_id, told.status)
    assert new.error.message == told.error
    assert (
        new.progress.percentage,
        new.progress.message,
        new.progress.current_step,
        new.progress.total_steps,
    ) == (
        told.progress.percentage,
        told.progress.current_step,
        told.progress.epoch,
        told.progress.total_epochs,
    )
    assert told.deprecated
    assert f"ktrdr.operations.v1.OperationsService/GetOperation {OPERATION}" == told.use_instead
    return told


def _end(at_host: Operations) -> None:
    answer = at_host.WaitOperation(pb.WaitOperationRequest(operation_id=OPERATION))
    assert answer.operation.status in {COMPLETED, FAILED, CANCELLED}


def test_a_training_in_the_queue_is_initialized(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "busy", workers=1) as host,
        grpc.insecure_channel(host.address) as channel,
    ):
        _start(host, "before")
        _start(host)
        told = _told_alike(Old(channel), Operations(channel))
        assert "initialized" == told.status
        assert (0, "", 0, 0, "") == (
            told.progress.percentage,
            told.progress.current_step,
            told.progress.epoch,
            told.progress.total_epochs,
            told.error,
        )


def test_a_training_at_work_is_running_with_its_progress(
    host: ScriptedHost, old: Old, at_host: Operations
) -> None:
    _start(host)
    work = _work(host)
    assert "running" == _told_alike(old, at_host).status
    work.step(lambda bridge: bridge.on_batch(2, 7, 40))
    told = _told_alike(old, at_host)
    assert ("running", "Epoch 3/10, batch 8/40") == (told.status, told.progress.current_step)
    assert (3, 10) == (told.progress.epoch, told.progress.total_epochs)
    assert 0 < told.progress.percentage < 100


def test_a_training_being_cancelled_is_running_still_and_then_stopped(
    host: ScriptedHost, old: Old, at_host: Operations
) -> None:
    _start(host)
    work = _work(host)
    _cancel(at_host)
    told = _told_alike(old, at_host)
    assert ("running", "") == (told.status, told.error)
    work.notice_cancel()
    _end(at_host)
    told = _told_alike(old, at_host)
    assert ("stopped", "The operation was cancelled on request.") == (told.status, told.error)


def test_a_training_with_a_result_is_completed(
    host: ScriptedHost, old: Old, at_host: Operations
) -> None:
    _start(host)
    work = _work(host)
    work.report_epochs(10)
    work.finish()
    _end(at_host)
    told = _told_alike(old, at_host)
    assert ("completed", "", 10) == (told.status, told.error, told.progress.epoch)


def test_a_training_that_raised_is_failed_and_says_why(
    host: ScriptedHost, old: Old, at_host: Operations
) -> None:
    _start(host)
    _work(host).fail(ValueError("a part came loose"))
    _end(at_host)
    told = _told_alike(old, at_host)
    assert "failed" == told.status
    assert "a part came loose" in told.error


def test_what_to_use_instead_works_as_it_is_named(
    host: ScriptedHost, old: Old, at_host: Operations
) -> None:
    _start(host)
    match = re.fullmatch(r"([\w.]+)/(\w+) (\S+)", _status(old).use_instead)
    assert match is not None
    service, method, operation_id = match.groups()
    assert ("ktrdr.operations.v1.OperationsService", "GetOperation") == (service, method)
    answer = at_host.GetOperation(pb.GetOperationRequest(operation_id=operation_id))
    assert OPERATION == answer.operation.operation_id


def test_a_session_nobody_knows_is_not_found(old: Old) -> None:
    refusal = refused(lambda: _status(old, "nobody"))
    assert (grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND") == (refusal.code, refusal.reason)
    assert "host_training_nobody" == refusal.metadata["operation_id"]


def test_a_session_id_is_required(old: Old) -> None:
    refusal = refused(lambda: _status(old, ""))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert {"session_id"} == set(refusal.fields)


def test_the_contract_marks_the_method_deprecated() -> None:
    service = old_pb.DESCRIPTOR.services_by_name["TrainingHostService"]
    assert service.methods_by_name["GetTrainingStatus"].GetOptions().deprecated


def test_a_backends_training_is_seen_the_old_way_under_its_session(
    front: RunningBackend, host: ScriptedHost, old: Old
) -> None:
    operation_id = front.train(request_id="far")
    work = host.work(operation_id)
    work.report_epochs(4)
    operation = front.operation(operation_id)
    told = _status(old, operation.metadata["session_id"])
    assert (operation_id, "running", 4) == (told.session_id, told.status, told.progress.epoch)
    assert operation.progress.percentage == told.progress.percentage


# ------------------------------------------------------------------ the adapter's old way


class Adapted:
    """An adapter of two hosts, each behind a network of its own."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.hosts = [stack.enter_context(scripted_host(home / f"host{n}")) for n in range(2)]
        self.relays = [stack.enter_context(closing(Relay(host.address))) for host in self.hosts]
        targets = [relay.address for relay in self.relays]
        self.front = stack.enter_context(backend_on(home / "backend", *targets))
        channels = [
            stack.enter_context(closing(HostChannel(target, "old-caller"))) for target in targets
        ]
        hosts = [TrainingHost(channel) for channel in channels]
        self.adapter = TrainingAdapter(self.front.backend.operations, hosts)


@pytest.fixture
def adapted(tmp_path: Path) -> Iterator[Adapted]:
    with ExitStack() as stack:
        yield Adapted(tmp_path, stack)


WARNING = re.escape("Use RemoteOperationStub.get_operation() instead")


def test_the_adapters_old_way_works_and_warns(adapted: Adapted) -> None:
    ids = [adapted.front.train(), adapted.front.train()]
    for count, (host, operation_id) in enumerate(zip(adapted.hosts, ids, strict=True), start=2):
        host.work(operation_id).report_epochs(count)
        operation = adapted.front.operation(operation_id)
        with pytest.deprecated_call(match=WARNING):
            told = adapted.adapter.get_training_status(operation_id)
        assert (operation_id, "running", "") == (told.session_id, told.status, told.error)
        assert operation.progress.percentage == told.percentage
        assert operation.progress.message == told.current_step
        assert told.use_instead.endswith(f"GetOperation host_training_{operation_id}")


def test_the_adapters_old_way_tells_why_a_training_failed(adapted: Adapted) -> None:
    operation_id = adapted.front.train()
    adapted.hosts[0].work(operation_id).fail(ValueError("a part came loose"))
    end = adapted.front.ended(operation_id)
    with pytest.deprecated_call(match=WARNING):
        told = adapted.adapter.get_training_status(operation_id)
    assert ("failed", end.error.message) == (told.status, told.error)


def test_the_adapters_old_way_says_if_no_host_knows_the_session(adapted: Adapted) -> None:
    with pytest.deprecated_call(match=WARNING), pytest.raises(NotFoundError) as raised:
        adapted.adapter.get_training_status("nobody")
    assert "OPERATION_NOT_FOUND" == raised.value.reason


def test_the_adapters_old_way_says_if_a_host_that_may_know_is_silent(adapted: Adapted) -> None:
    adapted.relays[0].cut()
    with pytest.deprecated_call(match=WARNING), pytest.raises(HostUnreachableError):
        adapted.adapter.get_training_status("nobody")


def test_the_docstring_of_the_old_way_names_the_new_one() -> None:
    text = TrainingAdapter.get_training_status.__doc__ or ""
    assert "RemoteOperationStub.get_operation" in text
    assert "GetOperation" in text
    assert "Deprecated" in text
