"""Trainings on a host through a backend: two ids, one work, and nothing of it in the backend."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1 import operations_service_pb2_grpc
from ktrdr.training.v1 import models_service_pb2 as models_pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from ktrdr.training.v1 import training_service_pb2_grpc
from shared.operations.conversion import time_of
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.store import OperationFilter
from shared.process import Process, stop
from shared.training.orchestrator import TrainingOrchestrator
from shared.training.result import TrainingResult
from tests.integration.hosted import backend_on, host_id
from tests.integration.refusals import refused
from tests.integration.running import (
    BARS,
    COMPLETED,
    PENDING,
    RUNNING,
    SMALL,
    RunningBackend,
    result_of,
    running_backend,
)
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost, new_instance, scripted_host
from tests.support.scripted_work import PATIENCE
from training_host.__main__ import build_training_host
from training_host.settings import TrainingHostSettings

Operations = operations_service_pb2_grpc.OperationsServiceStub
ALL = OperationFilter()
SHORT = {"model.training.epochs": "2"}


def _list(running: RunningBackend, **fields: object) -> pb.ListOperationsResponse:
    answer: pb.ListOperationsResponse = running.operations.ListOperations(
        pb.ListOperationsRequest(**fields)  # type: ignore[arg-type]  # fields as a test names them
    )
    return answer


# ------------------------------------------------------------------------- ids


def test_a_training_that_has_begun_and_not_reported_has_changed_as_it_began(
    front: RunningBackend, host: ScriptedHost
) -> None:
    operation_id = front.train()
    host.work(operation_id)

    operation = front.operation(operation_id)
    assert RUNNING == operation.status
    assert time_of(operation.update_time) >= time_of(operation.start_time)


def test_a_training_runs_on_the_host_and_is_read_through_the_backend(
    front: RunningBackend, host: ScriptedHost
) -> None:
    operation_id = front.train(request_id="abc")
    work = host.work(operation_id)
    work.report_epochs(3)

    operation = front.operation(operation_id)
    assert ("op_training_abc", RUNNING) == (operation.operation_id, operation.status)
    assert [1, 2, 3] == front.epochs(operation_id)
    work.finish()
    assert COMPLETED == front.ended(operation_id).status


def test_backend_and_host_take_the_same_start(front: RunningBackend, host: ScriptedHost) -> None:
    request = training_pb.StartTrainingRequest(
        request_id="same", strategy_yaml=SMALL, symbols=["IBM"], seed=3
    )
    here = front.training.StartTraining(request)
    with grpc.insecure_channel(host.address) as channel:
        there = training_service_pb2_grpc.TrainingServiceStub(channel).StartTraining(request)

    assert ("host_training_same", "same") == (there.operation.operation_id, there.session_id)
    assert ("op_training_same", "op_training_same") == (
        here.operation.operation_id,
        here.session_id,
    )
    assert {here.operation.status, there.operation.status} <= {PENDING, RUNNING}
    eventually(lambda: {"host_training_same", host_id("op_training_same")} == set(host.works))


def test_the_hosts_operation_is_named_after_the_session(
    front: RunningBackend, host: ScriptedHost, at_host: Operations
) -> None:
    request = training_pb.StartTrainingRequest(strategy_yaml=SMALL)
    started = front.training.StartTraining(request)
    name = f"host_training_{started.session_id}"

    assert started.operation.metadata["host_operation_id"] == name
    assert (
        name
        == at_host.GetOperation(pb.GetOperationRequest(operation_id=name)).operation.operation_id
    )


def test_clients_need_the_backends_id_and_no_other(
    front: RunningBackend, host: ScriptedHost
) -> None:
    operation_id = front.train(request_id="mine")
    work = host.work(operation_id)
    work.report_epochs(2)

    assert operation_id == front.operation(operation_id).operation_id
    page = front.operations.GetMetrics(pb.GetMetricsRequest(operation_id=operation_id))
    assert [1, 2] == [metric.step for metric in page.metrics]
    assert [operation_id] == [o.operation_id for o in _list(front).operations]
    assert operation_id == front.cancel(operation_id).operation_id
    work.finish()
    assert operation_id == front.ended(operation_id).operation_id
    unknown = refused(lambda: front.operation(host_id(operation_id)))
    assert (grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND") == (unknown.code, unknown.reason)


def test_the_metadata_is_a_local_trainings_and_says_who_trains(
    front: RunningBackend, host: ScriptedHost, at_host: Operations
) -> None:
    operation_id = front.train(
        request_id="facts",
        symbols=["IBM", "GOOG"],
        start_time={"seconds": 1_000_000_000},
        end_time={"seconds": 1_300_000_000},
        seed=5,
    )
    name = host_id(operation_id)
    facts = dict(front.operation(operation_id).metadata)

    where = {"host_operation_id": name, "host_service_url": host.address}
    local = at_host.GetOperation(pb.GetOperationRequest(operation_id=name)).operation.metadata
    assert {**local, **where} == facts
    assert ("op_training_facts", "small", "IBM,GOOG", "5") == tuple(
        facts[key] for key in ("session_id", "strategy", "symbols", "seed")
    )


def test_the_longest_request_id_works_through_a_backend(
    front: RunningBackend, host: ScriptedHost
) -> None:
    operation_id = front.train(request_id="x" * 128)
    host.work(operation_id).finish()
    assert COMPLETED == front.ended(operation_id).status


# ------------------------------------------------------------------------ logs


def test_the_log_tells_which_host_operation_a_backends_stands_for(
    front: RunningBackend, host: ScriptedHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ktrdr")
    front.train(request_id="abc")
    host.work("op_training_abc")

    registered = [text for text in caplog.messages if text.startswith("Registered")]
    assert sorted(registered) == [
        "Registered local bridge for operation host_training_op_training_abc",
        "Registered remote stub for operation op_training_abc → host host_training_op_training_abc",
    ]


def test_a_local_training_has_a_bridge_in_the_backend_and_no_stub(
    running: RunningBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ktrdr")
    work = running.scripted.start_running()
    registered = [text for text in caplog.messages if text.startswith("Registered")]
    assert [f"Registered local bridge for operation {work.operation_id}"] == registered
    work.finish()


# ------------------------------------------------- nothing of it in the backend


def _beyond_grpc(threads: set[threading.Thread]) -> set[threading.Thread]:
    """Threads that neither a server nor a channel has for itself."""
    return {
        thread
        for thread in threads
        if not thread.name.startswith("rpc_")
        and "grpc" not in getattr(getattr(thread, "_target", None), "__module__", "")
    }


def test_trainings_on_a_host_bring_no_thread_into_the_backend(tmp_path: Path) -> None:
    with scripted_host(tmp_path / "host") as host:
        before = set(threading.enumerate())
        with backend_on(tmp_path / "backend", host.address) as front:
            ids = [front.train() for _ in range(3)]
            works = [host.work(operation_id) for operation_id in ids]
            for _ in range(5):
                for operation_id, work in zip(ids, works, strict=True):
                    work.report_epochs(1)
                    assert RUNNING == front.operation(operation_id).status
            assert ["data"] == [pool.name for pool in front.backend.pools]
            assert host.pool._threads == _beyond_grpc(set(threading.enumerate()) - before)
            assert 3 == len(host.pool._threads)


def test_nobody_asks_the_host_while_no_client_asks_the_backend(
    front: RunningBackend, host: ScriptedHost
) -> None:
    operation_id = front.train()
    work = host.work(operation_id)
    front.operation(operation_id)
    calls, reads = host.calls.copy(), work.bridge.reads
    for first in range(10):
        work.report_epochs(1, first=first)
    assert calls == host.calls
    assert reads == work.bridge.reads


@contextmanager
def _real_host(home: Path) -> Iterator[tuple[Process, str]]:
    """A training host that trains."""
    settings = TrainingHostSettings(training_host_address="127.0.0.1:0", home=home)
    host = build_training_host(settings, new_instance(), MemoryOperationStore(), BARS)
    address = host.server.bind()
    host.operations.advertise(address)
    host.server.start()
    try:
        yield host, address
    finally:
        stop(host.server, host.operations, host.pools, grace=10.0)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that orchestrate trainings."""
    threads: list[threading.Thread] = []
    run = TrainingOrchestrator.run

    def noted(orchestrator: TrainingOrchestrator) -> TrainingResult:
        threads.append(threading.current_thread())
        return run(orchestrator)

    monkeypatch.setattr(TrainingOrchestrator, "run", noted)
    return threads


