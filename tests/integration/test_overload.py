"""More than a process can bear: it says so to those it turns away, and serves the others."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2

from ktrdr.operations.v1 import operations_service_pb2 as pb
from tests.integration.loads import load_whole
from tests.integration.refusals import Refusal, refusal_of, refused
from tests.integration.running import COMPLETED, RUNNING, RunningBackend, running_backend
from tests.support.eventually import eventually
from tests.support.raw_http2 import RawConnection, message
from tests.support.scripted_work import PATIENCE, ScriptedWork

OPERATIONS = "/ktrdr.operations.v1.OperationsService/"
WAITS = 1000
SERVING = health_pb2.HealthCheckResponse.SERVING


def begin_wait(running: RunningBackend, work: ScriptedWork) -> Any:
    request = pb.WaitOperationRequest(operation_id=work.operation_id, timeout=Duration(seconds=30))
    return running.operations.WaitOperation.future(request, timeout=PATIENCE)


def outcomes(calls: list[Any]) -> Counter[str]:
    """How the calls that have ended did."""
    return Counter(map(outcome, (call for call in calls if call.done())))


def outcome(call: Any) -> str:
    error = call.exception()
    if error is None:
        return "early" if call.result().HasField("retry_after") else "waited"
    refusal = refusal_of(error)
    assert refusal.retry_after, refusal
    return f"{refusal.code.name} {refusal.reason}"


def test_a_thousand_waits_leave_reads_and_health_alone(tmp_path: Path) -> None:
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        waits = [begin_wait(running, work) for _ in range(WAITS)]
        for _ in range(50):
            assert RUNNING == running.operation(work.operation_id).status
            assert SERVING == running.health()
        eventually(lambda: sum(wait.done() for wait in waits) == WAITS - 16)
        assert {"early": WAITS - 16} == outcomes(waits)
        work.finish()
        ends = [
            wait.result(PATIENCE).operation.status for wait in waits if outcome(wait) != "early"
        ]
        assert [COMPLETED] * 16 == ends


def test_waits_beyond_the_queue_are_told_when_to_come_back(tmp_path: Path) -> None:
    with running_backend(tmp_path, wait_limit=2, wait_queue=4) as running:
        work = running.scripted.start_running()
        waits = [begin_wait(running, work) for _ in range(200)]
        eventually(lambda: sum(wait.done() for wait in waits) == 198)
        assert set(outcomes(waits)) <= {"early", "RESOURCE_EXHAUSTED TOO_MANY_CALLS"}
        work.finish()


def test_a_training_goes_on_under_a_flood_of_reads(tmp_path: Path) -> None:
    with running_backend(tmp_path, read_limit=4) as running:
        operation_id = running.train(overrides={"model.training.epochs": "10000"})
        eventually(lambda: running.operation(operation_id).metrics_count > 0, within=60.0)
        flood = Flood(partial(_read, running, operation_id))
        with flood.of(32):
            before = _epochs(running, operation_id)
            eventually(lambda: _epochs(running, operation_id) > before + 5, within=30.0)
            eventually(lambda: flood.ended["OK"] > 50 and flood.ended["shed"] > 50)
            assert SERVING == running.health()
        assert {"OK", "shed"} == set(flood.ended)
        # Calls are drawn by lot for a moment yet: that one is served says nothing of the next.
        eventually(lambda: "OK" == _told(lambda: running.cancel(operation_id)))


def _read(running: RunningBackend, operation_id: str) -> str:
    request = pb.GetOperationRequest(operation_id=operation_id, force_refresh=True)
    return _told(lambda: running.operations.GetOperation(request, timeout=PATIENCE))


def _told(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == refusal.code
        return "shed" if refusal.retry_after else "shed without details"
    return "OK"


def _epochs(running: RunningBackend, operation_id: str) -> int:
    """Epochs reported, as the training's own bridge has them: reads may be shed."""
    live: Any = running.backend.operations._registry.get(operation_id)
    return int(live.source.read(0, 0, 0.0, 1.0).metrics_count)


