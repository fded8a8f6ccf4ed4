"""One kind of call never keeps another from being answered."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from shared.operations.bridge import BridgeSnapshot
from tests.integration import running as running_module
from tests.integration.refusals import refusal_of, refused
from tests.integration.running import BARS, RUNNING, SMALL, RunningBackend, running_backend
from tests.support.eventually import eventually
from tests.support.scripted_work import PATIENCE


class StallingBars:
    """Bars whose catalogue answers nobody until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked = 0

    def series(self) -> Sequence[tuple[str, str]]:
        self.asked += 1
        assert self.released.wait(PATIENCE)
        return BARS.series()

    def trouble(self) -> str:
        return ""

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        return BARS.read(symbol, timeframe, start, end)


@pytest.fixture
def stalling(monkeypatch: pytest.MonkeyPatch) -> Iterator[StallingBars]:
    bars = StallingBars()
    monkeypatch.setattr(running_module, "BARS", bars)
    yield bars
    bars.released.set()


Question = reflection_pb2.ServerReflectionRequest


def _reflected(
    running: RunningBackend, questions: Iterator[Question]
) -> Iterator[reflection_pb2.ServerReflectionResponse]:
    """Open a stream of server reflection."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    answers: Iterator[reflection_pb2.ServerReflectionResponse] = stub.ServerReflectionInfo(
        questions, timeout=PATIENCE
    )
    return answers


def _healthy(running: RunningBackend, service: str = "") -> bool:
    return running.health(service) == health_pb2.HealthCheckResponse.SERVING


def test_reads_and_health_are_answered_while_every_waiting_slot_is_taken(tmp_path: Path) -> None:
    with running_backend(tmp_path, wait_limit=3) as running:
        work = running.scripted.start_running()
        request = pb.WaitOperationRequest(operation_id=work.operation_id)
        waits = [running.operations.WaitOperation.future(request) for _ in range(3)]
        eventually(lambda: running.backend.operations._room._free == 0)
        assert RUNNING == running.operation(work.operation_id).status
        assert _healthy(running)
        listed = running.operations.ListOperations(pb.ListOperationsRequest(), timeout=5)
        assert 1 == listed.total_count
        assert not any(wait.done() for wait in waits)


def test_reads_and_health_are_answered_while_starts_are_stuck_and_further_ones_are_shed(
    tmp_path: Path, stalling: StallingBars
) -> None:
    with running_backend(tmp_path, start_limit=2) as running:
        work = running.scripted.start_running()
        request = training_pb.StartTrainingRequest(strategy_yaml=SMALL)
        stuck = [running.training.StartTraining.future(request) for _ in range(2)]
        eventually(lambda: stalling.asked == 2)

        refusal = refused(partial(running.training.StartTraining, request, timeout=5))
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == refusal.code
        assert "TOO_MANY_CALLS" == refusal.reason
        assert "start" == refusal.metadata["class"]
        assert refusal.retry_after
        assert RUNNING == running.operation(work.operation_id).status
        assert _healthy(running)

        stalling.released.set()
        assert all(call.result(PATIENCE).session_id for call in stuck)
        assert running.training.StartTraining(request, timeout=5).session_id


def test_health_is_answered_while_reads_are_stuck_and_further_ones_are_shed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    with running_backend(tmp_path, read_limit=4) as running:
        work = running.scripted.start_running()
        snapshot = work.bridge.snapshot

        def stuck(cursor: int = 0, limit: int | None = None) -> BridgeSnapshot:
            assert release.wait(PATIENCE)
            return snapshot(cursor, limit)

        monkeypatch.setattr(work.bridge, "snapshot", stuck)
        request = pb.GetOperationRequest(operation_id=work.operation_id, force_refresh=True)
        calls = [running.operations.GetOperation.future(request) for _ in range(5)]
        eventually(lambda: any(call.done() for call in calls))
        (shed,) = (call.exception() for call in calls if call.done())
        assert isinstance(shed, grpc.RpcError)
        refusal = refusal_of(shed)
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == refusal.code
        assert "TOO_MANY_CALLS" == refusal.reason
        assert "read" == refusal.metadata["class"]
        assert refusal.retry_after
        assert _healthy(running)
        assert _healthy(running, "ktrdr.operations.v1.OperationsService")
        release.set()
        ends = [call.result(PATIENCE) for call in calls if call.exception(PATIENCE) is None]
        assert 4 == len(ends)


def test_health_knows_every_service(running: RunningBackend) -> None:
    for service in (
        "ktrdr.operations.v1.OperationsService",
        "ktrdr.training.v1.TrainingService",
        "ktrdr.training.v1.ModelsService",
    ):
        assert _healthy(running, service)
    refusal = refused(lambda: _healthy(running, "ktrdr.nothing"))
    assert grpc.StatusCode.NOT_FOUND == refusal.code


def test_reflection_names_every_service_and_their_messages(running: RunningBackend) -> None:
    def ask(question: Question) -> reflection_pb2.ServerReflectionResponse:
        return next(_reflected(running, iter([question])))

    services = ask(Question(list_services="")).list_services_response.service
    named = {service.name for service in services}
    assert {
        "ktrdr.operations.v1.OperationsService",
        "ktrdr.training.v1.TrainingService",
        "ktrdr.training.v1.ModelsService",
        "ktrdr.marketdata.v1.MarketDataService",
        "google.longrunning.Operations",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    } == named
    described = [
        "google.longrunning.Operations.GetOperation",
        "google.longrunning.Operation.metadata",
        "ktrdr.operations.v1.OperationsService.GetOperation",
        "ktrdr.operations.v1.Operation",
        "ktrdr.operations.v1.Operation.metrics_count",
        "ktrdr.operations.v1.OperationStatus",
        "ktrdr.training.v1.TrainingService.StartTraining",
        "ktrdr.training.v1.TrainingResult",
        "ktrdr.marketdata.v1.DataLoadResult",
    ]
    for symbol in [*sorted(named), *described]:
        answer = ask(Question(file_containing_symbol=symbol))
        assert answer.file_descriptor_response.file_descriptor_proto, symbol


def test_open_reflection_streams_are_bounded_and_leave_reads_alone(tmp_path: Path) -> None:
    with running_backend(tmp_path, stream_limit=2) as running:
        hold = threading.Event()

        def questions() -> Iterator[Question]:
            yield Question(list_services="")
            hold.wait(PATIENCE)

        streams = [_reflected(running, questions()) for _ in range(2)]
        for stream in streams:
            next(stream)
        refusal = refused(lambda: next(_reflected(running, questions())))
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == refusal.code
        assert "stream" == refusal.metadata["class"]
        assert running.operations.ListOperations(pb.ListOperationsRequest(), timeout=5) is not None
        hold.set()
