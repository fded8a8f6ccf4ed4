"""The standard front door, driven by the standard client: google-api-core knows no ktrdr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias

import grpc
import pytest
from google.api_core import exceptions, gapic_v1, operation, operations_v1, retry
from google.api_core.future.polling import DEFAULT_POLLING
from google.longrunning import operations_pb2 as lro
from google.longrunning import operations_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ib_host.__main__ import build_ib_host
from ib_host.settings import IbHostSettings
from ktrdr.operations.v1 import operation_pb2
from ktrdr.training.v1 import training_pb2
from shared.operations.longrunning_servicer import SERVICE_NAME
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import PackedResult
from shared.process import Process, stop
from tests.integration.hosted import Hosted, hosted
from tests.integration.refusals import refused
from tests.integration.running import (
    BARS,
    CANCELLED,
    CANCELLING,
    COMPLETED,
    RUNNING,
    RunningBackend,
    running_backend,
)
from tests.support.eventually import eventually
from tests.support.hosts import new_instance
from tests.support.scripted_work import PATIENCE, ScriptedWork
from training_host.__main__ import build_training_host
from training_host.settings import TrainingHostSettings

LroFuture: TypeAlias = operation.Operation
QUICKLY = DEFAULT_POLLING.with_delay(initial=0.01, maximum=0.05)
TRAINED = training_pb2.TrainingResult(model_name="small/1d_v1", epochs_trained=7, seed=3)


@pytest.fixture
def client(running: RunningBackend) -> Any:
    """Google's client of long-running operations."""
    return operations_v1.OperationsClient(running.channel)


@pytest.fixture
def stub(running: RunningBackend) -> Any:
    """The standard's generated stub, for what Google's client leaves out."""
    return operations_pb2_grpc.OperationsStub(running.channel)


@pytest.fixture
def work(running: RunningBackend) -> Iterator[ScriptedWork]:
    """Work that runs until the test has ended."""
    work = running.scripted.start_running()
    yield work
    work.finish()


def name_of(work: ScriptedWork) -> str:
    """What a standard client calls the operation of some work."""
    return f"operations/{work.operation_id}"


def future_of(client: Any, name: str) -> LroFuture:
    """Google's future of an operation."""
    future: LroFuture = operation.from_gapic(
        client.get_operation(name),
        client,
        training_pb2.TrainingResult,
        metadata_type=operation_pb2.Operation,
        polling=QUICKLY,
    )
    return future


def whole(of: lro.Operation) -> operation_pb2.Operation:
    """The operation that a standard one carries."""
    unpacked = operation_pb2.Operation()
    assert of.metadata.Unpack(unpacked)
    return unpacked


def let_end(running: RunningBackend) -> None:
    """Let all work end, so that stopping takes no time."""
    running.scripted.finish_all()
    eventually(lambda: not running.backend.operations._local())


def packed(result: training_pb2.TrainingResult) -> PackedResult:
    """A result as work returns it."""
    return PackedResult(
        f"type.googleapis.com/{result.DESCRIPTOR.full_name}", result.SerializeToString()
    )


# ------------------------------------------------------------------ to the end


def test_a_future_is_followed_to_the_typed_result(
    running: RunningBackend, client: Any, work: ScriptedWork
) -> None:
    work.result = packed(TRAINED)
    work.report_epochs(4)
    running.operation(work.operation_id)  # reads now
    future = future_of(client, name_of(work))

    assert not future.done()
    assert (RUNNING, 4) == (future.metadata.status, future.metadata.metrics_count)
    assert "Epoch 4/10" in future.metadata.progress.message
    work.finish()
    assert TRAINED == future.result(timeout=PATIENCE)
    assert (COMPLETED, 4) == (future.metadata.status, future.metadata.metrics_count)


