"""What every store of operations does alike, in memory and in databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.operations import memory_store, sql_forgotten
from shared.operations.model import OperationRecord, OperationStatus, OperationType, Owner
from shared.operations.store import (
    ACTIVE,
    MetricsMissingError,
    OperationFilter,
    OperationStore,
    SortKey,
)
from tests.unit.operations.fakes import DAY, in_threads, metric, record, steps

S = OperationStatus
ANY = OperationFilter()
LATER = DAY + timedelta(days=1)


def made(minute: int, status: OperationStatus = S.PENDING, **fields: object) -> OperationRecord:
    return record(
        f"op-{minute}", status=status, create_time=DAY + timedelta(minutes=minute), **fields
    )


def key(kept: OperationRecord) -> SortKey:
    return kept.operation.create_time, kept.operation.operation_id


def test_a_created_record_is_found(store: OperationStore) -> None:
    assert made(1) == store.create(made(1))
    assert made(1) == store.get("op-1")
    assert store.get("op-2") is None


def test_a_taken_id_is_not_created_again(store: OperationStore) -> None:
    store.create(made(1))

    assert made(1) == store.create(made(1, S.RUNNING))
    assert 1 == store.count(ANY)


def test_a_save_replaces(store: OperationStore) -> None:
    store.create(made(1))
    store.save(made(1, S.RUNNING))

    assert made(1, S.RUNNING) == store.get("op-1")
    assert (0, 1) == (
        store.count(OperationFilter(frozenset({S.PENDING}))),
        store.count(OperationFilter(frozenset({S.RUNNING}))),
    )


def test_a_terminal_record_stays_as_it_is(store: OperationStore) -> None:
    store.create(made(1))
    store.finish(made(1, S.COMPLETED), [metric(1)])

    store.save(made(1, S.RUNNING))
    kept = store.finish(made(1, S.FAILED), [])

    assert made(1, S.COMPLETED) == kept == store.get("op-1")
    assert [1] == steps(store.metrics("op-1", 0, 10))


def test_a_discarded_record_is_gone(store: OperationStore) -> None:
    store.create(made(1))
    store.create(made(2))
    store.discard(made(1))
    store.discard(made(1))

    assert store.get("op-1") is None
    assert (1, [made(2)]) == (store.count(ANY), list(store.page(ANY, None, 10)))


def test_the_metrics_kept_are_a_copy(store: OperationStore) -> None:
    log = [metric(1)]
    store.create(made(1))
    store.finish(made(1, S.FAILED), log)
    log.append(metric(2))

    assert [1] == steps(store.metrics("op-1", 0, 10))


def test_metrics_come_in_slices(store: OperationStore) -> None:
    store.create(made(1))
    store.finish(made(1, S.FAILED), [metric(step) for step in range(1, 8)])

    assert [3, 4, 5] == steps(store.metrics("op-1", 2, 3))
    assert [] == steps(store.metrics("op-1", 7, 3))
    assert [] == steps(store.metrics("unknown", 0, 3))


def test_a_filter_wants_type_and_state() -> None:
    wanted = OperationFilter(frozenset({S.RUNNING}), frozenset({OperationType.TRAINING}))

    assert wanted.matches(OperationType.TRAINING, S.RUNNING)
    assert not wanted.matches(OperationType.DATA_LOADING, S.RUNNING)
    assert not wanted.matches(OperationType.TRAINING, S.FAILED)
    assert ANY.matches(OperationType.DATA_LOADING, S.FAILED)
    assert not ACTIVE.matches(OperationType.TRAINING, S.CANCELLED)


@settings(deadline=None)  # a database takes the time it takes
@given(
    minutes=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(S)), max_size=25),
    statuses=st.frozensets(st.sampled_from(S)),
    limit=st.integers(1, 5),
)
def test_pages_cover_what_matches_once_and_newest_first(
    new_store: Callable[[], OperationStore],
    minutes: list[tuple[int, OperationStatus]],
    statuses: frozenset[OperationStatus],
    limit: int,
) -> None:
    store = new_store()
    for index, (minute, status) in enumerate(minutes):
        store.create(
            record(f"op-{index}", status=status, create_time=DAY + timedelta(minutes=minute))
        )
    wanted = OperationFilter(statuses)

    found: list[OperationRecord] = []
    while page := store.page(wanted, key(found[-1]) if found else None, limit):
        found.extend(page)

    expected = [
        store.get(f"op-{index}")
        for index, (_, status) in enumerate(minutes)
        if not statuses or status in statuses
    ]
    assert sorted(map(key, filter(None, expected)), reverse=True) == [key(each) for each in found]
    assert len(expected) == store.count(wanted)


def test_a_record_created_meanwhile_does_not_move_the_next_page(
    store: OperationStore,
) -> None:
    for minute in (1, 2, 3):
        store.create(made(minute))
    first = store.page(ANY, None, 2)
    store.create(made(4))

    second = store.page(ANY, key(first[-1]), 2)

    assert [made(3), made(2), made(1)] == [*first, *second]


def test_a_page_says_nothing_of_the_records_it_skips(store: OperationStore) -> None:
    store.create(made(1, S.FAILED))
    store.create(made(2, S.PENDING))

    assert [made(1, S.FAILED)] == list(store.page(OperationFilter(frozenset({S.FAILED})), None, 1))
    assert replace(made(1), operation=made(1, S.FAILED).operation) == store.get("op-1")


# ------------------------------------------------------------------------- metrics


def test_a_save_keeps_metrics_as_they_come(store: OperationStore) -> None:
    store.create(made(1))
    store.save(made(1, S.RUNNING), [metric(1), metric(2)])
    store.save(made(1, S.RUNNING), [metric(3)], 2)
    store.finish(made(1, S.COMPLETED), [metric(4)], 3)

    assert [1, 2, 3, 4] == steps(store.metrics("op-1", 0, 10))


def test_metrics_that_are_kept_stay(store: OperationStore) -> None:
    store.save(made(1, S.RUNNING), [metric(1), metric(2), metric(3)])
    store.save(made(1, S.RUNNING), [metric(102), metric(103), metric(4)], 1)
    store.save(made(1, S.RUNNING), [metric(101)], 0)

    assert [1, 2, 3, 4] == steps(store.metrics("op-1", 0, 10))


def test_metrics_without_those_before_them_are_refused(store: OperationStore) -> None:
    store.save(made(1, S.RUNNING), [metric(1), metric(2)])

    with pytest.raises(MetricsMissingError) as missing:
        store.finish(made(1, S.COMPLETED), [metric(9)], 8)

    assert 2 == missing.value.kept
    assert made(1, S.RUNNING) == store.get("op-1")
    assert [1, 2] == steps(store.metrics("op-1", 0, 10))


def test_a_terminal_record_takes_no_more_metrics(store: OperationStore) -> None:
    store.finish(made(1, S.COMPLETED), [metric(1)])

    assert made(1, S.COMPLETED) == store.save(made(1, S.RUNNING), [metric(2)], 1)
    assert [1] == steps(store.metrics("op-1", 0, 10))


def test_an_ending_that_is_repeated_finds_itself(store: OperationStore) -> None:
    store.create(made(1))
    first = store.finish(made(1, S.COMPLETED), [metric(1)])

    assert first == store.finish(made(1, S.COMPLETED), [metric(1)])
    assert [1] == steps(store.metrics("op-1", 0, 10))


@pytest.mark.parametrize("status", [S.RUNNING, S.COMPLETED])
def test_what_the_store_does_not_know_is_kept_all_the_same(
    store: OperationStore, status: OperationStatus
) -> None:
    """It may have been restored from a copy, or be new."""
    write = store.finish if status.terminal else store.save

    assert made(1, status) == write(made(1, status), [metric(1)])
    assert made(1, status) == store.get("op-1")
    assert [1] == steps(store.metrics("op-1", 0, 10))


def test_a_log_of_many_pages_is_kept_whole(store: OperationStore) -> None:
    log = [metric(step) for step in range(1, 12_002)]
    store.finish(made(1, S.COMPLETED), log)

    assert log == list(store.metrics("op-1", 0, 20_000))
    assert log[11_995:] == list(store.metrics("op-1", 11_995, 10))


# --------------------------------------------------------------------- forgetting


def test_an_operation_that_has_ended_is_not_discarded(store: OperationStore) -> None:
    store.finish(made(1, S.FAILED), [metric(1)])
    store.discard(made(1))

    assert made(1, S.FAILED) == store.get("op-1")
    assert [1] == steps(store.metrics("op-1", 0, 10))


def test_what_another_has_created_under_the_id_is_not_discarded(store: OperationStore) -> None:
    others = made(1, S.RUNNING)
    store.save(others, [metric(1)])
    a_moment_before = others.operation.create_time - timedelta(microseconds=1)
    store.discard(record("op-1", create_time=a_moment_before))

    assert others == store.get("op-1")
    assert [1] == steps(store.metrics("op-1", 0, 10))


def test_a_record_is_discarded_whoever_it_was_assigned_to(store: OperationStore) -> None:
    store.create(made(1))
    store.save(replace(made(1), owner=Owner("host", "first", "host:50052")))
    store.discard(made(1))

    assert store.get("op-1") is None


@pytest.mark.parametrize("forget", ["discard", "delete", "prune"])
def test_nothing_of_a_forgotten_operation_comes_back_with_its_id(
    store: OperationStore, forget: str
) -> None:
    ended = forget != "discard"
    write = store.finish if ended else store.save
    write(made(1, S.FAILED if ended else S.RUNNING), [metric(1), metric(2)])
    if forget == "prune":
        store.prune(0, DAY, 10)
    elif ended:
        store.delete("op-1")
    else:
        store.discard(made(1))

    assert made(1) == store.create(made(1))
    assert [] == steps(store.metrics("op-1", 0, 10))


def forgotten(store: OperationStore, how: str) -> OperationRecord:
    """The record of an operation with two metrics, as it was before the store forgot it."""
    kept = made(1, S.RUNNING if how == "discard" else S.FAILED)
    write = store.save if how == "discard" else store.finish
    write(kept, [metric(1), metric(2)])
    match how:
        case "discard":
            store.discard(kept)
        case "delete":
            store.delete("op-1")
        case "prune":
            store.prune(0, DAY, 10)
    assert store.get("op-1") is None
    return made(1, S.RUNNING)


@pytest.mark.parametrize("status", [S.RUNNING, S.COMPLETED])
@pytest.mark.parametrize("how", ["discard", "delete", "prune"])
def test_what_was_forgotten_is_not_taken_back(
    store: OperationStore, how: str, status: OperationStatus
) -> None:
    """Another process may have it in memory and find out how it ended only now."""
    forgotten(store, how)
    write = store.finish if status.terminal else store.save

    for first in (0, 2):
        assert write(made(1, status), [metric(3)], first) is None
    assert (None, 0) == (store.get("op-1"), store.count(ANY))
    assert [] == steps(store.metrics("op-1", 0, 10))


@pytest.mark.parametrize("status", [S.PENDING, S.COMPLETED])
def test_who_has_a_forgotten_one_leaves_alone_what_its_id_is_used_for_now(
    store: OperationStore, status: OperationStatus
) -> None:
    old = forgotten(store, "delete")
    later = old.operation.create_time + timedelta(microseconds=1)
    anew = record("op-1", status=status, create_time=later)
    write = store.finish if status.terminal else store.save
    store.create(record("op-1", create_time=later))
    write(anew, [metric(7)])

    assert store.save(old, [metric(3)], 2) is None
    assert store.finish(made(1, S.FAILED), [metric(3)], 1) is None
    assert anew == store.get("op-1")
    assert [7] == steps(store.metrics("op-1", 0, 10))
    assert anew == write(anew, [metric(7)])


def test_what_is_created_anew_is_kept_though_its_clock_stood_still(store: OperationStore) -> None:
    forgotten(store, "delete")
    store.create(made(1))

    assert made(1, S.RUNNING) == store.save(made(1, S.RUNNING), [metric(1)])
    store.finish(made(1, S.COMPLETED))
    assert store.delete("op-1")
    assert store.save(made(1, S.RUNNING)) is None


def test_the_last_that_were_forgotten_are_remembered(
    store: OperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_store, "REMEMBERED", 2)
    monkeypatch.setattr(sql_forgotten, "REMEMBERED", 2)
    for minute in (1, 2, 3):
        store.finish(made(minute, S.COMPLETED))
        store.delete(f"op-{minute}")

    assert [made(1, S.RUNNING), None, None] == [
        store.save(made(minute, S.RUNNING)) for minute in (1, 2, 3)
    ]


def test_whoever_stores_what_is_just_being_deleted_does_not_bring_it_back(
    store: OperationStore,
) -> None:
    answers: list[OperationRecord | None] = []

    def work(index: int) -> None:
        if index == 0:
            deleted.append(store.delete("op-1"))
        else:
            write = store.save if index % 2 else store.finish
            answers.append(write(made(1, S.RUNNING if index % 2 else S.FAILED), [metric(2)], 1))

    for _ in range(20):
        deleted: list[bool] = []
        store.create(made(1))
        store.finish(made(1, S.COMPLETED), [metric(1)])

        assert [] == in_threads(4, work)
        assert ([True], None) == (deleted, store.get("op-1"))
        assert [] == steps(store.metrics("op-1", 0, 10))
    assert all(answer in (made(1, S.COMPLETED), None) for answer in answers)


def test_what_has_ended_is_deleted_once(store: OperationStore) -> None:
    store.finish(made(1, S.COMPLETED), [metric(1)])
    store.finish(made(2, S.COMPLETED), [metric(2)])

    assert (True, False) == (store.delete("op-1"), store.delete("op-1"))
    assert (None, 1) == (store.get("op-1"), store.count(ANY))
    assert [2] == steps(store.metrics("op-2", 0, 10))


@pytest.mark.parametrize("status", [S.PENDING, S.RUNNING, S.CANCELLING])
def test_what_is_open_is_not_deleted(store: OperationStore, status: OperationStatus) -> None:
    store.save(made(1, status))

    assert not store.delete("op-1")
    assert made(1, status) == store.get("op-1")


def test_only_of_what_has_ended_it_is_noted_that_it_was_read(store: OperationStore) -> None:
    store.save(made(1, S.RUNNING))
    store.finish(made(2, S.FAILED))
    for operation_id in ("op-1", "op-2", "op-2", "unknown"):
        store.mark_read(operation_id)

    assert made(1, S.RUNNING) == store.get("op-1")
    assert replace(made(2, S.FAILED), outcome_read=True) == store.get("op-2")


# ---------------------------------------------------------------------- retention


def ended(minute: int, *, starter: str = "", read: bool = False) -> OperationRecord:
    """Ended at that minute, and created in the order of its negative."""
    kept = made(-minute, S.COMPLETED, end_time=DAY + timedelta(minutes=minute))
    named = replace(kept, operation=replace(kept.operation, operation_id=f"op-{minute}"))
    return replace(named, starter=starter, outcome_read=read)


def ids(store: OperationStore) -> set[str]:
    return {each.operation.operation_id for each in store.page(ANY, None, 100)}


def test_nothing_is_pruned_within_the_retention(store: OperationStore) -> None:
    store.save(made(0, S.RUNNING))
    for minute in (1, 2, 3):
        store.finish(ended(minute))

    assert [] == list(store.prune(3, DAY + timedelta(minutes=1), 10))
    assert 4 == store.count(ANY)


def test_those_that_ended_first_are_pruned_first(store: OperationStore) -> None:
    for minute in (3, 1, 5, 2, 4):
        store.finish(ended(minute), [metric(minute)])

    assert ["op-1", "op-2"] == list(store.prune(1, DAY, 2))
    assert ["op-3", "op-4"] == list(store.prune(1, DAY, 10))
    assert {"op-5"} == ids(store)
    assert [5] == steps(store.metrics("op-5", 0, 10))


def test_what_is_too_old_is_pruned_however_few_there_are(store: OperationStore) -> None:
    for minute in (1, 2, 3):
        store.finish(ended(minute, starter="backend"))

    assert ["op-1", "op-2"] == list(store.prune(10, DAY + timedelta(minutes=3), 10))


def test_what_its_starter_has_not_read_is_pruned_by_age_alone(store: OperationStore) -> None:
    store.finish(ended(1, starter="backend"))
    store.finish(ended(2, starter="backend", read=True))
    store.finish(ended(3, starter="backend"))
    store.finish(ended(4))
    store.finish(ended(5))

    assert ["op-2", "op-4"] == list(store.prune(1, DAY, 10))
    store.mark_read("op-1")
    assert ["op-1"] == list(store.prune(1, DAY, 10))
    assert ["op-3"] == list(store.prune(1, DAY + timedelta(minutes=4), 10))


def test_what_is_open_is_never_pruned(store: OperationStore) -> None:
    for minute, status in enumerate((S.PENDING, S.RUNNING, S.CANCELLING)):
        store.save(made(minute, status))

    assert [] == list(store.prune(0, LATER, 10))
    assert 3 == store.count(ACTIVE)


def test_without_an_end_time_the_last_change_counts(store: OperationStore) -> None:
    store.finish(made(1, S.FAILED, update_time=DAY + timedelta(minutes=9)))

    assert [] == list(store.prune(1, DAY + timedelta(minutes=9), 10))
    assert ["op-1"] == list(store.prune(1, DAY + timedelta(minutes=10), 10))
