"""How the end of a training on a host is found: by asking, whole, and as the host has it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ktrdr.operations.v1 import operation_pb2, operations_service_pb2_grpc
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations.model import Metric, OperationStatus, PackedResult
from shared.rpc.errors import FailedPreconditionError
from shared.training.bridge import TrainingProgressBridge
from tests.integration.hosted import backend_on, host_id
from tests.integration.running import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    TERMINAL,
    RunningBackend,
)
from tests.support.clock import FakeClock
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost
from tests.support.scripted_work import FIGURES, PATIENCE, ScriptedWork

Operations = operations_service_pb2_grpc.OperationsServiceStub
MONTH = timedelta(days=30).total_seconds()


@pytest.fixture
def operation_id(front: RunningBackend) -> str:
    """A training on the host."""
    return front.train(request_id="abc")


@pytest.fixture
def work(host: ScriptedHost, operation_id: str) -> Iterator[ScriptedWork]:
    """Its work, which ends with the test at the latest."""
    work = host.work(operation_id)
    yield work
    work.finish()


def _there(at_host: Operations, operation_id: str, age: int = 0) -> operation_pb2.Operation:
    """The operation as the host tells its own clients; up to `age` seconds old."""
    request = pb.GetOperationRequest(
        operation_id=host_id(operation_id), max_staleness=Duration(seconds=age)
    )
    operation: operation_pb2.Operation = at_host.GetOperation(request).operation
    return operation


def _ended_there(at_host: Operations, operation_id: str) -> operation_pb2.Operation:
    """The operation once it has ended at the host; the backend is not asked."""
    eventually(lambda: _there(at_host, operation_id).status in TERMINAL)
    return _there(at_host, operation_id)


def _log(stub: Operations, operation_id: str) -> list[bytes]:
    """The whole log, metric by metric, as bytes: NaN equals nothing, not even itself."""
    metrics: list[bytes] = []
    more = True
    while more:
        request = pb.GetMetricsRequest(operation_id=operation_id, cursor=len(metrics))
        page = stub.GetMetrics(request)
        metrics += [metric.SerializeToString(deterministic=True) for metric in page.metrics]
        more = page.has_more
    return metrics


def _shared(operation: operation_pb2.Operation) -> operation_pb2.Operation:
    """What backend and host must say alike: all but the names and the way."""
    copy = operation_pb2.Operation()
    copy.CopyFrom(operation)
    for field in ("operation_id", "create_time", "metadata", "freshness"):
        copy.ClearField(field)
    return copy


def _epochs(first: int, count: int, total: int) -> Callable[[TrainingProgressBridge], None]:
    """A step that reports epochs, 0-based from `first` on."""

    def report(bridge: TrainingProgressBridge) -> None:
        for epoch in range(first, first + count):
            bridge.on_epoch(epoch, total, {**FIGURES, "train_loss": 1.0 / (epoch + 1)})

    return report


# ----------------------------------------------------------------- found by asking


def test_what_has_ended_on_the_host_stays_running_here_until_somebody_asks(
    tmp_path: Path, host: ScriptedHost, at_host: Operations, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ktrdr")
    clock = FakeClock()
    with backend_on(tmp_path / "backend", host.address, clock=clock) as front:
        operation_id = front.train(request_id="abc")
        work = host.work(operation_id)
        assert RUNNING == front.operation(operation_id).status
        work.report_epochs(3)
        work.finish()
        there = _ended_there(at_host, operation_id)
        asked = host.calls.copy()

        clock.advance(MONTH)
        record = front.backend.operations._store.get(operation_id)
        assert record is not None
        assert OperationStatus.RUNNING is record.operation.status
        assert record.operation.result is None
        assert asked == host.calls
        found = f"Completed operation {operation_id} with results"
        assert found not in caplog.messages

        here = front.operation(operation_id)
        assert (COMPLETED, COMPLETED) == (here.status, there.status)
        assert there.end_time == here.end_time
        assert there.result == here.result
        assert asked["GetOperation"] + 1 == host.calls["GetOperation"]
        assert 1 == caplog.messages.count(found)
        assert _log(at_host, host_id(operation_id)) == _log(front.operations, operation_id)


def test_a_listing_finds_the_end_too(
    tmp_path: Path, host: ScriptedHost, at_host: Operations
) -> None:
    with backend_on(tmp_path / "backend", host.address, cache_ttl=0.0) as front:
        operation_id = front.train()
        work = host.work(operation_id)
        work.report_epochs(2)
        work.finish()
        there = _ended_there(at_host, operation_id)
        (row,) = front.operations.ListOperations(pb.ListOperationsRequest()).operations
        assert _shared(there) == _shared(row)
        assert COMPLETED == row.status
        assert 0 == front.operations.ListOperations(pb.ListOperationsRequest()).active_count


def test_a_read_of_the_metrics_finds_the_end_too(
    tmp_path: Path, host: ScriptedHost, at_host: Operations
) -> None:
    with backend_on(tmp_path / "backend", host.address, cache_ttl=0.0) as front:
        operation_id = front.train()
        work = host.work(operation_id)
        work.report_epochs(2)
        work.finish()
        _ended_there(at_host, operation_id)
        assert 2 == len(_log(front.operations, operation_id))
        record = front.backend.operations._store.get(operation_id)
        assert record is not None
        assert OperationStatus.COMPLETED is record.operation.status


def test_once_found_the_end_is_kept_and_the_host_asked_no_more(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    work.report_epochs(3)
    work.finish()
    end = front.ended(operation_id)
    host.vanish()
    assert end == front.operation(operation_id)
    assert [1, 2, 3] == front.epochs(operation_id)
    assert not end.freshness.HasField("refresh_error")


# --------------------------------------------------------------------------- whole


def test_everything_about_the_end_is_the_hosts(
    front: RunningBackend, at_host: Operations, operation_id: str, work: ScriptedWork
) -> None:
    work.report_epochs(3)
    front.operation(operation_id)
    work.report_epochs(4, first=3)
    work.finish()
    here = front.ended(operation_id)
    there = _ended_there(at_host, operation_id)
    assert _shared(there) == _shared(here)
    assert 7 == here.metrics_count
    assert not here.HasField("liveness")
    assert _log(at_host, host_id(operation_id)) == _log(front.operations, operation_id)


def test_a_long_log_is_read_to_its_end_before_the_end_is_shown(
    front: RunningBackend,
    host: ScriptedHost,
    at_host: Operations,
    operation_id: str,
    work: ScriptedWork,
) -> None:
    work.step(_epochs(0, 2500, 2500))
    work.finish()
    _ended_there(at_host, operation_id)
    known: list[tuple[OperationStatus, int]] = []

    def look(method: str) -> None:
        live = front.backend.operations._registry._live[operation_id]
        known.append((live.status, live.metrics_count))

    host.servicer.before = look
    end = front.operation(operation_id)
    host.servicer.before = lambda _: None

    running = OperationStatus.RUNNING
    assert [(running, 0), (running, 1000), (running, 2000)] == known
    assert (COMPLETED, 2500) == (end.status, end.metrics_count)
    assert _log(at_host, host_id(operation_id)) == _log(front.operations, operation_id)


def test_a_log_of_large_metrics_is_read_to_its_end_too(
    front: RunningBackend,
    host: ScriptedHost,
    at_host: Operations,
    operation_id: str,
    work: ScriptedWork,
) -> None:
    note = {"note": "x" * 100_000}

    def report(bridge: TrainingProgressBridge) -> None:
        for step in range(1, 41):
            bridge._append_metric(Metric(datetime.now(UTC), "symbol", step, {"rows": 1.0}, note))

    work.step(report)
    work.finish()
    _ended_there(at_host, operation_id)
    asked = host.calls["GetOperation"]
    end = front.operation(operation_id)
    assert (COMPLETED, 40) == (end.status, end.metrics_count)
    assert host.calls["GetOperation"] - asked >= 4, "a page is 1 MiB at most"
    assert _log(at_host, host_id(operation_id)) == _log(front.operations, operation_id)


def _look(
    front: RunningBackend, operation_id: str, cursor: int, way: int
) -> pb.GetOperationResponse:
    """Look in one of the ways there are."""
    fields: dict[str, object] = {"metrics_cursor": cursor}
    if way == 1:
        fields["force_refresh"] = True
    elif way == 2:
        fields["max_staleness"] = {"seconds": 10}
    request = pb.GetOperationRequest(operation_id=operation_id, **fields)  # type: ignore[arg-type]  # by name
    answer: pb.GetOperationResponse = front.operations.GetOperation(request, timeout=PATIENCE)
    return answer


def test_no_reader_ever_sees_the_end_with_fewer_metrics(tmp_path: Path, host: ScriptedHost) -> None:
    count, readers = 2500, 6
    with backend_on(tmp_path / "backend", host.address, cache_ttl=0.01) as front:
        operation_id = front.train()
        work = host.work(operation_id)

        def read(way: int) -> list[int]:
            steps: list[int] = []
            while True:
                look = _look(front, operation_id, len(steps), way % 3)
                assert look.operation.metrics_count >= len(steps)
                steps += [metric.step for metric in look.metrics]
                if look.operation.status in TERMINAL:
                    assert count == look.operation.metrics_count
                    if not look.has_more:
                        return steps

        with ThreadPoolExecutor(readers) as clients:
            reads = [clients.submit(read, way) for way in range(readers)]
            for first in range(0, count, 100):
                work.step(_epochs(first, 100, count))
            work.finish()
            for done in reads:
                assert list(range(1, count + 1)) == done.result(2 * PATIENCE)


# ---------------------------------------------------------------------- how it ended


def test_a_failure_arrives_with_code_reason_message_and_facts(
    front: RunningBackend, at_host: Operations, operation_id: str, work: ScriptedWork
) -> None:
    work.report_epochs(2)
    work.fail(
        FailedPreconditionError(
            "There are no bars of IBM.", reason="NO_BARS", metadata={"symbol": "IBM"}
        )
    )
    end = front.ended(operation_id)
    assert FAILED == end.status
    assert end.error == operation_pb2.OperationError(
        code=grpc.StatusCode.FAILED_PRECONDITION.value[0],
        reason="NO_BARS",
        message="There are no bars of IBM.",
        metadata={"symbol": "IBM"},
    )
    assert _shared(_ended_there(at_host, operation_id)) == _shared(end)
    assert [1, 2] == front.epochs(operation_id)


def test_an_error_nobody_foresaw_arrives_as_the_host_tells_it(
    front: RunningBackend, at_host: Operations, operation_id: str, work: ScriptedWork
) -> None:
    work.fail(ZeroDivisionError("a share of nothing"))
    end = front.ended(operation_id)
    assert (FAILED, "WORKER_RAISED") == (end.status, end.error.reason)
    assert "ZeroDivisionError" == end.error.metadata["exception"]
    assert _ended_there(at_host, operation_id).error == end.error


@pytest.mark.parametrize(
    "result",
    [
        PackedResult(
            "type.googleapis.com/ktrdr.training.v1.TrainingResult", b"\x0a\x03abc\xfa\x3f\x01x"
        ),
        PackedResult("type.googleapis.com/of.a.later.Version", bytes(range(256)) * 400),
        PackedResult("type.googleapis.com/ktrdr.training.v1.TrainingResult", b""),
    ],
    ids=["with an unknown field", "of an unknown type", "empty"],
)
def test_a_result_arrives_byte_for_byte(
    front: RunningBackend,
    at_host: Operations,
    operation_id: str,
    work: ScriptedWork,
    result: PackedResult,
) -> None:
    work.result = result
    work.finish()
    end = front.ended(operation_id)
    assert COMPLETED == end.status
    assert (result.type_url, result.value) == (end.result.type_url, end.result.value)
    assert _ended_there(at_host, operation_id).result == end.result


def test_figures_that_are_no_numbers_arrive_as_they_are(
    front: RunningBackend, at_host: Operations, operation_id: str, work: ScriptedWork
) -> None:
    figures = {"train_loss": math.nan, "val_loss": math.inf, "learning_rate": -math.inf}
    work.step(lambda bridge: bridge.on_epoch(0, 10, figures))
    (metric,) = front.get(operation_id, metrics_cursor=0).metrics
    assert math.isnan(metric.values["train_loss"])
    assert {math.inf, -math.inf} == {metric.values["val_loss"], metric.values["learning_rate"]}
    work.finish()
    front.ended(operation_id)
    assert _log(at_host, host_id(operation_id)) == _log(front.operations, operation_id)


# -------------------------------------------------------------------- while it runs

STEPS: list[tuple[str, Callable[[TrainingProgressBridge], None]]] = [
    ("preprocessing", partial(TrainingProgressBridge.on_phase, phase="preprocessing")),
    (
        "preprocessing",
        lambda bridge: bridge.on_symbol_processing("IBM", 1, 2, "loading_data"),
    ),
    (
        "preprocessing",
        lambda bridge: bridge.on_indicator_computation("IBM", 1, 2, "1d", "rsi_14", 1, 3),
    ),
    (
        "preprocessing",
        lambda bridge: bridge.on_fuzzy_generation("IBM", 1, 2, "1d", "rsi_14.low", 1, 3),
    ),
    ("preparation", lambda bridge: bridge.on_preparation_phase("creating_model")),
    ("training", lambda bridge: bridge.on_phase("training", total_batches=40)),
    ("training", lambda bridge: bridge.on_batch(2, 7, 40)),
    ("training", lambda bridge: bridge.on_epoch(2, 10, dict(FIGURES))),
    ("evaluation", lambda bridge: bridge.on_phase("evaluation")),
]


def test_each_read_brings_what_is_new_and_the_log_shows_both_hops(
    front: RunningBackend,
    operation_id: str,
    work: ScriptedWork,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "ktrdr")
    work.report_epochs(3)
    front.operation(operation_id)
    work.report_epochs(2, first=3)
    front.operation(operation_id)
    there = host_id(operation_id)
    refreshed = [text for text in caplog.messages if text.startswith("Refreshed")]
    assert [
        f"Refreshed operation {there} from bridge (cursor 0 → 3)",
        f"Refreshed operation {operation_id} from remote (cursor 0 → 3)",
        f"Refreshed operation {there} from bridge (cursor 3 → 5)",
        f"Refreshed operation {operation_id} from remote (cursor 3 → 5)",
    ] == refreshed


def test_progress_arrives_whole_in_every_phase(
    front: RunningBackend, at_host: Operations, operation_id: str, work: ScriptedWork
) -> None:
    contexts: set[str] = set()
    estimates = 0
    for phase, step in STEPS:
        work.step(step)
        here = front.operation(operation_id).progress
        there = _there(at_host, operation_id, age=60).progress  # as just read by the backend
        assert phase == here.phase
        assert there == here
        contexts |= set(here.context)
        estimates += here.HasField("estimated_remaining")
    assert {"symbol", "indicator", "timeframe"} <= contexts
    assert estimates


def test_liveness_is_the_workers_on_the_host(
    front: RunningBackend, operation_id: str, work: ScriptedWork
) -> None:
    before = front.operation(operation_id)
    assert before.liveness.worker_alive
    assert not before.liveness.HasField("last_report_age")
    assert not before.HasField("progress")
    work.report_epochs(1)
    after = front.operation(operation_id).liveness
    assert after.worker_alive
    assert 0 < after.last_report_age.ToNanoseconds() < PATIENCE * 1e9


def test_a_queued_training_is_pending_here_and_nobody_is_at_it(
    tmp_path: Path, front: RunningBackend, host: ScriptedHost
) -> None:
    for _ in range(4):
        host.work(front.train())
    queued = front.operation(front.train())
    assert operation_pb2.OPERATION_STATUS_PENDING == queued.status
    assert not queued.liveness.worker_alive
    assert not queued.HasField("start_time")


def test_the_way_of_an_answer_names_backend_and_host(
    front: RunningBackend, host: ScriptedHost, operation_id: str, work: ScriptedWork
) -> None:
    work.report_epochs(1)
    freshness = front.operation(operation_id).freshness
    backend = front.backend.operations.owner.instance_id
    assert [
        (backend, operation_pb2.FRESHNESS_SOURCE_REMOTE, False),
        (host.instance.id, operation_pb2.FRESHNESS_SOURCE_BRIDGE, False),
    ] == [(hop.instance, hop.source, hop.cached) for hop in freshness.path]
    assert freshness.age == freshness.path[0].age
    assert freshness.age.ToNanoseconds() >= freshness.path[1].age.ToNanoseconds()


def test_what_the_host_cancels_by_itself_is_found_by_asking(
    front: RunningBackend, at_host: Operations, operation_id: str, work: ScriptedWork
) -> None:
    at_host.CancelOperation(
        pb.CancelOperationRequest(operation_id=host_id(operation_id), reason="the machine goes")
    )
    seen = front.operation(operation_id)
    assert operation_pb2.OPERATION_STATUS_CANCELLING == seen.status
    assert "the machine goes" == seen.cancel_reason
    work.notice_cancel()
    end = front.ended(operation_id)
    assert CANCELLED == end.status
    assert _shared(_ended_there(at_host, operation_id)) == _shared(end)