def test_a_failure_is_raised_with_its_code_and_reason(client: Any, work: ScriptedWork) -> None:
    future = future_of(client, name_of(work))
    work.fail(ValueError("broken"))

    with pytest.raises(exceptions.InternalServerError, match="ValueError: broken") as raised:
        future.result(timeout=PATIENCE)

    (status,) = raised.value.errors
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert ("ktrdr", "WORKER_RAISED") == (info.domain, info.reason)
    assert {"exception": "ValueError"} == dict(info.metadata)
    assert not future.cancelled()


def test_a_cancellation_ends_cancelled_once_the_worker_has_stopped(
    client: Any, work: ScriptedWork
) -> None:
    future = future_of(client, name_of(work))

    assert future.cancel()
    between = client.get_operation(name_of(work))
    assert (False, CANCELLING) == (between.done, whole(between).status)
    work.notice_cancel()
    with pytest.raises(exceptions.Cancelled):
        future.result(timeout=PATIENCE)
    assert future.cancelled()
    assert (code_pb2.CANCELLED, CANCELLED) == (
        future.operation.error.code,
        future.metadata.status,
    )
    assert not future.cancel(), "there is nothing left to cancel"


def test_what_has_ended_is_the_contracts_operation_to_the_last_field(
    running: RunningBackend, client: Any, work: ScriptedWork
) -> None:
    work.finish()
    ended = running.ended(work.operation_id)

    got = client.get_operation(name_of(work))

    assert (name_of(work), True) == (got.name, got.done)
    assert ended == whole(got)
    assert ended.result == got.response


# ------------------------------------------------------------------ names, errors


def test_a_bare_id_is_understood_and_answered_with_the_name(
    client: Any, work: ScriptedWork
) -> None:
    assert name_of(work) == client.get_operation(work.operation_id).name


@pytest.mark.parametrize(
    "call", ["get_operation", "cancel_operation", "delete_operation"], ids=lambda call: call
)
def test_an_unknown_operation_is_not_found_with_our_reason(client: Any, call: str) -> None:
    with pytest.raises(exceptions.NotFound, match="There is no operation 'nobody'") as raised:
        getattr(client, call)("operations/nobody")

    assert ("ktrdr", "OPERATION_NOT_FOUND") == (raised.value.domain, raised.value.reason)
    assert "nobody" == raised.value.metadata["operation_id"]


@pytest.mark.parametrize("method", ["Get", "Cancel", "Delete", "Wait"])
@pytest.mark.parametrize("name", ["", "operations/", "x" * 300], ids=["none", "no id", "long"])
def test_a_bad_name_is_refused_in_the_requests_own_words(stub: Any, method: str, name: str) -> None:
    request = getattr(lro, f"{method}OperationRequest")(name=name)
    refusal = refused(lambda: getattr(stub, f"{method}Operation")(request, timeout=5))

    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert ["name"] == [*refusal.fields]


# ------------------------------------------------------------------ listings


@pytest.fixture
def several(tmp_path: Path) -> Iterator[tuple[RunningBackend, list[ScriptedWork]]]:
    """A backend with two operations that have ended and three that run, oldest first."""
    with running_backend(tmp_path, training_workers=3) as running:
        works = [running.scripted.start_running() for _ in range(2)]
        works[0].finish()
        works[1].fail(ValueError("broken"))
        for work in works:
            running.ended(work.operation_id)
        works += [running.scripted.start_running() for _ in range(3)]
        yield running, works
        let_end(running)


def listed(running: RunningBackend, expression: str = "", parent: str = "operations") -> list[str]:
    """What Google's client finds, over all pages."""
    client: Any = operations_v1.OperationsClient(running.channel)
    return [found.name for found in client.list_operations(parent, expression)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", [4, 3, 2, 1, 0]),
        ("done = false", [4, 3, 2]),
        ("done = true", [1, 0]),
        ("status = FAILED", [1]),
        ("type = TRAINING AND done = true", [1, 0]),
        ("type = DATA_LOADING", []),
        ("done = true AND status = RUNNING", []),
    ],
)
def test_operations_are_listed_newest_first_by_filter(
    several: tuple[RunningBackend, list[ScriptedWork]], expression: str, expected: list[int]
) -> None:
    running, works = several

    assert [name_of(works[index]) for index in expected] == listed(running, expression)


