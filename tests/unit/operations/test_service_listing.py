from __future__ import annotations

import pytest

from shared.operations.model import OperationStatus, OperationType
from shared.operations.service import OperationsPage
from shared.operations.store import ACTIVE, OperationFilter, SortKey
from shared.rpc.errors import HostUnreachableError
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import RESULT, Setup, operation, record

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
    assert (0, 1) == (len(old.calls), len(new.calls))


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


def test_a_listing_takes_a_second_at_most(setup: Setup) -> None:
    sources = [FakeRemoteSource(target=f"host-{index}:1") for index in range(3)]
    for index, source in enumerate(sources):
        source.after_read = lambda: setup.clock.advance(0.6)
        setup.remote(source, f"op-{index}")

    page = page_of(setup)

    assert 3 == len(page.views)
    assert [0, 1, 1] == [len(source.calls) for source in sources]
    assert ("host-0:1",) == page.unreachable


def test_a_callers_own_deadline_counts(setup: Setup) -> None:
    source = FakeRemoteSource()
    setup.remote(source)
    setup.service.list_operations(ANY, None, 10, deadline=setup.clock.monotonic() + 0.5)

    assert pytest.approx(0.45) == source.calls[0].timeout


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
