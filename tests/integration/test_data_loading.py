"""Loads of the embedded sample through a backend: watched, repeated, cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from ktrdr.operations.v1 import operation_pb2
from shared.marketdata.ranges import TimeRange
from shared.operations.conversion import timestamp
from tests.integration.loads import (
    FROM,
    PIECE,
    QUICK,
    ROWS,
    TO,
    SteppedSample,
    assert_same,
    bars,
    load,
    load_whole,
    loaded_in,
    operations,
)
from tests.integration.refusals import refused
from tests.integration.running import (
    BARS,
    CANCELLED,
    COMPLETED,
    RUNNING,
    RunningBackend,
    running_backend,
)
from tests.support.eventually import eventually


@pytest.fixture
def stepped() -> SteppedSample:
    """The provider of `slow`."""
    return SteppedSample()


@pytest.fixture
def slow(tmp_path: Path, stepped: SteppedSample) -> Iterator[RunningBackend]:
    """A backend with one worker for loads, whose provider waits for the test."""
    with running_backend(tmp_path, provider=stepped, data_workers=1, data_queue=1) as running:
        yield running


# ----------------------------------------------------------------------------------- load and read


def test_a_load_of_the_sample_ends_with_what_each_symbol_brought(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        operation = load_whole(running, request_id="first")
        assert COMPLETED == operation.status
        assert "op_data_first" == operation.operation_id
        assert operation_pb2.OPERATION_TYPE_DATA_LOADING == operation.type
        assert {
            "session_id": "first",
            "symbols": "IBM,GOOG",
            "timeframe": "1d",
            "start_time": FROM.isoformat(),
            "end_time": TO.isoformat(),
            "mode": "missing",
        } == dict(operation.metadata)
        result = loaded_in(operation)
        assert (sum(ROWS.values()), 2) == (result.total_rows_loaded, result.symbols_loaded)
        assert [] == list(result.symbols_failed)
        assert 0 < result.duration.ToNanoseconds()
        assert "1d" == result.timeframe
        assert [(name, rows, 0, rows) for name, rows in ROWS.items()] == [
            (one.symbol, one.rows_loaded, one.rows_rejected, one.row_count)
            for one in result.symbols
        ]
        assert 100.0 == operation.progress.percentage
        assert sum(ROWS.values()) == operation.progress.items_processed


def test_progress_and_metrics_can_be_read_while_it_loads(
    slow: RunningBackend, stepped: SteppedSample
) -> None:
    operation_id = load(slow)
    stepped.give(2)
    eventually(lambda: slow.operation(operation_id).progress.items_processed == 2 * PIECE)
    progress = slow.operation(operation_id).progress
    assert "Loading IBM (1/2)" == progress.message
    assert (1, 2) == (progress.current_step, progress.total_steps)
    assert 100 * 2 * PIECE / ROWS["IBM"] / 2 == pytest.approx(progress.percentage)
    assert {"current_symbol": "IBM", "rows_loaded": str(2 * PIECE)} == dict(progress.context)
    assert [] == list(slow.get(operation_id, metrics_cursor=0).metrics)

    pieces = -(-ROWS["IBM"] // PIECE)
    stepped.give(pieces - 2 + 1)  # the rest of IBM, and one of GOOG
    eventually(lambda: slow.operation(operation_id).progress.items_processed > ROWS["IBM"])
    answer = slow.get(operation_id, metrics_cursor=0)
    assert RUNNING == answer.operation.status
    assert "Loading GOOG (2/2)" == answer.operation.progress.message
    assert ROWS["IBM"] + PIECE == answer.operation.progress.items_processed
    (metric,) = answer.metrics
    assert ("symbol", 1, {"symbol": "IBM"}) == (metric.kind, metric.step, dict(metric.labels))
    assert ROWS["IBM"] == metric.values["rows_loaded"] == metric.values["total_rows_loaded"]
    assert 1 == metric.values["symbols_completed"]
    assert 0 == metric.values["rejected"]
    assert {"duration", "validation_time", "gaps"} < set(metric.values)

    stepped.give(100)
    assert COMPLETED == slow.ended(operation_id).status
    assert [1, 2] == slow.epochs(operation_id)


# ----------------------------------------------------------------------------------------- repeats


def test_a_load_repeated_under_another_id_fetches_nothing(
    tmp_path: Path, stepped: SteppedSample
) -> None:
    with running_backend(tmp_path, provider=stepped) as running:
        stepped.give(100)
        load_whole(running)
        assert ["IBM", "GOOG"] == [symbol for symbol, _ in stepped.fetches]
        operation = load_whole(running)
        result = loaded_in(operation)
        assert 0 == result.total_rows_loaded
        assert list(ROWS.values()) == [one.row_count for one in result.symbols]
        assert [0, 0] == [one.rows_loaded for one in result.symbols]
        assert 2 == len(stepped.fetches)
        assert 100.0 == operation.progress.percentage


def test_a_wider_load_fetches_only_what_is_missing(tmp_path: Path, stepped: SteppedSample) -> None:
    middle, later = datetime(2008, 1, 1, tzinfo=UTC), datetime(2010, 1, 1, tzinfo=UTC)
    with running_backend(tmp_path, provider=stepped) as running:
        stepped.give(100)
        load_whole(
            running, symbols=["IBM"], start_time=timestamp(middle), end_time=timestamp(later)
        )
        result = loaded_in(load_whole(running, symbols=["IBM"]))
        assert [
            ("IBM", TimeRange(middle, later)),
            ("IBM", TimeRange(FROM, middle)),
            ("IBM", TimeRange(later, TO)),
        ] == stepped.fetches
        assert ROWS["IBM"] - len(BARS.read("IBM", "1d", middle, later)) == result.total_rows_loaded
        assert_same(BARS.read("IBM", "1d", FROM, TO), bars(running, "IBM"), check_exact=True)


def test_a_full_load_fetches_all_of_it_again(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        load_whole(running)
        operation = load_whole(running, mode=pb.LOAD_MODE_FULL)
        assert "full" == operation.metadata["mode"]
        result = loaded_in(operation)
        assert list(ROWS.values()) == [one.rows_loaded for one in result.symbols]
        assert list(ROWS.values()) == [one.row_count for one in result.symbols]
        assert_same(BARS.read("IBM", "1d", FROM, TO), bars(running, "IBM"), check_exact=True)


def test_a_repeated_request_finds_its_operation(
    slow: RunningBackend, stepped: SteppedSample
) -> None:
    first = load(slow, request_id="same")
    assert first == load(slow, request_id="same", mode=pb.LOAD_MODE_MISSING)
    stepped.give(100)
    end = slow.ended(first)
    again = slow.market_data.StartDataLoad(
        pb.StartDataLoadRequest(
            request_id="same",
            symbols=["IBM", "GOOG"],
            timeframe="1d",
            start_time=timestamp(FROM),
            end_time=timestamp(TO),
        )
    )
    assert (end, "same") == (again.operation, again.session_id)
    assert 1 == operations(slow)
    assert 2 == len(stepped.fetches)


def test_identical_concurrent_starts_are_one_load(tmp_path: Path, stepped: SteppedSample) -> None:
    with running_backend(tmp_path, provider=stepped, start_limit=8) as running:
        with ThreadPoolExecutor(8) as clients:
            starts = [clients.submit(load, running, request_id="same") for _ in range(8)]
            assert {"op_data_same"} == {start.result() for start in starts}
        stepped.give(100)
        assert COMPLETED == running.ended("op_data_same").status
        assert 1 == operations(running)
        assert 2 == len(stepped.fetches)


@pytest.mark.parametrize(
    "changed",
    [
        {"symbols": ["IBM"]},
        {"symbols": ["GOOG", "IBM"]},
        {"timeframe": "1w"},
        {"start_time": timestamp(datetime(2005, 1, 1, tzinfo=UTC))},
        {"start_time": None},
        {"end_time": timestamp(datetime(2012, 1, 1, tzinfo=UTC))},
        {"end_time": None},
        {"mode": pb.LOAD_MODE_FULL},
    ],
)
def test_a_request_id_cannot_be_used_for_another_load(
    running: RunningBackend, changed: dict[str, Any]
) -> None:
    load(running, request_id="taken")
    before = operations(running)
    refusal = refused(lambda: load(running, request_id="taken", **changed))
    assert grpc.StatusCode.ALREADY_EXISTS == refusal.code
    assert "REQUEST_ID_REUSED" == refusal.reason
    assert {"request_id": "taken", "operation_id": "op_data_taken"} == dict(refusal.metadata)
    assert before == operations(running)


def test_a_load_and_a_training_may_have_the_same_request_id(running: RunningBackend) -> None:
    assert "op_data_twins" == load(running, request_id="twins")
    assert "op_training_twins" == running.train(request_id="twins", overrides=QUICK)


# ------------------------------------------------------------------------------ cancelled, stopped


def test_a_cancelled_load_keeps_what_it_has_and_the_next_fetches_the_rest(
    slow: RunningBackend, stepped: SteppedSample
) -> None:
    operation_id = load(slow)
    stepped.give(2)
    eventually(lambda: slow.operation(operation_id).progress.items_processed == 2 * PIECE)
    slow.cancel(operation_id, "enough")
    end = slow.ended(operation_id)
    assert CANCELLED == end.status
    assert "enough" == end.cancel_reason
    assert 2 * PIECE == end.progress.items_processed
    whole = BARS.read("IBM", "1d", FROM, TO)
    assert_same(whole.iloc[: 2 * PIECE], bars(slow, "IBM"), check_exact=True)
    assert "SERIES_NOT_FOUND" == refused(lambda: bars(slow, "GOOG")).reason

    stepped.give(100)
    result = loaded_in(load_whole(slow))
    assert [ROWS["IBM"] - 2 * PIECE, ROWS["GOOG"]] == [one.rows_loaded for one in result.symbols]
    assert_same(whole, bars(slow, "IBM"), check_exact=True)


def test_a_queued_load_is_cancelled_at_once_and_loads_nothing(
    slow: RunningBackend, stepped: SteppedSample
) -> None:
    running, queued = load(slow), load(slow, symbols=["GOOG"])
    assert CANCELLED == slow.cancel(queued).status
    stepped.give(100)
    slow.ended(running)
    assert ["IBM", "GOOG"] == [symbol for symbol, _ in stepped.fetches]


def test_what_a_stopped_backend_has_loaded_is_there_for_the_next(
    tmp_path: Path, stepped: SteppedSample
) -> None:
    with running_backend(tmp_path, provider=stepped) as running:
        operation_id = load(running)
        stepped.give(3)
        eventually(lambda: running.operation(operation_id).progress.items_processed == 3 * PIECE)
    with running_backend(tmp_path) as running:
        whole = BARS.read("IBM", "1d", FROM, TO)
        assert_same(whole.iloc[: 3 * PIECE], bars(running, "IBM"), check_exact=True)
        result = loaded_in(load_whole(running))
        assert ROWS["IBM"] - 3 * PIECE == result.symbols[0].rows_loaded


def test_bars_can_be_read_while_they_are_loaded(
    slow: RunningBackend, stepped: SteppedSample
) -> None:
    operation_id = load(slow, symbols=["IBM"])
    whole = BARS.read("IBM", "1d", FROM, TO)
    stepped.give(1)  # the first piece is kept at once, later ones may wait for each other
    eventually(lambda: slow.operation(operation_id).progress.items_processed == PIECE)
    assert_same(whole.iloc[:PIECE], bars(slow, "IBM"), check_exact=True)
    stepped.give(100)
    slow.ended(operation_id)
    assert_same(whole, bars(slow, "IBM"), check_exact=True)