def test_a_listing_is_read_page_by_page(
    several: tuple[RunningBackend, list[ScriptedWork]],
) -> None:
    running, works = several
    stub: Any = operations_pb2_grpc.OperationsStub(running.channel)
    pages: list[list[str]] = []
    request = lro.ListOperationsRequest(filter="type = TRAINING", page_size=2)
    while not pages or request.page_token:
        page = stub.ListOperations(request, timeout=5)
        pages.append([found.name for found in page.operations])
        request.page_token = page.next_page_token

    names = [name_of(work) for work in reversed(works)]
    assert [names[:2], names[2:4], names[4:]] == pages
    other = lro.ListOperationsRequest(
        filter="done = true",
        page_token=stub.ListOperations(
            lro.ListOperationsRequest(page_size=2), timeout=5
        ).next_page_token,
    )
    assert ["page_token"] == [*refused(lambda: stub.ListOperations(other, timeout=5)).fields]


def test_the_parent_of_a_listing_is_operations_or_nothing(
    several: tuple[RunningBackend, list[ScriptedWork]],
) -> None:
    running, works = several

    assert len(works) == len(listed(running, parent=""))
    with pytest.raises(exceptions.InvalidArgument, match="name: must be 'operations'"):
        listed(running, parent="projects/mine")


def test_a_filter_that_is_not_understood_is_refused_with_the_mend(running: RunningBackend) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="done, status or type = VALUE") as raised:
        listed(running, "metadata.symbols:IBM")

    assert "INVALID_ARGUMENT" == raised.value.reason


# ------------------------------------------------------------------ waiting


def wait(stub: Any, name: str, seconds: float | None = None, timeout: float = PATIENCE) -> Any:
    request = lro.WaitOperationRequest(name=name)
    if seconds is not None:
        request.timeout.FromMilliseconds(int(seconds * 1000))
    return stub.WaitOperation(request, timeout=timeout)


def free_slots(running: RunningBackend) -> int:
    return running.backend.operations._room._free


def begin_wait(running: RunningBackend, name: str) -> Any:
    """Send a wait of a minute and return once it has a slot."""
    stub: Any = operations_pb2_grpc.OperationsStub(running.channel)
    free = free_slots(running)
    request = lro.WaitOperationRequest(name=name, timeout=Duration(seconds=60))
    call = stub.WaitOperation.future(request)
    eventually(lambda: free_slots(running) == free - 1)
    return call


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[RunningBackend]:
    """A backend with one waiting slot."""
    with running_backend(tmp_path, wait_limit=1, training_workers=2) as running:
        yield running
        let_end(running)


def test_a_wait_answers_when_the_operation_ends(
    running: RunningBackend, work: ScriptedWork
) -> None:
    call = begin_wait(running, name_of(work))
    assert not call.done()
    work.finish()

    assert call.result(PATIENCE).done


def test_a_wait_answers_at_its_timeout_with_the_latest_state(stub: Any, work: ScriptedWork) -> None:
    work.report_epochs(2)
    began = monotonic()
    got = wait(stub, name_of(work), 0.2)

    assert 0.2 <= monotonic() - began < 5
    assert (False, RUNNING) == (got.done, whole(got).status)


def test_the_deadline_counts_if_it_is_shorter_than_the_timeout(
    stub: Any, work: ScriptedWork
) -> None:
    for seconds in (60, None):
        assert not wait(stub, name_of(work), seconds, timeout=0.4).done


