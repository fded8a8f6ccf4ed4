from __future__ import annotations

import pytest

from shared.operations.live import LiveOperation
from shared.operations.model import OperationStatus, OperationType
from shared.operations.reader import OperationsPage
from shared.operations.source import OperationSource
from shared.operations.store import ACTIVE, OperationFilter, SortKey
from shared.rpc.errors import HostUnreachableError
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource, timed_out
from tests.unit.operations.fakes import RESULT, Background, Setup, metric, operation, record

S = OperationStatus
ANY = OperationFilter()


@pytest.fixture
def setup() -> Setup:
    return Setup()


def page_of(
    setup: Setup, wanted: OperationFilter = ANY, after: SortKey | None = None, limit: int = 10
) -> OperationsPage:
    return setup.service.list_operations(wanted, after, limit)


def ids(page: OperationsPage) -> list[str]:
    return [view.operation.operation_id for view in page.views]


def test_nothing_is_an_empty_page(setup: Setup) -> None:
    assert OperationsPage((), None, 0, 0, ()) == page_of(setup)


def test_operations_come_newest_first_in_pages(setup: Setup) -> None:
    for name in "abcde":
        setup.running(name)

    pages, after = [], None
    while True:
        page = page_of(setup, after=after, limit=2)
        pages.append(ids(page))
        after = page.next_after
        if after is None:
            break

    assert [["e", "d"], ["c", "b"], ["a"]] == pages


def test_a_full_last_page_has_no_next(setup: Setup) -> None:
    setup.running("a")
    setup.running("b")

    assert page_of(setup, limit=2).next_after is None


def test_counts_are_of_what_matches_and_of_what_is_active(setup: Setup) -> None:
    for name in "abc":
        setup.running(name)
    setup.service.complete_operation("a", RESULT)

    page = page_of(setup, OperationFilter(frozenset({S.COMPLETED})))

    assert (["a"], 1, 2) == (ids(page), page.total_count, page.active_count)
    assert ["c", "b"] == ids(page_of(setup, ACTIVE))
    loading = OperationFilter(types=frozenset({OperationType.DATA_LOADING}))
    assert 0 == page_of(setup, loading).total_count


def test_rows_are_refreshed(setup: Setup) -> None:
    worker = setup.running()
    worker.report(42, "")

    view = page_of(setup).views[0]

    assert view.operation.progress is not None
    assert 42 == view.operation.progress.percentage
    assert () == view.metrics


def test_only_the_page_is_refreshed(setup: Setup) -> None:
    old, new = FakeRemoteSource(), FakeRemoteSource()
    setup.remote(old, "old")
    setup.remote(new, "new")

    assert ["new"] == ids(page_of(setup, limit=1))
    assert (0, 1) == (len(old.begun), len(new.begun))


def test_a_row_that_no_longer_matches_is_left_out(setup: Setup) -> None:
    setup.remote(FakeRemoteSource(operation=operation(status=S.COMPLETED, result=RESULT)), "done")
    setup.remote(FakeRemoteSource(operation=operation(status=S.PENDING)), "open")

    page = page_of(setup, ACTIVE)

    assert (["open"], None) == (ids(page), page.next_after)


def test_a_host_that_is_down_is_named_once_and_its_operations_come_as_known(setup: Setup) -> None:
    down = HostUnreachableError("down")
    for name in "ab":
        setup.remote(FakeRemoteSource(error=down), name)
    setup.running("local")

    page = page_of(setup)

    assert (["local", "b", "a"], ("host:50052",)) == (ids(page), page.unreachable)
    assert [False, True, True] == [view.freshness.refresh_error is not None for view in page.views]


def test_owners_are_asked_at_the_same_time_and_for_a_second_at_most(setup: Setup) -> None:
    sources = [FakeRemoteSource(target=f"host-{index}:1") for index in range(3)]
    for index, source in enumerate(sources):
        source.gate.clear()
        setup.remote(source, f"op-{index}")
    listing = Background(lambda: page_of(setup))
    for source in sources:
        assert source.arrived.acquire(timeout=5)
    for source in sources:
        source.gate.set()

    assert 3 == len(listing.result().views)  # type: ignore[attr-defined]  # a page
    assert [[pytest.approx(0.9)]] * 3 == [[read.timeout for read in s.begun] for s in sources]


