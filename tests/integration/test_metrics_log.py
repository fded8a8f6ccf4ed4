"""The metrics log over the wire: nothing lost, nothing doubled, pages bounded."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import grpc
import pytest

from ktrdr.operations.v1 import operation_pb2, operations_service_pb2_grpc
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations.model import Metric
from shared.training.bridge import TrainingProgressBridge
from tests.integration.refusals import refused
from tests.integration.running import COMPLETED, TERMINAL, RunningBackend
from tests.support.scripted_work import PATIENCE, ScriptedWork

Stub = operations_service_pb2_grpc.OperationsServiceStub
MIB = 1024 * 1024


@pytest.fixture
def work(running: RunningBackend) -> Iterator[ScriptedWork]:
    """Work that runs until the test has ended."""
    work = running.scripted.start_running(epochs=10_000)
    yield work
    work.finish()


def _look(
    stub: Stub, operation_id: str, chance: random.Random, cursor: int
) -> tuple[list[operation_pb2.Metric], bool]:
    """Ask for metrics in one of the ways there are; return them and whether that was all."""
    if chance.random() < 0.5:
        look = stub.GetOperation(
            pb.GetOperationRequest(
                operation_id=operation_id,
                force_refresh=chance.random() < 0.5,
                metrics_cursor=cursor,
            )
        )
        assert cursor + len(look.metrics) == look.new_cursor
        assert look.has_more == (look.new_cursor < look.operation.metrics_count)
        return list(look.metrics), look.operation.status in TERMINAL and not look.has_more
    page = stub.GetMetrics(
        pb.GetMetricsRequest(
            operation_id=operation_id, cursor=cursor, page_size=chance.choice([0, 1, 7, 333, 5000])
        )
    )
    assert cursor + len(page.metrics) == page.new_cursor
    return list(page.metrics), False


@pytest.mark.parametrize("seed", [1, 2])
def test_every_reader_ends_with_every_metric_once_whatever_the_interleaving(
    running: RunningBackend, grpc_stub: Stub, seed: int
) -> None:
    count, readers = 3000, 6
    work = running.scripted.start_running(epochs=count)

    def read(reader: int) -> list[int]:
        chance = random.Random(seed * 100 + reader)  # noqa: S311  # a script, not a secret
        steps: list[int] = []
        done = False
        while not done:
            # Now and then a reader looks back, as one that was restarted does.
            back = chance.randrange(len(steps) + 1) if chance.random() < 0.1 else len(steps)
            metrics, done = _look(grpc_stub, work.operation_id, chance, back)
            steps[back:] = [metric.step for metric in metrics]
        return steps

    def write() -> None:
        chance = random.Random(seed)  # noqa: S311  # as above
        written = 0
        while written < count:
            burst = min(chance.choice([1, 10, 400]), count - written)
            work.report_epochs(burst, first=written)
            written += burst
        work.finish()

    with ThreadPoolExecutor(readers + 1) as pool:
        writing = pool.submit(write)
        reading = [pool.submit(read, reader) for reader in range(readers)]
        writing.result(PATIENCE)
        for result in reading:
            assert list(range(1, count + 1)) == result.result(PATIENCE)


def test_the_last_metrics_before_the_end_are_not_lost(running: RunningBackend) -> None:
    work = running.scripted.start_running(epochs=2500)
    work.report_epochs(10)
    assert list(range(1, 11)) == running.epochs(work.operation_id)
    work.report_epochs(2490, first=10)  # nobody reads these while the work runs
    work.finish()
    end = running.ended(work.operation_id)
    assert 2500 == end.metrics_count
    last = running.get(work.operation_id, metrics_cursor=2499)
    assert [2500] == [metric.step for metric in last.metrics]


def test_a_page_of_metrics_is_500_unless_asked_and_1000_at_most(
    running: RunningBackend, grpc_stub: Stub, work: ScriptedWork
) -> None:
    work.report_epochs(2200)
    running.operation(work.operation_id)

    def page(size: int) -> pb.GetMetricsResponse:
        request = pb.GetMetricsRequest(operation_id=work.operation_id, cursor=100, page_size=size)
        answer: pb.GetMetricsResponse = grpc_stub.GetMetrics(request)
        return answer

    for size, sent in {0: 500, 1: 1, 999: 999, 1000: 1000, 1001: 1000, 2**31 - 1: 1000}.items():
        answer = page(size)
        assert sent == len(answer.metrics)
        assert 100 + sent == answer.new_cursor
        assert answer.has_more
        assert 101 == answer.metrics[0].step
        assert answer.HasField("freshness")


def test_a_snapshot_carries_at_most_1000_metrics(
    work: ScriptedWork, running: RunningBackend
) -> None:
    work.report_epochs(1001)
    answer = running.get(work.operation_id, metrics_cursor=0)
    assert 1000 == len(answer.metrics)
    assert 1000 == answer.new_cursor
    assert answer.has_more
    rest = running.get(work.operation_id, metrics_cursor=1000)
    assert [1001] == [metric.step for metric in rest.metrics]
    assert not rest.has_more


def _append(work: ScriptedWork, labels: dict[str, str], count: int) -> None:
    """Have the worker log metrics of any shape."""

    def append(bridge: TrainingProgressBridge) -> None:
        for step in range(1, count + 1):
            values = {"loss": math.nan}
            bridge._append_metric(Metric(datetime.now(UTC), "epoch", step, values, labels))

    work.step(append)


def test_a_page_ends_at_one_mebibyte(
    running: RunningBackend, grpc_stub: Stub, work: ScriptedWork
) -> None:
    _append(work, {"note": "x" * 100_000}, 25)
    sizes: list[int] = []
    steps: list[int] = []
    more = True
    while more:
        page = running.get(work.operation_id, metrics_cursor=len(steps))
        sizes.append(sum(metric.ByteSize() for metric in page.metrics))
        steps += [metric.step for metric in page.metrics]
        more = page.has_more
    assert list(range(1, 26)) == steps
    assert 3 == len(sizes)
    assert all(size <= MIB for size in sizes)
    page_of_metrics = grpc_stub.GetMetrics(pb.GetMetricsRequest(operation_id=work.operation_id))
    assert 10 == len(page_of_metrics.metrics)
    assert 10 == page_of_metrics.new_cursor
    assert page_of_metrics.has_more


def test_a_metric_larger_than_a_page_is_sent_alone(
    running: RunningBackend, work: ScriptedWork
) -> None:
    _append(work, {"note": "x" * (MIB + 1)}, 2)
    page = running.get(work.operation_id, metrics_cursor=0)
    assert [1] == [metric.step for metric in page.metrics]
    assert page.has_more


def test_nan_is_kept(running: RunningBackend, work: ScriptedWork) -> None:
    _append(work, {}, 1)
    (metric,) = running.get(work.operation_id, metrics_cursor=0).metrics
    assert math.isnan(metric.values["loss"])


def test_a_snapshot_past_the_end_has_no_metrics_and_the_cursor_of_the_next(
    running: RunningBackend, work: ScriptedWork
) -> None:
    work.report_epochs(3)
    for cursor in (3, 4, 2**63 - 1):
        answer = running.get(work.operation_id, metrics_cursor=cursor)
        assert [] == list(answer.metrics)
        assert 3 == answer.new_cursor
        assert not answer.has_more


def test_a_snapshot_without_a_cursor_carries_no_metrics(
    running: RunningBackend, work: ScriptedWork
) -> None:
    work.report_epochs(3)
    answer = running.get(work.operation_id)
    assert 3 == answer.operation.metrics_count
    assert [] == list(answer.metrics)
    assert 0 == answer.new_cursor
    assert not answer.has_more


@pytest.mark.parametrize("ended", [False, True])
def test_a_cursor_past_the_end_is_out_of_range_and_told_the_count(
    running: RunningBackend, grpc_stub: Stub, work: ScriptedWork, *, ended: bool
) -> None:
    work.report_epochs(3)
    if ended:
        work.finish()
        running.ended(work.operation_id)
    at_the_end = grpc_stub.GetMetrics(
        pb.GetMetricsRequest(operation_id=work.operation_id, cursor=3)
    )
    assert [] == list(at_the_end.metrics)
    assert 3 == at_the_end.new_cursor
    for cursor in (4, 2**63 - 1):
        request = pb.GetMetricsRequest(operation_id=work.operation_id, cursor=cursor)
        refusal = refused(partial(grpc_stub.GetMetrics, request))
        assert grpc.StatusCode.OUT_OF_RANGE == refusal.code
        assert "CURSOR_OUT_OF_RANGE" == refusal.reason
        assert "3" == refusal.metadata["metrics_count"]


def test_a_cursor_past_what_is_cached_is_checked_with_the_worker(
    running: RunningBackend, grpc_stub: Stub, work: ScriptedWork
) -> None:
    work.report_epochs(3)
    running.operation(work.operation_id)
    work.report_epochs(2, first=3)
    page = grpc_stub.GetMetrics(pb.GetMetricsRequest(operation_id=work.operation_id, cursor=4))
    assert [5] == [metric.step for metric in page.metrics]


def test_a_finished_operation_still_answers_with_its_log(
    running: RunningBackend, grpc_stub: Stub, work: ScriptedWork
) -> None:
    work.report_epochs(700)
    work.finish()
    assert COMPLETED == running.ended(work.operation_id).status
    page = grpc_stub.GetMetrics(
        pb.GetMetricsRequest(operation_id=work.operation_id, cursor=600, page_size=50)
    )
    assert list(range(601, 651)) == [metric.step for metric in page.metrics]
    assert page.has_more
