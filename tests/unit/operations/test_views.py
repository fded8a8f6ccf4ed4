from __future__ import annotations

import threading
from dataclasses import replace

from shared.operations import endings
from shared.operations.flight import Flight
from shared.operations.live import LiveOperation
from shared.operations.model import FreshnessSource, Hop, OperationError, OperationStatus
from shared.operations.refresh import Refreshed
from shared.operations.source import BridgeSource, SourceReading
from shared.operations.views import view_of_live, view_of_record
from shared.rpc.errors import Code, HostUnreachableError
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import DAY, RESULT, Worker, metric, operation, record

FAR = Hop("host", FreshnessSource.BRIDGE, cached=True, age=0.25)


def test_the_age_is_the_sum_and_the_path_goes_from_here_to_the_worker() -> None:
    live = LiveOperation(record(), 0.0)
    live.source = FakeRemoteSource()
    live.adopt(SourceReading(0, (metric(1),), 1, None, path=(FAR,)), 10.0)
    live.land(Flight(1, 10.0, 0.0), 9.75)

    view = view_of_live(live.state(0, 9), Refreshed(cached=True), "me", 12.0)

    assert (2.25, FreshnessSource.REMOTE, True, None) == (
        view.freshness.age,
        view.freshness.source,
        view.freshness.cached,
        view.freshness.refresh_error,
    )
    assert (Hop("me", FreshnessSource.REMOTE, cached=True, age=2.25), FAR) == view.freshness.path
    assert (metric(1),) == view.metrics


def test_a_read_that_failed_is_said() -> None:
    live = LiveOperation(record(), 10.0)
    live.source = FakeRemoteSource()
    error = HostUnreachableError("no answer")

    view = view_of_live(live.state(0, 0), Refreshed(cached=True, error=error), "me", 12.0)

    assert view.freshness.refresh_error == OperationError.of(error)
    assert (2.0, FreshnessSource.RECORD) == (view.freshness.age, view.freshness.source)


def test_a_store_that_is_away_is_said() -> None:
    live = LiveOperation(record(), 10.0)
    live.source = BridgeSource(Worker().bridge)
    live.store_error = OperationError(Code.UNAVAILABLE, "STORE_UNAVAILABLE", "away")

    view = view_of_live(live.state(0, 0), Refreshed(cached=False), "me", 10.0)

    assert live.store_error == view.freshness.refresh_error


def test_what_has_ended_is_a_record_of_no_age() -> None:
    live = LiveOperation(record(), 0.0)
    live.begin(threading.current_thread(), DAY)
    live.claim_ending(endings.completed(RESULT, DAY))
    sealed = live.seal()
    assert sealed is not None
    live.publish(sealed[0])

    view = view_of_live(live.state(0, 0), Refreshed(cached=True), "me", 50.0)

    assert view == view_of_record(live.record.operation, (), "me")
    assert (0.0, FreshnessSource.RECORD, False, None) == (
        view.freshness.age,
        view.freshness.source,
        view.freshness.cached,
        view.liveness,
    )


def test_a_record_keeps_its_metrics() -> None:
    done = replace(operation(), status=OperationStatus.FAILED)

    assert (metric(1), metric(2)) == view_of_record(done, [metric(1), metric(2)], "me").metrics