def test_so_many_reads_of_one_owner_are_on_their_way_as_callers_may_wait() -> None:
    setup = Setup(refresh_waiters=2)
    source = FakeRemoteSource()
    source.gate.clear()
    for index in range(5):
        setup.remote(source, f"op-{index}")
    listing = Background(lambda: page_of(setup))
    for _ in range(2):
        assert source.arrived.acquire(timeout=5)
    assert 2 == len(source.begun)
    source.gate.set()

    assert 5 == len(listing.result().views)  # type: ignore[attr-defined]  # a page
    assert 5 == len(source.begun)


def test_an_owner_that_is_frozen_delays_no_other_owners_rows(setup: Setup) -> None:
    frozen = FakeRemoteSource(target="frozen:1", error=timed_out())
    healthy = FakeRemoteSource(target="healthy:1")
    frozen.gate.clear()
    for index in range(20):
        setup.remote(frozen if index % 2 else healthy, f"op-{index:02}")
    listing = Background(lambda: page_of(setup, limit=20))
    eventually(lambda: len(healthy.begun) == 10)
    frozen.gate.set()

    page = listing.result()
    assert isinstance(page, OperationsPage)
    stale = [view.freshness.refresh_error is not None for view in page.views]
    assert [index % 2 == 1 for index in reversed(range(20))] == stale
    assert ("frozen:1",) == page.unreachable


def test_a_listing_shares_a_read_that_is_on_its_way(setup: Setup) -> None:
    source = FakeRemoteSource()
    live = setup.remote(source)
    source.gate.clear()
    reader = Background(lambda: setup.service.get_operation("op"))
    assert source.arrived.acquire(timeout=5)
    listing = Background(lambda: page_of(setup))
    eventually(lambda: live.flight is not None and live.flight.done.waiting == 1)
    source.gate.set()

    reader.result()
    assert [False] == [v.freshness.cached for v in listing.result().views]  # type: ignore[attr-defined]  # a page
    assert (1, 0) == (len(source.calls), len(source.begun))


def test_no_flight_is_left_when_a_listing_is_over(setup: Setup) -> None:
    lives = [setup.remote(FakeRemoteSource(error=timed_out()), name) for name in "abc"]
    page_of(setup)

    assert [None, None, None] == [live.flight for live in lives]
    assert not setup.service._refresher.outages._waiting


def test_a_log_longer_than_a_page_is_read_on(setup: Setup) -> None:
    source = FakeRemoteSource(log=[metric(step) for step in range(1, 8)], page=3)
    setup.remote(source)

    assert [7] == [view.operation.metrics_count for view in page_of(setup).views]
    assert ([0], [3, 6]) == ([c.cursor for c in source.begun], [c.cursor for c in source.calls])


def test_a_callers_own_deadline_counts(setup: Setup) -> None:
    source = FakeRemoteSource()
    setup.remote(source)
    setup.service.list_operations(ANY, None, 10, deadline=setup.clock.monotonic() + 0.5)

    assert pytest.approx(0.45) == source.begun[0].timeout


def test_an_open_record_that_nobody_here_runs_is_left_out(setup: Setup) -> None:
    setup.store.create(record("foreign", status=S.RUNNING))

    assert [] == ids(page_of(setup))


def test_what_ends_while_it_is_listed_is_listed_as_ended(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.running()
    page = setup.store.page

    def and_end(wanted: OperationFilter, after: SortKey | None, limit: int) -> object:
        records = page(wanted, after, limit)
        setup.service.complete_operation("op", RESULT)
        return records

    monkeypatch.setattr(setup.store, "page", and_end)

    assert [S.COMPLETED] == [view.operation.status for view in page_of(setup).views]
    assert [] == ids(page_of(setup, ACTIVE))


class Ending(LiveOperation):
    """An operation that ends, on another thread, the moment after its source was looked at."""

    source: OperationSource | None

    def __getattribute__(self, name: str) -> object:
        value = super().__getattribute__(name)
        if name == "source":
            self.source = None
        return value


def test_a_source_that_goes_while_it_is_looked_at_fails_no_listing(setup: Setup) -> None:
    setup.remote(FakeRemoteSource(operation=operation(status=S.RUNNING))).__class__ = Ending

    assert ["op"] == ids(page_of(setup))
