"""What readers have learnt of an operation is stored now and then, never by its worker."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.operations.model import OperationStatus, Progress
from shared.operations.settling import NEWS
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import DAY, RESULT, Setup, metric, operation, steps
from tests.unit.operations.lives import HOST, Life, recorded

S = OperationStatus


@pytest.fixture
def setup() -> Setup:
    return Setup()


def kept_steps(setup: Setup) -> list[int]:
    return steps(setup.store.metrics("op", 0, 10_000))


def test_a_report_alone_stores_nothing(setup: Setup) -> None:
    worker = setup.running()
    before = setup.store.saves
    worker.measure(1, 2)
    worker.report(50.0, "half")
    setup.clock.advance(3600)

    assert (before, []) == (setup.store.saves, kept_steps(setup))


def test_a_read_that_brought_news_stores_them(setup: Setup) -> None:
    worker = setup.running()
    worker.measure(1, 2)
    worker.report(50.0, "half")

    setup.service.get_operation("op")

    kept = setup.store.get("op")
    assert kept is not None
    assert kept.operation.progress is not None
    assert (2, 50.0, [1, 2]) == (
        kept.operation.metrics_count,
        kept.operation.progress.percentage,
        kept_steps(setup),
    )


def test_news_are_stored_at_most_once_in_a_while(setup: Setup) -> None:
    worker = setup.running()
    before = setup.store.saves
    for step in range(1, 11):
        worker.measure(step)
        setup.service.get_operation("op", max_staleness=0.0)
        setup.clock.advance(NEWS / 10)

    assert 1 == setup.store.saves - before
    assert [1] == kept_steps(setup)

    setup.clock.advance(NEWS)
    setup.service.get_operation("op")
    assert list(range(1, 11)) == kept_steps(setup)


def test_a_read_without_news_stores_nothing(setup: Setup) -> None:
    worker = setup.running()
    worker.measure(1)
    setup.service.get_operation("op")
    before = setup.store.saves
    for _ in range(5):
        setup.clock.advance(NEWS * 2)
        setup.service.get_operation("op", max_staleness=0.0)

    assert before == setup.store.saves


def test_the_end_stores_the_rest_of_the_log_and_no_more(setup: Setup) -> None:
    worker = setup.running()
    worker.measure(1, 2)
    setup.service.get_operation("op")
    worker.measure(3)
    setup.service.complete_operation("op", RESULT)

    assert [1, 2, 3] == kept_steps(setup)


def test_news_that_cannot_be_stored_are_said_and_stored_later(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    worker = setup.running()
    worker.measure(1)
    setup.store.away = True
    for _ in range(3):
        setup.service.get_operation("op", max_staleness=0.0)
        setup.clock.advance(2)

    error = setup.service.get_operation("op").freshness.refresh_error
    assert error is not None
    assert ("STORE_UNAVAILABLE", 1) == (error.reason, len(caplog.records)), "said once"

    setup.store.away = False
    setup.clock.advance(2)
    setup.service.get_operation("op", max_staleness=0.0)
    assert setup.service.get_operation("op").freshness.refresh_error is None
    assert [1] == kept_steps(setup)


def test_a_store_that_is_away_is_not_tried_by_each_reader(setup: Setup) -> None:
    worker = setup.running()
    worker.measure(1)
    setup.store.away = True
    before = setup.store.saves
    for _ in range(20):
        setup.service.get_operation("op", max_staleness=0.0)
    setup.store.away = False

    assert 1 == setup.store.saves - before
    assert [] == kept_steps(setup)


def test_of_work_elsewhere_it_is_stored_when_it_was_so(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING), age=0.4)
    setup.remote(source)
    before = setup.clock.now()

    setup.service.get_operation("op")

    kept = setup.store.get("op")
    assert kept is not None
    # The fake owner's address is this process's, so only a record of another's is dated.
    assert kept.known_time is None
    life = Life(clock=setup.clock)
    recorded(life.store, HOST)
    life.source = source
    life.look()
    dated = life.store.get("op")
    assert dated is not None
    assert before - timedelta(seconds=0.4) == dated.known_time


def test_progress_without_metrics_is_news(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    setup.remote(source)
    setup.service.get_operation("op")
    setup.clock.advance(NEWS)
    source.progress = Progress(10.0, update_time=DAY)
    setup.service.get_operation("op")

    kept = setup.store.get("op")
    assert kept is not None
    assert Progress(10.0, update_time=DAY) == kept.operation.progress


@pytest.mark.parametrize("ended", [False, True])
def test_a_store_that_lost_metrics_is_given_them_again(setup: Setup, ended: bool) -> None:
    """As after a restore from a copy while the operation ran."""
    worker = setup.running()
    worker.measure(1, 2, 3)
    setup.service.get_operation("op")
    del setup.store._metrics["op"][1:]
    worker.measure(4)
    if ended:
        setup.service.complete_operation("op", RESULT)
    setup.clock.advance(NEWS)
    for _ in range(2):
        setup.service.get_operation("op")
        setup.clock.advance(NEWS)

    assert [1, 2, 3, 4] == kept_steps(setup)
    assert (S.COMPLETED if ended else S.RUNNING) is setup.status()
    assert setup.service.get_operation("op").freshness.refresh_error is None


def test_a_log_is_stored_in_order_whoever_reads(setup: Setup) -> None:
    worker = setup.running()
    for step in range(1, 31):
        worker.measure(step)
        setup.clock.advance(NEWS)
        setup.service.get_operation("op")
    setup.service.complete_operation("op", RESULT)

    assert list(range(1, 31)) == kept_steps(setup)
    assert metric(30) == setup.store.metrics("op", 29, 1)[0]