def test_a_training_on_a_host_is_orchestrated_there_and_a_local_one_in_the_backend(
    tmp_path: Path, trainings: list[threading.Thread], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ktrdr")
    with _real_host(tmp_path / "host") as (host, address):
        with backend_on(tmp_path / "backend", address) as front:
            end = front.ended(front.train(request_id="far", seed=7, overrides=SHORT))
            assert ["data"] == [pool.name for pool in front.backend.pools]
            assert [1, 2] == front.epochs(end.operation_id)
            models = front.models.ListModels(models_pb.ListModelsRequest()).models
        with running_backend(tmp_path / "backend") as local:
            near = local.ended(local.train(request_id="near", seed=7, overrides=SHORT))
            assert 1 == local.pool._started
        assert [1] == [pool._started for pool in host.pools]
        owner = host.operations.owner.instance_id

    assert (COMPLETED, COMPLETED) == (end.status, near.status)
    assert 2 == len(trainings), "one orchestrator each"
    assert "Registered local bridge for operation host_training_op_training_far" in caplog.messages
    assert "Registered local bridge for operation op_training_far" not in caplog.messages
    assert "Registered local bridge for operation op_training_near" in caplog.messages
    far_result, near_result = result_of(end), result_of(near)
    assert owner == far_result.instance != near_result.instance
    assert [far_result.model_name] == [model.name for model in models]
    assert far_result.model_path.startswith(str(tmp_path / "host"))
    # The same code somewhere else: the same seed gives the same model.
    assert far_result.test == near_result.test
    assert far_result.validation == near_result.validation


def test_a_host_alone_serves_its_trainings_as_a_backend_does(tmp_path: Path) -> None:
    with (
        _real_host(tmp_path / "host") as (host, address),
        grpc.insecure_channel(address) as channel,
    ):
        started = training_service_pb2_grpc.TrainingServiceStub(channel).StartTraining(
            training_pb.StartTrainingRequest(
                request_id="alone", strategy_yaml=SMALL, overrides=SHORT
            )
        )
        assert ("alone", "host_training_alone") == (
            started.session_id,
            started.operation.operation_id,
        )
        operations = Operations(channel)
        wait = pb.WaitOperationRequest(operation_id="host_training_alone")
        end = operations.WaitOperation(wait).operation
        log = operations.GetMetrics(pb.GetMetricsRequest(operation_id="host_training_alone"))
        listed = operations.ListOperations(pb.ListOperationsRequest())
        assert host.operations.owner.instance_id == listed.instance == result_of(end).instance
    assert COMPLETED == end.status
    assert [1, 2] == [metric.step for metric in log.metrics]
    assert ["host_training_alone"] == [o.operation_id for o in listed.operations]


def test_a_host_tells_its_health_and_what_it_serves(tmp_path: Path) -> None:
    with _real_host(tmp_path / "host") as (_, address), grpc.insecure_channel(address) as channel:
        served = set(ProtoReflectionDescriptorDatabase(channel).get_services())
        assert {
            "ktrdr.operations.v1.OperationsService",
            "ktrdr.training.v1.TrainingService",
            "ktrdr.training.v1.TrainingHostService",
            "ktrdr.training.v1.ModelsService",
            "grpc.health.v1.Health",
        } <= served
        check: Any = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # missing in the stubs
        for service in {"", *(name for name in served if name.startswith("ktrdr."))}:
            status = check(health_pb2.HealthCheckRequest(service=service)).status
            assert health_pb2.HealthCheckResponse.SERVING == status


# ----------------------------------------------------------- once, or not at all


@pytest.fixture
def starts(host: ScriptedHost) -> list[None]:
    """One entry for each start that the host found to be valid."""
    starts: list[None] = []
    host.before_start = lambda: starts.append(None)
    return starts


def test_a_repeated_start_finds_the_operation_and_the_host_has_one(
    front: RunningBackend, host: ScriptedHost, starts: list[None]
) -> None:
    request = training_pb.StartTrainingRequest(request_id="again", strategy_yaml=SMALL, seed=3)
    first = front.training.StartTraining(request)
    work = host.work("op_training_again")
    second = front.training.StartTraining(request)
    work.finish()
    front.ended("op_training_again")
    third = front.training.StartTraining(request)

    assert {"op_training_again"} == {
        answer.operation.operation_id for answer in (first, second, third)
    }
    assert COMPLETED == third.operation.status
    assert {first.session_id} == {second.session_id, third.session_id}
    assert [host_id("op_training_again")] == list(host.works)
    assert 1 == len(starts), "the host is told once"


def test_the_same_start_from_many_clients_is_one_operation_on_the_host(
    tmp_path: Path, host: ScriptedHost, starts: list[None]
) -> None:
    with backend_on(tmp_path / "backend", host.address, start_limit=8) as front:
        with ThreadPoolExecutor(8) as clients:
            calls = [clients.submit(front.train, request_id="same", seed=1) for _ in range(8)]
            ids = {call.result(PATIENCE) for call in calls}
        assert {"op_training_same"} == ids
        assert 1 == len(starts)
        assert 1 == _list(front).total_count
        assert 1 == host.operations.list_operations(ALL, None, 10).total_count


def test_another_request_under_the_same_id_is_refused_without_asking_the_host(
    front: RunningBackend, host: ScriptedHost, starts: list[None]
) -> None:
    front.train(request_id="taken", seed=3)
    calls = host.calls.copy()
    refusal = refused(lambda: front.train(request_id="taken", seed=4))
    assert (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED") == (refusal.code, refusal.reason)
    assert "op_training_taken" == refusal.metadata["operation_id"]
    assert calls == host.calls
    assert 1 == len(starts)


def test_what_only_the_host_can_check_is_refused_by_it_field_by_field_and_leaves_nothing(
    front: RunningBackend, host: ScriptedHost
) -> None:
    refusal = refused(
        lambda: front.train(request_id="odd", symbols=["IBM", "NOPE"], timeframes=["1h"])
    )
    assert (grpc.StatusCode.INVALID_ARGUMENT, "ktrdr") == (refusal.code, refusal.domain)
    assert {"symbols[1]", "timeframes[0]"} == set(refusal.fields)
    assert all(refusal.fields.values())
    assert 0 == _list(front).total_count
    assert 0 == host.operations.list_operations(ALL, None, 10).total_count
    assert "OPERATION_NOT_FOUND" == refused(lambda: front.operation("op_training_odd")).reason

    operation_id = front.train(request_id="odd", symbols=["IBM"])  # the id is free again
    host.work(operation_id).finish()
    assert COMPLETED == front.ended(operation_id).status


def test_a_symbol_that_the_strategy_names_is_refused_under_its_path(front: RunningBackend) -> None:
    strategy = SMALL.replace("symbol: IBM", "symbol: NOPE")
    refusal = refused(lambda: front.train(strategy))
    assert {"strategy_yaml.training_data.symbols.symbol"} == set(refusal.fields)


def test_a_bad_strategy_is_refused_by_the_backend_and_no_host_is_asked(
    front: RunningBackend, host: ScriptedHost, starts: list[None]
) -> None:
    bad = SMALL.replace("name: rsi,", "name: rsj,")
    refusal = refused(lambda: front.train(bad, request_id="not/allowed", seed=-1))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert {"request_id", "seed"} < set(refusal.fields)
    assert any(field.startswith("strategy_yaml.indicators") for field in refusal.fields)
    assert not host.calls
    assert not starts
    assert 0 == _list(front).total_count


def test_overrides_travel_with_the_strategy(front: RunningBackend, host: ScriptedHost) -> None:
    front.train(request_id="more", overrides={"model.training.epochs": "3"})
    # The host takes the same strategy without overrides for the same request.
    with grpc.insecure_channel(host.address) as channel:
        stub = training_service_pb2_grpc.TrainingServiceStub(channel)
        again = stub.StartTraining(
            training_pb.StartTrainingRequest(
                request_id="op_training_more",
                strategy_yaml=SMALL.replace("epochs: 10", "epochs: 3"),
            )
        )
    assert host_id("op_training_more") == again.operation.operation_id


# -------------------------------------------------------------------- listings


def test_listings_find_trainings_by_the_state_they_have_on_the_host(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "host", workers=1) as host,
        backend_on(tmp_path / "backend", host.address, cache_ttl=0.0) as front,
    ):
        running = front.train(request_id="first")
        work = host.work(running)
        queued = front.train(request_id="second")
        front.operation(running)
        assert [running] == [o.operation_id for o in _list(front, statuses=[RUNNING]).operations]
        assert [queued] == [o.operation_id for o in _list(front, statuses=[PENDING]).operations]
        assert 2 == _list(front).active_count
        work.finish()
        host.work(queued)
        front.operation(running)
        front.operation(queued)
        assert [queued] == [o.operation_id for o in _list(front, statuses=[RUNNING]).operations]
        ended = _list(front, statuses=[COMPLETED])
        assert [running] == [o.operation_id for o in ended.operations]
        assert 1 == ended.active_count
