from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.operations.bridge import ProgressBridge
from shared.operations.cancellation import CancelSignal
from shared.rpc.errors import OperationCancelledError
from tests.unit.operations.fakes import Worker, in_threads, metric, steps


def test_get_status_returns_snapshot() -> None:
    worker = Worker()
    worker.report(12.5, "reading", phase="loading", items_processed=3, symbol="IBM")

    status = worker.bridge.get_status()

    assert status is not None
    assert (12.5, "reading", "loading", 3) == (
        status.percentage,
        status.message,
        status.phase,
        status.items_processed,
    )
    assert {"symbol": "IBM"} == status.context
    with pytest.raises(AttributeError):
        status.message = "changed"  # type: ignore[misc]  # that is what must not work


def test_a_snapshot_does_not_change_with_later_reports() -> None:
    worker = Worker()
    worker.report(10, "first", symbol="IBM")
    status = worker.bridge.get_status()
    worker.report(20, "second", symbol="GOOG")

    assert status is not None
    assert ("first", {"symbol": "IBM"}) == (status.message, status.context)


def test_a_bridge_without_a_report_has_no_status() -> None:
    snapshot = ProgressBridge().snapshot()

    assert ProgressBridge().get_status() is None
    assert (None, (), 0, None) == (
        snapshot.progress,
        snapshot.metrics,
        snapshot.metrics_count,
        snapshot.last_report_age,
    )


def test_get_metrics_incremental_cursor_based() -> None:
    worker = Worker()
    worker.measure(1, 2, 3)

    first, cursor = worker.bridge.get_metrics()
    worker.measure(4)
    second, cursor_after = worker.bridge.get_metrics(cursor)
    third, cursor_at_end = worker.bridge.get_metrics(cursor_after)

    assert ([1, 2, 3], [4], []) == (steps(first), steps(second), steps(third))
    assert (3, 4, 4) == (cursor, cursor_after, cursor_at_end)


def test_a_cursor_past_the_end_brings_nothing_and_stays() -> None:
    worker = Worker()
    worker.measure(1)

    assert ([], 7) == worker.bridge.get_metrics(7)


def test_a_negative_cursor_is_refused() -> None:
    with pytest.raises(ValueError, match="cursor must not be negative, got -1"):
        ProgressBridge().get_metrics(-1)


@given(
    count=st.integers(0, 40),
    cursor=st.integers(0, 50),
    limit=st.none() | st.integers(0, 50),
)
def test_a_snapshot_is_a_slice_of_the_log(count: int, cursor: int, limit: int | None) -> None:
    worker = Worker()
    worker.measure(*range(1, count + 1))

    snapshot = worker.bridge.snapshot(cursor, limit)

    end = None if limit is None else cursor + limit
    assert list(range(1, count + 1))[cursor:end] == steps(snapshot.metrics)
    assert count == snapshot.metrics_count


def test_thread_safety_concurrent_access() -> None:
    worker = Worker()
    total, readers = 2000, 4
    seen: list[list[int]] = [[] for _ in range(readers)]
    percentages: list[list[float]] = [[] for _ in range(readers)]

    def write() -> None:
        for step in range(1, total + 1):
            worker.measure(step)
            worker.report(100 * step / total, f"step {step}", current_step=step)

    def read(index: int) -> None:
        cursor = 0
        while cursor < total:
            status = worker.bridge.get_status()
            if status is not None:
                percentages[index].append(status.percentage or 0.0)
            metrics, cursor = worker.bridge.get_metrics(cursor)
            seen[index].extend(steps(metrics))

    raised = in_threads(readers + 1, lambda index: read(index) if index < readers else write())

    assert [] == raised
    assert [list(range(1, total + 1))] * readers == seen
    assert all(sorted(each) == each for each in percentages)


@given(st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=20))
def test_the_percentage_never_falls_and_stays_in_range(reported: list[float | None]) -> None:
    worker = Worker()
    seen: list[float] = []
    for percentage in reported:
        worker.report(percentage, "")
        status = worker.bridge.get_status()
        assert status is not None
        assert (status.percentage is None) == (not seen and percentage is None)
        if status.percentage is not None:
            seen.append(status.percentage)

    assert sorted(seen) == seen
    assert all(0 <= each <= 100 for each in seen)


def test_without_a_percentage_the_last_one_is_kept() -> None:
    worker = Worker()
    worker.report(40, "first")
    worker.report(None, "second")

    status = worker.bridge.get_status()

    assert status is not None
    assert (40, "second") == (status.percentage, status.message)


def test_the_update_time_is_the_wall_time_of_the_report() -> None:
    worker = Worker()
    before = datetime.now(UTC)
    worker.report(1, "")
    status = worker.bridge.get_status()

    assert status is not None
    assert status.update_time is not None
    assert abs(status.update_time - before) < timedelta(seconds=5)


