"""Requests and answers have bounds, and each bound is a setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from ktrdr.marketdata.v1 import market_data_service_pb2 as market_pb
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from shared.operations.conversion import timestamp
from tests.integration import loads
from tests.integration.refusals import refused
from tests.integration.running import SMALL, RunningBackend, running_backend

ID = "op_training_" + "x" * 200
Call = Callable[[RunningBackend], object]

START = training_pb.StartTrainingRequest
REFUSED: Mapping[str, tuple[Mapping[str, Any], Call, str]] = {
    "strategy": (
        {"max_strategy_bytes": 1024},
        lambda r: r.training.StartTraining(START(strategy_yaml="x" * 1025)),
        "strategy_yaml",
    ),
    "bytes of overrides": (
        {"max_strategy_bytes": 4096},
        lambda r: r.training.StartTraining(START(strategy_yaml=SMALL, overrides={"a": "x" * 5000})),
        "overrides",
    ),
    "overrides": (
        {"max_overrides": 1},
        lambda r: r.training.StartTraining(
            START(strategy_yaml=SMALL, overrides={"name": "a", "version": "b"})
        ),
        "overrides",
    ),
    "symbols": (
        {"max_symbols": 1},
        lambda r: r.training.StartTraining(START(strategy_yaml=SMALL, symbols=["IBM", "GOOG"])),
        "symbols",
    ),
    "symbols of a load": (
        {"max_symbols": 1},
        loads.load,
        "symbols",
    ),
    "timeframes": (
        {"max_timeframes": 1},
        lambda r: r.training.StartTraining(START(strategy_yaml=SMALL, timeframes=["1d", "1w"])),
        "timeframes",
    ),
    "operation id": (
        {"max_operation_id": 200},
        lambda r: r.operations.GetOperation(pb.GetOperationRequest(operation_id=ID)),
        "operation_id",
    ),
    "reason": (
        {"max_reason": 3},
        lambda r: r.operations.CancelOperation(
            pb.CancelOperationRequest(operation_id="x", reason="long")
        ),
        "reason",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_beyond_its_setting_is_refused_by_name(tmp_path: Path, what: str) -> None:
    settings, call, field = REFUSED[what]
    with running_backend(tmp_path, **settings) as running:
        refusal = refused(partial(call, running))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert field in refusal.fields


def test_a_request_beyond_its_bytes_is_told_the_bound(tmp_path: Path) -> None:
    with running_backend(tmp_path, max_request_bytes=400_000) as running:
        request = START(strategy_yaml="x" * 400_000)
        refusal = refused(partial(running.training.StartTraining, request))
    assert grpc.StatusCode.RESOURCE_EXHAUSTED == refusal.code
    assert ("REQUEST_TOO_LARGE", "400000") == (refusal.reason, refusal.metadata["limit"])
    assert refusal.retry_after is None


def test_listings_end_at_their_bytes_and_go_on_with_the_next_page(tmp_path: Path) -> None:
    with running_backend(tmp_path, max_page_bytes=64 * 1024, max_reason=10_000) as running:
        ids = []
        for _ in range(20):
            work = running.scripted.start()
            ids.append(work.operation_id)
            running.cancel(work.operation_id, "r" * 10_000)
        found: list[str] = []
        token, pages = "", 0
        while not pages or token:
            answer = running.operations.ListOperations(
                pb.ListOperationsRequest(page_size=100, page_token=token)
            )
            assert answer.ByteSize() < 70 * 1024
            found += [operation.operation_id for operation in answer.operations]
            token, pages = answer.next_page_token, pages + 1
    assert sorted(ids) == sorted(found)
    assert 3 < pages < 20


def test_pages_have_as_many_rows_as_the_settings_allow(tmp_path: Path) -> None:
    with running_backend(tmp_path, cache_ttl=0, max_page_rows=3, max_page_metrics=4) as running:
        work = running.scripted.start_running()
        for _ in range(4):
            running.scripted.start()
        work.report_epochs(9)
        rows = running.operations.ListOperations(pb.ListOperationsRequest()).operations
        metrics = running.operations.GetMetrics(
            pb.GetMetricsRequest(operation_id=work.operation_id)
        )
        look = running.get(work.operation_id, metrics_cursor=0)
    assert 3 == len(rows)
    assert (4, 4, True) == (len(metrics.metrics), metrics.new_cursor, metrics.has_more)
    assert (4, 4, True) == (len(look.metrics), look.new_cursor, look.has_more)


def test_chunks_of_bars_keep_to_the_bytes_of_a_page(tmp_path: Path) -> None:
    with running_backend(tmp_path, max_page_bytes=64 * 1024) as running:
        loads.load_whole(running, symbols=["IBM"])
        request = market_pb.ReadBarsRequest(
            symbol="IBM",
            timeframe="1d",
            start_time=timestamp(loads.FROM),
            end_time=timestamp(loads.TO),
        )
        sizes = [answer.ByteSize() for answer in running.market_data.ReadBars(request)]
    assert len(sizes) > 1
    assert max(sizes) <= 64 * 1024


def test_a_wait_is_cut_to_the_longest_there_is(tmp_path: Path) -> None:
    with running_backend(tmp_path, max_wait=1.0) as running:
        work = running.scripted.start_running()
        request = pb.WaitOperationRequest(operation_id=work.operation_id)
        answer = running.operations.WaitOperation(request, timeout=20)
        assert not answer.HasField("retry_after")
        work.finish()