def test_without_a_timeout_a_wait_lasts_as_long_as_any_may(
    running: RunningBackend, stub: Any, work: ScriptedWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    operations = running.backend.operations
    wait_in_place = operations.wait_in_place

    def note(operation_id: str, timeout: float, *rest: Any, **more: Any) -> Any:
        asked.append(timeout)
        return wait_in_place(operation_id, 0.0, *rest, **more)

    monkeypatch.setattr(operations, "wait_in_place", note)
    for seconds in (None, 7, 61):
        wait(stub, name_of(work), seconds)

    assert [60, 7, 60] == asked


def test_a_negative_timeout_is_refused(stub: Any, work: ScriptedWork) -> None:
    assert ["timeout"] == [*refused(lambda: wait(stub, name_of(work), -1)).fields]


def test_a_client_that_goes_away_frees_its_slot(narrow: RunningBackend) -> None:
    work = narrow.scripted.start_running()
    assert begin_wait(narrow, name_of(work)).cancel()

    eventually(lambda: free_slots(narrow) == 1)


def test_one_without_a_slot_is_told_when_to_come_back_in_the_way_clients_know(
    narrow: RunningBackend,
) -> None:
    work = narrow.scripted.start_running()
    first = begin_wait(narrow, name_of(work))
    stub: Any = operations_pb2_grpc.OperationsStub(narrow.channel)
    refusals = [refused(lambda: wait(stub, name_of(work), 60)) for _ in range(20)]

    assert {grpc.StatusCode.UNAVAILABLE} == {refusal.code for refusal in refusals}
    assert {"WAIT_LIMIT_REACHED"} == {refusal.reason for refusal in refusals}
    delays = [refusal.retry_after or 0.0 for refusal in refusals]
    assert all(0.25 <= delay <= 30 for delay in delays)
    assert len(set(delays)) > 10, "they would all come back at once"
    pushed_back = [refusal.trailers["grpc-retry-pushback-ms"] for refusal in refusals]
    assert [str(round(1000 * delay)) for delay in delays] == pushed_back
    assert not first.done()


def counted(running: RunningBackend, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The instants at which waits of the standard come in."""
    came: list[float] = []
    operations = running.backend.operations
    wait_in_place = operations.wait_in_place

    def count(*args: Any, **more: Any) -> Any:
        came.append(monotonic())
        return wait_in_place(*args, **more)

    monkeypatch.setattr(operations, "wait_in_place", count)
    return came


def test_a_channel_that_retries_comes_back_when_it_was_told(
    narrow: RunningBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (narrow.scripted.start_running() for _ in range(2))
    before = begin_wait(narrow, name_of(first))
    came = counted(narrow, monkeypatch)
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.001s",
        "maxBackoff": "0.001s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {"methodConfig": [{"name": [{"service": SERVICE_NAME}], "retryPolicy": policy}]}
    options = [("grpc.service_config", json.dumps(config))]
    with grpc.insecure_channel(narrow.address, options) as channel:
        stub: Any = operations_pb2_grpc.OperationsStub(channel)
        call = stub.WaitOperation.future(lro.WaitOperationRequest(name=name_of(second)))
        eventually(lambda: len(came) == 1)
        first.finish()
        assert before.result(PATIENCE).done
        eventually(lambda: len(came) == 2)
        second.finish()

        assert call.result(PATIENCE).done
    assert came[1] - came[0] > 0.25


def test_googles_retry_waits_its_turn_and_gets_the_end(narrow: RunningBackend) -> None:
    work = narrow.scripted.start_running()
    first = begin_wait(narrow, name_of(work))
    stub: Any = operations_pb2_grpc.OperationsStub(narrow.channel)
    errors: list[Exception] = []

    def note(error: Exception) -> None:
        errors.append(error)
        if len(errors) == 3:
            work.finish()

    patient = retry.Retry(initial=0.01, timeout=PATIENCE, on_error=note)
    mapped: Callable[..., Any] = gapic_v1.method.wrap_method(
        stub.WaitOperation, default_retry=patient
    )
    got = mapped(lro.WaitOperationRequest(name=name_of(work)))

    assert got.done
    assert first.result(PATIENCE).done
    assert {exceptions.ServiceUnavailable} == {type(error) for error in errors}


def test_a_loop_of_waits_does_not_spin_while_the_host_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hosted(tmp_path) as its:
        operation_id, _ = its.training()
        stub: Any = operations_pb2_grpc.OperationsStub(its.running.channel)
        its.relay.cut()
        came = counted(its.running, monkeypatch)
        began = monotonic()
        while monotonic() - began < 1.5:
            got = wait(stub, operation_id, 60)
            assert (RUNNING, "HOST_UNREACHABLE") == (
                whole(got).status,
                whole(got).freshness.refresh_error.reason,
            )
        its.relay.restore()

    assert len(came) <= 6


# ------------------------------------------------------------------ deleting


def test_a_finished_operation_is_forgotten_and_a_running_one_is_not(
    running: RunningBackend, client: Any, work: ScriptedWork
) -> None:
    with pytest.raises(exceptions.FailedPrecondition) as raised:
        client.delete_operation(name_of(work))
    assert "OPERATION_ACTIVE" == raised.value.reason
    work.finish()
    running.ended(work.operation_id)

    client.delete_operation(name_of(work))

    with pytest.raises(exceptions.NotFound):
        client.get_operation(name_of(work))


# ------------------------------------------------------------------ work elsewhere


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Hosted]:
    """A backend and its training host, with a network in between."""
    with hosted(tmp_path) as its:
        yield its


def test_work_on_a_host_is_followed_to_its_end_through_the_backend(two: Hosted) -> None:
    operation_id, work = two.training(epochs=2)
    work.result = packed(TRAINED)
    client: Any = operations_v1.OperationsClient(two.running.channel)
    future = future_of(client, f"operations/{operation_id}")

    assert 2 == len(future.metadata.freshness.path)
    work.finish()
    assert TRAINED == future.result(timeout=PATIENCE)


def test_a_host_that_is_away_is_named_to_those_who_ask(two: Hosted) -> None:
    operation_id, _ = two.training()
    stub: Any = operations_pb2_grpc.OperationsStub(two.running.channel)
    two.relay.cut()
    plain = stub.ListOperations(lro.ListOperationsRequest(), timeout=PATIENCE)
    partial = stub.ListOperations(
        lro.ListOperationsRequest(return_partial_success=True), timeout=PATIENCE
    )

    assert ([], [two.relay.address]) == ([*plain.unreachable], [*partial.unreachable])
    for answer in (plain, partial):
        (found,) = answer.operations
        assert f"operations/{operation_id}" == found.name
        assert "HOST_UNREACHABLE" == whole(found).freshness.refresh_error.reason
    two.relay.restore()


# ------------------------------------------------------------------ every process


def training_host(home: Path) -> Process:
    settings = TrainingHostSettings(training_host_address="127.0.0.1:0", home=home)
    return build_training_host(settings, new_instance(), MemoryOperationStore(), BARS)


def ib_host(home: Path) -> Process:
    settings = IbHostSettings(ib_host_address="127.0.0.1:0", home=home)
    return build_ib_host(settings, new_instance(), MemoryOperationStore(), BARS)


@pytest.fixture(params=[training_host, ib_host])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[grpc.Channel]:
    """One of the processes that are no backend."""
    process = request.param(tmp_path)
    address = process.server.bind()
    process.server.start()
    try:
        with grpc.insecure_channel(address) as channel:
            yield channel
    finally:
        stop(process.server, process.operations, process.pools, grace=0.0)


def assert_served(channel: grpc.Channel) -> None:
    """The standard service is there, healthy and told by reflection."""
    stub: Any = operations_pb2_grpc.OperationsStub(channel)
    health: Any = health_pb2_grpc.HealthStub(channel)
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = reflection.ServerReflectionInfo(asked, timeout=5)

    assert SERVICE_NAME in {found.name for found in answer.list_services_response.service}
    assert (
        health_pb2.HealthCheckResponse.SERVING
        == health.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=5).status
    )
    assert [] == [*stub.ListOperations(lro.ListOperationsRequest(), timeout=5).operations]


def test_a_host_serves_it_too(other: grpc.Channel) -> None:
    assert_served(other)


def test_so_does_a_backend(narrow: RunningBackend) -> None:
    assert_served(narrow.channel)
