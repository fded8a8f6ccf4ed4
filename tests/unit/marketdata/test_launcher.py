from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from ktrdr.marketdata.v1 import bar_pb2
from shared.marketdata.launcher import LoadOrder, LocalDataLoadLauncher
from shared.marketdata.provider import SeriesFailedError
from shared.marketdata.request import LoadMode, LoadRequest
from shared.marketdata.store import BarStore
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import OperationStatus, OperationType
from shared.operations.service import OperationsService
from shared.operations.starts import NewOperation
from shared.operations.views import OperationView
from shared.operations.worker_pool import WorkerPool
from shared.rpc.errors import ProcessStoppingError, ResourceExhaustedError, UnavailableError
from tests.support.eventually import eventually
from tests.unit.marketdata.frames import ScriptedProvider, daily, day
from tests.unit.operations.fakes import ME

S = OperationStatus
REQUEST = LoadRequest(("AAA", "BBB"), "1d", day(0), day(30))
ORDER = LoadOrder("night", REQUEST)


@dataclass(frozen=True, slots=True)
class Loads:
    """What a load needs, and how it is going."""

    operations: OperationsService
    pool: WorkerPool
    store: BarStore
    provider: ScriptedProvider
    launcher: LocalDataLoadLauncher

    def start(self, order: LoadOrder = ORDER) -> str:
        operation_id = f"op_data_{order.request_id}"
        new = NewOperation(
            operation_id,
            order.request_id,
            OperationType.DATA_LOADING,
            order.fingerprint,
            order.metadata,
        )
        self.operations.start_operation(new, self.launcher.launch(order))
        return operation_id

    def view(self, operation_id: str) -> OperationView:
        return self.operations.get_operation(operation_id, max_staleness=0.0)

    def ended(self, operation_id: str) -> OperationView:
        eventually(lambda: self.view(operation_id).operation.status.terminal)
        return self.view(operation_id)


@pytest.fixture
def loads(tmp_path: Path) -> Iterator[Loads]:
    operations = OperationsService(MemoryOperationStore(), ME)
    pool = WorkerPool("data", workers=1, queue_limit=1)
    store = BarStore(tmp_path)
    provider = ScriptedProvider({name: daily(0, 30) for name in ("AAA", "BBB", "CCC")})
    yield Loads(
        operations, pool, store, provider, LocalDataLoadLauncher(operations, pool, store, provider)
    )
    operations.refuse_starts()
    pool.close()
    operations.interrupt_work()
    assert pool.join(10.0)


def result_in(view: OperationView) -> bar_pb2.DataLoadResult:
    packed, result = view.operation.result, bar_pb2.DataLoadResult()
    assert packed is not None
    assert AnyMessage(type_url=packed.type_url, value=packed.value).Unpack(result)
    return result


def test_a_load_runs_on_a_worker_and_ends_with_its_result(loads: Loads) -> None:
    view = loads.ended(loads.start())
    assert S.COMPLETED == view.operation.status
    result = result_in(view)
    assert (60, 2) == (result.total_rows_loaded, result.symbols_loaded)
    assert [("AAA", "1d"), ("BBB", "1d")] == list(loads.store.series())
    assert view.operation.progress is not None
    assert 100.0 == view.operation.progress.percentage
    assert 60 == view.operation.progress.items_processed
    assert 2 == view.operation.metrics_count


def test_a_symbol_that_fails_does_not_end_the_operation(loads: Loads) -> None:
    loads.provider.failing["AAA"] = SeriesFailedError("AAA is not had. Leave it out.", reason="NO")
    view = loads.ended(loads.start())
    assert S.COMPLETED == view.operation.status
    assert [("AAA", "NO")] == [(one.symbol, one.reason) for one in result_in(view).symbols_failed]


def test_a_load_without_a_provider_to_reach_fails_with_its_reason(loads: Loads) -> None:
    loads.provider.failing["AAA"] = UnavailableError("Nobody answers.", reason="PROVIDER_AWAY")
    view = loads.ended(loads.start())
    assert S.FAILED == view.operation.status
    assert view.operation.error is not None
    assert "PROVIDER_AWAY" == view.operation.error.reason
    assert 10 == loads.store.info("AAA", "1d").row_count


def test_a_cancelled_load_ends_soon_even_while_it_waits(loads: Loads) -> None:
    loads.provider.waits["AAA"] = 3600.0
    operation_id = loads.start()
    eventually(lambda: bool(loads.provider.fetches))
    loads.operations.cancel_operation(operation_id, "enough")
    view = loads.ended(operation_id)
    assert S.CANCELLED == view.operation.status
    assert "enough" == view.operation.cancel_reason


def test_a_load_beyond_the_queue_is_refused_and_leaves_no_place_taken(loads: Loads) -> None:
    loads.provider.waits["AAA"] = 3600.0
    running = loads.start()
    eventually(lambda: bool(loads.provider.fetches))
    queued = loads.start(replace(ORDER, request_id="second"))
    with pytest.raises(ResourceExhaustedError, match="data workers"):
        loads.start(replace(ORDER, request_id="third"))
    assert S.PENDING == loads.view(queued).operation.status
    loads.provider.waits.clear()
    loads.operations.cancel_operation(running, "")
    assert S.COMPLETED == loads.ended(queued).operation.status
    assert (
        S.COMPLETED == loads.ended(loads.start(replace(ORDER, request_id="third"))).operation.status
    )


def test_a_load_after_the_pool_has_closed_is_refused(loads: Loads) -> None:
    loads.pool.close()
    with pytest.raises(ProcessStoppingError):
        loads.start()


@pytest.mark.parametrize(
    "changed",
    [
        {"symbols": ("AAA",)},
        {"symbols": ("BBB", "AAA")},
        {"timeframe": "1w"},
        {"start": day(1)},
        {"start": None},
        {"end": day(29)},
        {"end": None},
        {"mode": LoadMode.FULL},
    ],
)
def test_another_request_has_another_fingerprint(changed: dict[str, object]) -> None:
    other = replace(REQUEST, **changed)  # type: ignore[arg-type]  # a field each
    assert ORDER.fingerprint != LoadOrder("night", other).fingerprint


def test_the_same_request_has_the_same_fingerprint_under_any_id() -> None:
    again = LoadRequest(("AAA", "BBB"), "1d", datetime(2020, 1, 1, tzinfo=UTC), day(30))
    assert ORDER.fingerprint == LoadOrder("day", again).fingerprint


def test_the_operation_says_what_was_asked_for() -> None:
    assert {
        "session_id": "night",
        "symbols": "AAA,BBB",
        "timeframe": "1d",
        "start_time": "2020-01-01T00:00:00+00:00",
        "end_time": "2020-01-31T00:00:00+00:00",
        "mode": "missing",
    } == dict(ORDER.metadata)


def test_what_was_left_open_is_not_said() -> None:
    order = LoadOrder("night", LoadRequest(("AAA",), "1d", mode=LoadMode.FULL))
    assert {"session_id": "night", "symbols": "AAA", "timeframe": "1d", "mode": "full"} == dict(
        order.metadata
    )
