"""Loads, reads and listings that are refused: each bad field by name, and nothing begun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from shared.operations.conversion import timestamp
from tests.integration.loads import (
    FROM,
    NEVER,
    QUICK,
    SERVICE,
    TO,
    SteppedSample,
    bars,
    load,
    load_whole,
    operations,
)
from tests.integration.refusals import refused
from tests.integration.running import (
    COMPLETED,
    PENDING,
    RUNNING,
    RunningBackend,
    running_backend,
)
from tests.support.eventually import eventually


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """A backend that holds the days of IBM and GOOG in the range; tests only read it."""
    with running_backend(tmp_path_factory.mktemp("home")) as running:
        assert COMPLETED == load_whole(running).status
        yield running


@pytest.fixture
def stepped() -> SteppedSample:
    """The provider of `slow`."""
    return SteppedSample()


@pytest.fixture
def slow(tmp_path: Path, stepped: SteppedSample) -> Iterator[RunningBackend]:
    """A backend with one worker for loads, whose provider waits for the test."""
    with running_backend(tmp_path, provider=stepped, data_workers=1, data_queue=1) as running:
        yield running


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"request_id": "a b"}, "request_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"symbols": []}, "symbols"),
        ({"symbols": [f"S{number}" for number in range(101)]}, "symbols"),
        ({"symbols": ["IBM", ""]}, "symbols[1]"),
        ({"symbols": ["IBM", "IBM"]}, "symbols[1]"),
        ({"symbols": ["IBM", "IBN"]}, "symbols[1]"),
        ({"timeframe": ""}, "timeframe"),
        ({"timeframe": "1 day"}, "timeframe"),
        ({"timeframe": "1h"}, "timeframe"),
        ({"start_time": NEVER}, "start_time"),
        ({"end_time": NEVER}, "end_time"),
        ({"end_time": timestamp(FROM)}, "end_time"),
        ({"mode": 3}, "mode"),
    ],
)
def test_a_bad_field_of_a_load_is_refused_by_name_before_anything_exists(
    running: RunningBackend,
    fields: dict[str, Any],
    bad: str,
) -> None:
    before = operations(running)
    refusal = refused(lambda: load(running, **fields))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert {bad} == set(refusal.fields)
    assert bad in refusal.message
    assert refusal.retry_after is None
    assert before == operations(running)


def test_an_unknown_symbol_is_refused_with_those_there_are_before_anything_exists(
    tmp_path: Path,
) -> None:
    with running_backend(tmp_path) as running:
        refusal = refused(lambda: load(running, symbols=["IBM", "GOOGL"], request_id="typo"))
        assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
        assert ["symbols[1]"] == list(refusal.fields)
        assert "did you mean 'GOOG'?" in refusal.fields["symbols[1]"]
        assert 0 == operations(running)
        assert [] == list(running.market_data.ListSeries(pb.ListSeriesRequest()).series)
        # The id is still free.
        assert COMPLETED == load_whole(running, request_id="typo").status


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"symbol": ""}, "symbol"),
        ({"timeframe": "1x"}, "timeframe"),
        ({"limit": -1}, "limit"),
        ({"start_time": NEVER}, "start_time"),
        ({"end_time": NEVER}, "end_time"),
        ({"start_time": timestamp(TO), "end_time": timestamp(FROM)}, "end_time"),
    ],
)
def test_a_bad_field_of_a_read_is_refused_by_name(
    loaded: RunningBackend, fields: dict[str, Any], bad: str
) -> None:
    asked = {"symbol": "IBM", "timeframe": "1d", **fields}
    refusal = refused(lambda: bars(loaded, **asked))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert {bad} == set(refusal.fields)


@pytest.mark.parametrize(
    ("fields", "bad"), [({"page_size": -1}, "page_size"), ({"page_token": "?"}, "page_token")]
)
def test_a_bad_field_of_a_listing_is_refused_by_name(
    loaded: RunningBackend, fields: dict[str, Any], bad: str
) -> None:
    request = pb.ListSeriesRequest(**fields)
    refusal = refused(lambda: loaded.market_data.ListSeries(request))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert {bad} == set(refusal.fields)


@pytest.mark.parametrize("method", ["StartDataLoad", "ReadBars", "ListSeries"])
@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"\x07" * 50])
def test_malformed_bytes_are_an_invalid_argument(
    loaded: RunningBackend, method: str, data: bytes
) -> None:
    refusal = refused(lambda: loaded.send(f"/{SERVICE}/{method}", data))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert "INVALID_ARGUMENT" == refusal.reason


@pytest.mark.parametrize("method", ["StartDataLoad", "ReadBars"])
def test_text_that_is_not_utf_8_is_an_invalid_argument(loaded: RunningBackend, method: str) -> None:
    refusal = refused(lambda: loaded.send(f"/{SERVICE}/{method}", b"\x0a\x02\xff\xfe"))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code


def test_a_load_that_finds_no_worker_is_told_when_to_come_back(
    slow: RunningBackend, stepped: SteppedSample
) -> None:
    running, queued = load(slow), load(slow, symbols=["IBM"])
    eventually(lambda: slow.operation(running).status == RUNNING)
    assert PENDING == slow.operation(queued).status
    refusal = refused(lambda: load(slow, request_id="late"))
    assert grpc.StatusCode.RESOURCE_EXHAUSTED == refusal.code
    assert "WORKERS_BUSY" == refusal.reason
    assert refusal.retry_after
    stepped.give(100)
    assert {COMPLETED} == {slow.ended(operation_id).status for operation_id in (running, queued)}
    assert COMPLETED == load_whole(slow, request_id="late").status


def test_loads_leave_the_workers_of_trainings_alone(slow: RunningBackend) -> None:
    load(slow)
    assert COMPLETED == slow.ended(slow.train(overrides=QUICK)).status