def test_the_age_of_the_last_report_counts_from_the_report() -> None:
    worker = Worker()
    before = monotonic()
    worker.report(1, "")
    age = worker.bridge.snapshot().last_report_age

    assert age is not None
    assert 0 <= age <= monotonic() - before


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(2), [1], {"a": 1}])
def test_a_report_refuses_what_could_change_later(value: object) -> None:
    worker = Worker()
    with pytest.raises(TypeError, match=r"loss is a .*: report plain numbers"):
        worker.report(1, "", loss=value)
    assert worker.bridge.get_status() is None


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(2)])
def test_a_state_refuses_a_percentage_and_a_message_that_could_change_later(value: float) -> None:
    worker = Worker()
    with pytest.raises(TypeError, match=r"percentage is a .*: report plain numbers"):
        worker.report(value, "")
    with pytest.raises(TypeError, match=r"message is a .*: report plain numbers"):
        worker.report(1, value)  # type: ignore[arg-type]  # that is what must not work
    assert worker.bridge.get_status() is None


def test_a_percentage_that_is_no_number_is_refused_and_changes_nothing() -> None:
    worker = Worker()
    worker.report(40, "before")
    with pytest.raises(ValueError, match="percentage must be a number, got nan"):
        worker.report(float("nan"), "after")

    status = worker.bridge.get_status()
    assert status is not None
    assert (40, "before") == (status.percentage, status.message)


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(2)])
def test_a_metric_refuses_what_could_change_later(value: float) -> None:
    worker = Worker()
    with pytest.raises(TypeError, match=r"loss is a .*: report plain numbers"):
        worker.bridge._append_metric(metric(1)._replace(values={"loss": value}))
    assert worker.bridge.get_metrics() == ([], 0)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"current_step": 2.0}, "current_step is a float: report a whole number"),
        ({"current_step": True}, "current_step is a bool: report a whole number"),
        ({"items_processed": None}, "items_processed is a NoneType: report a whole number"),
        ({"total_steps": "3"}, "total_steps is a str: report a whole number"),
        ({"items_total": 2**63}, "items_total is beyond 64 bits: 9223372036854775808"),
        ({"phase": 3}, "phase is a int: report text"),
    ],
)
def test_a_state_refuses_what_no_answer_could_hold(fields: dict[str, object], told: str) -> None:
    """It would fail every listing that its operation is in."""
    worker = Worker()
    with pytest.raises((TypeError, ValueError), match=f"^{told}$"):
        worker.report(1, "", **fields)
    assert worker.bridge.get_status() is None


def test_counts_that_may_be_unknown_are_taken_so() -> None:
    worker = Worker()
    worker.report(1, "", total_steps=None, items_total=None, current_step=2**63 - 1)

    status = worker.bridge.get_status()
    assert status is not None
    assert (2**63 - 1, None) == (status.current_step, status.total_steps)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"step": 1.0}, "step is a float: report a whole number"),
        ({"step": 2**63}, "step is beyond 64 bits: 9223372036854775808"),
        ({"kind": None}, "kind is a NoneType: report text"),
        ({"time": datetime(2026, 1, 1)}, r"time has no time zone: take datetime.now\(UTC\)"),  # noqa: DTZ001  # as said
        ({"values": {"loss": None}}, "loss is a NoneType: report a number"),
        ({"values": {"loss": "0.5"}}, "loss is a str: report a number"),
        (
            {"values": {"loss": 10**400}},
            "loss is beyond what a float holds: report a smaller number",
        ),
        ({"values": {1: 1.0}}, "the name of a value is a int: report text"),
        ({"labels": {"fold": 1}}, "fold is a int: report text"),
        ({"labels": {1: "fold"}}, "the name of a label is a int: report text"),
    ],
)
def test_a_metric_refuses_what_no_answer_and_no_store_could_hold(
    fields: dict[str, object], told: str
) -> None:
    """Its operation could not be stored, so it would never end."""
    worker = Worker()
    with pytest.raises((TypeError, ValueError, OverflowError), match=f"^{told}$"):
        worker.bridge._append_metric(metric(1)._replace(**fields))  # type: ignore[arg-type]  # that is what must not work
    assert worker.bridge.get_metrics() == ([], 0)


def test_a_metric_keeps_its_values_when_the_worker_changes_its_own() -> None:
    worker = Worker()
    values = {"loss": 1.0}
    worker.bridge._append_metric(metric(1)._replace(values=values))
    values["loss"] = 2.0

    assert {"loss": 1.0} == worker.bridge.get_metrics()[0][0].values


def test_a_cancelled_report_is_recorded_and_then_raises() -> None:
    worker = Worker()
    worker.bridge.cancel.request("enough")

    with pytest.raises(OperationCancelledError, match="enough"):
        worker.report(50, "late")

    status = worker.bridge.get_status()
    assert status is not None
    assert "late" == status.message


def test_a_bridge_can_be_given_its_signal() -> None:
    signal = CancelSignal()

    assert ProgressBridge(cancel=signal).cancel is signal


def test_a_percentage_is_unset_while_it_is_unknown() -> None:
    bridge = ProgressBridge()
    bridge._update_state(None, "working")
    before = bridge.get_status()
    bridge._update_state(10, "a tenth")
    bridge._update_state(None, "going on")
    after = bridge.get_status()

    assert before is not None
    assert after is not None
    assert (None, 10) == (before.percentage, after.percentage)
