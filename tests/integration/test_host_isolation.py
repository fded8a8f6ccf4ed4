"""One host that stands still takes nothing from the operations of another.

Nothing here is timed: what must not be delayed is done from beginning to end
while those who wait for the frozen host still wait.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from tests.integration.hosted import backend_on, let_end
from tests.integration.refusals import outcome_of, refused
from tests.integration.running import CANCELLED, CANCELLING, COMPLETED, RUNNING, RunningBackend
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.relay import Relay
from tests.support.scripted_work import PATIENCE

POLLERS = 30
"""More than a backend has places for reads: 24, of which 6 may wait for one host."""
WAITERS = 6


@dataclass(frozen=True, slots=True)
class Pair:
    """A backend on two hosts; the way to the first can be frozen."""

    running: RunningBackend
    relay: Relay
    slow: ScriptedHost
    healthy: ScriptedHost
    on_slow: str
    """An operation of the first host."""
    on_healthy: str
    """An operation of the second."""

    def look(self, operation_id: str, *, force_refresh: bool = False) -> pb.GetOperationResponse:
        """GetOperation with time enough for a whole refresh."""
        request = pb.GetOperationRequest(operation_id=operation_id, force_refresh=force_refresh)
        answer: pb.GetOperationResponse = self.running.operations.GetOperation(
            request, timeout=PATIENCE
        )
        return answer

    def waiting(self) -> int:
        """How many callers wait for the first host."""
        outages = self.running.backend.operations._refresher.outages
        return outages._waiting[self.relay.address]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Every look asks the host: nothing is young enough. All limits are the defaults."""
    with (
        scripted_host(tmp_path / "slow", workers=40, queue_limit=0) as slow,
        scripted_host(tmp_path / "healthy", workers=2, queue_limit=0) as healthy,
        closing(Relay(slow.address)) as relay,
        backend_on(tmp_path, relay.address, healthy.address, cache_ttl=0.0) as running,
    ):
        on_slow = running.train(request_id="slow")  # the first named, both are idle
        on_healthy = running.train(request_id="healthy")  # the first is busier now
        slow.work(on_slow).report_epochs(2)
        healthy.work(on_healthy).report_epochs(3)
        pair = Pair(running, relay, slow, healthy, on_slow, on_healthy)
        assert [1, 2] == running.epochs(on_slow)
        assert [1, 2, 3] == running.epochs(on_healthy)
        yield pair
        relay.thaw()
        let_end(slow, healthy)


@dataclass(frozen=True, slots=True)
class Polling:
    """Clients that poll one operation, and what they have been told."""

    told: Counter[str]
    """How often each reason came; "" for a fresh answer."""
    codes: Counter[grpc.StatusCode]
    """How calls ended that were not answered."""


@contextmanager
def _polled(pair: Pair, clients: int = POLLERS) -> Iterator[Polling]:
    """Freeze the first host, and have clients poll its operation ten times a second."""
    polling = Polling(Counter(), Counter())
    lock, enough = threading.Lock(), threading.Event()

    def poll() -> None:
        with grpc.insecure_channel(pair.running.address) as channel:
            stub = OperationsServiceStub(channel)
            request = pb.GetOperationRequest(operation_id=pair.on_slow)
            while not enough.is_set():
                try:
                    answer = stub.GetOperation(request, timeout=PATIENCE)
                except grpc.RpcError as error:
                    with lock:
                        polling.codes[error.code()] += 1
                else:
                    with lock:
                        polling.told[answer.operation.freshness.refresh_error.reason] += 1
                enough.wait(0.1)

    pair.relay.freeze()
    with ThreadPoolExecutor(clients) as pool:
        done = [pool.submit(poll) for _ in range(clients)]
        try:
            eventually(lambda: pair.waiting() == WAITERS)
            eventually(lambda: polling.told["REFRESH_BUSY"] >= clients)
            yield polling
        finally:
            enough.set()
            pair.relay.thaw()
            for each in done:
                each.result(PATIENCE)


def _flight(pair: Pair) -> object:
    """The read of the first host that is on its way."""
    return pair.running.backend.operations._registry._live[pair.on_slow].flight