class Flood:
    """Threads that do something again and again, and count how it ends."""

    def __init__(self, what: Callable[[], str]) -> None:
        self._what = what
        self._end = threading.Event()
        self._lock = threading.Lock()  # guards ended
        self.ended: Counter[str] = Counter()

    def of(self, count: int) -> Flood:
        """As many threads, while the block runs."""
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        return self

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._end.is_set():
            how = self._what()
            with self._lock:
                self.ended[how] += 1


# ------------------------------------------------------------------ half calls


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[RunningBackend]:
    """A backend with few places, which waits half a second for clients that keep it waiting."""
    with running_backend(
        tmp_path,
        read_limit=4,
        wait_limit=1,
        stream_limit=1,
        start_limit=1,
        client_patience=0.5,
    ) as running:
        yield running


METHODS = [
    f"{OPERATIONS}GetOperation",
    f"{OPERATIONS}WaitOperation",
    "/ktrdr.training.v1.TrainingService/StartTraining",
    "/ktrdr.marketdata.v1.MarketDataService/ReadBars",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
]


@pytest.mark.parametrize("method", METHODS)
def test_calls_that_never_send_their_message_stop_neither_health_nor_their_own_kind(
    narrow: RunningBackend, method: str
) -> None:
    work = narrow.scripted.start_running()
    with RawConnection(narrow.address) as raw:
        for _ in range(200):
            raw.begin(method)
        eventually(lambda: _answers(narrow, "/grpc.health.v1.Health/Check", b""), within=5.0)
        request = pb.GetOperationRequest(operation_id=work.operation_id).SerializeToString()
        eventually(lambda: _answers(narrow, f"{OPERATIONS}GetOperation", request), within=5.0)
        eventually(lambda: _is_served(narrow, method), within=5.0)


def _answers(running: RunningBackend, method: str, data: bytes) -> bool:
    return _refusal(running, method, data) is None


def _is_served(running: RunningBackend, method: str) -> bool:
    """Whether a whole call of a method finds a place, whatever is then said of its request."""
    refusal = _refusal(running, method, b"")
    return refusal is None or refusal.code is not grpc.StatusCode.RESOURCE_EXHAUSTED


def _refusal(running: RunningBackend, method: str, data: bytes) -> Refusal | None:
    stub: Any = running.channel.unary_stream(method)
    call = stub(data, timeout=PATIENCE)
    try:
        next(call, None)
    except grpc.RpcError as error:
        return refusal_of(error)
    finally:
        call.cancel()
    return None


def _taken(running: RunningBackend, class_: str) -> int:
    pools: list[Any] = running.backend.server._pools
    return sum(pool._taken for pool in pools if getattr(pool, "class_", "") == class_)


def test_a_client_that_does_not_read_its_bars_keeps_them_from_nobody(
    narrow: RunningBackend,
) -> None:
    load_whole(narrow, symbols=["IBM"], start_time=None, end_time=None)
    request = b"\x0a\x03IBM\x12\x021d"
    method = "/ktrdr.marketdata.v1.MarketDataService/ReadBars"
    with RawConnection(narrow.address, window=100) as raw:
        raw.send(raw.begin(method), message(request), last=True)
        eventually(lambda: _taken(narrow, "stream") == 1)
        assert not _answers(narrow, method, request)
        eventually(lambda: _answers(narrow, method, request), within=5.0)


def test_what_is_shed_says_which_limit_it_met(tmp_path: Path) -> None:
    with running_backend(tmp_path, start_limit=1, client_patience=600) as running:
        method = "/ktrdr.training.v1.TrainingService/StartTraining"
        with RawConnection(running.address) as raw:
            raw.begin(method)
            eventually(lambda: _taken(running, "start") == 1)
            refusal = refused(lambda: running.send(method, b""))
    assert {"class": "start", "limit": "1"} == dict(refusal.metadata)
    assert "limit 1" in refusal.message
    assert refusal.retry_after