def test_an_operation_on_a_healthy_host_is_read_while_others_wait_for_a_frozen_one(
    pair: Pair,
) -> None:
    with _polled(pair) as polling:
        flight = _flight(pair)
        for epoch in range(3, 53):
            pair.healthy.work(pair.on_healthy).report_epochs(1, first=epoch)
            answer = pair.look(pair.on_healthy, force_refresh=True)
            assert epoch + 1 == answer.operation.metrics_count
        assert flight is not None
        assert flight is _flight(pair)  # all fifty went by while one read stood still
        assert WAITERS == pair.waiting()
        assert polling.codes.keys() <= {grpc.StatusCode.RESOURCE_EXHAUSTED}  # 30 come at once
    assert polling.told["REFRESH_BUSY"] >= POLLERS


def test_those_beyond_the_ones_who_may_wait_get_what_is_known_and_are_told_why(
    pair: Pair,
) -> None:
    with _polled(pair):
        answer = pair.look(pair.on_slow)
        assert RUNNING == answer.operation.status
        assert 2 == answer.operation.metrics_count
        assert "REFRESH_BUSY" == answer.operation.freshness.refresh_error.reason
        refusal = refused(lambda: pair.look(pair.on_slow, force_refresh=True))
        assert (grpc.StatusCode.UNAVAILABLE, "REFRESH_BUSY") == (refusal.code, refusal.reason)
        assert refusal.retry_after


def test_health_and_listings_are_answered_while_others_wait_for_a_frozen_host(
    pair: Pair,
) -> None:
    with _polled(pair):
        flight = _flight(pair)
        for _ in range(10):
            assert health_pb2.HealthCheckResponse.SERVING == pair.running.health()
            rows = pair.running.operations.ListOperations(
                pb.ListOperationsRequest(), timeout=PATIENCE
            ).operations
            reasons = {row.operation_id: row.freshness.refresh_error.reason for row in rows}
            assert {pair.on_slow: "REFRESH_BUSY", pair.on_healthy: ""} == reasons
        assert flight is _flight(pair)


def test_trainings_start_end_and_are_cancelled_elsewhere_while_one_host_is_frozen(
    pair: Pair,
) -> None:
    with _polled(pair):
        pair.healthy.work(pair.on_healthy).finish()
        assert COMPLETED == pair.running.ended(pair.on_healthy).status
        started = pair.running.train(request_id="meanwhile")
        work = pair.healthy.work(started)
        assert CANCELLING == pair.running.cancel(started).status
        work.notice_cancel()
        assert CANCELLED == pair.running.ended(started).status


def test_a_frozen_host_is_asked_no_more_than_there_are_reads_on_their_way(pair: Pair) -> None:
    asked = pair.slow.calls["GetOperation"]
    with _polled(pair, clients=WAITERS + 4) as polling:
        eventually(lambda: polling.told["REFRESH_BUSY"] > 40)
        pair.relay.thaw()
        eventually(lambda: polling.told[""] > 0)
        answered = polling.told[""]
    assert pair.slow.calls["GetOperation"] <= asked + polling.told[""] + 1
    assert answered > 0


def test_a_listing_names_the_host_that_did_not_answer_and_shows_the_other_fresh(
    pair: Pair,
) -> None:
    pair.relay.freeze()
    listed = pair.running.operations.ListOperations(pb.ListOperationsRequest(), timeout=PATIENCE)
    rows = {row.operation_id: row for row in listed.operations}
    assert [pair.relay.address] == list(listed.unreachable)
    assert "HOST_UNREACHABLE" == rows[pair.on_slow].freshness.refresh_error.reason
    assert 2 == rows[pair.on_slow].metrics_count
    assert not rows[pair.on_healthy].freshness.HasField("refresh_error")
    assert 3 == rows[pair.on_healthy].metrics_count


def test_those_who_cancel_on_a_frozen_host_take_no_places_from_other_reads(pair: Pair) -> None:
    ids = [pair.running.train(request_id=f"more-{number}") for number in range(POLLERS)]
    there = [
        id_
        for id_ in ids
        if pair.running.operation(id_).metadata["host_service_url"] == pair.relay.address
    ]
    assert len(there) > 24  # the places for reads
    pair.relay.freeze()
    with ThreadPoolExecutor(20) as clients:  # no more than there are places
        cancels = [clients.submit(outcome_of, partial(pair.running.cancel, id_)) for id_ in there]
        eventually(lambda: sum(each.done() for each in cancels) >= len(there) - WAITERS)
        assert 3 == pair.look(pair.on_healthy, force_refresh=True).operation.metrics_count
        assert WAITERS == sum(not each.done() for each in cancels)
        pair.relay.thaw()
        outcomes = {each.result(PATIENCE) for each in cancels}
    assert {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE} == outcomes
