from __future__ import annotations

import inspect
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.marketdata.bridge import DataLoadingProgressBridge
from shared.operations.model import Progress
from shared.rpc.errors import OperationCancelledError


@pytest.fixture
def bridge() -> DataLoadingProgressBridge:
    return DataLoadingProgressBridge()


def status_of(bridge: DataLoadingProgressBridge) -> Progress:
    status = bridge.get_status()
    assert status is not None
    return status


def percentage_of(bridge: DataLoadingProgressBridge) -> float:
    percentage = status_of(bridge).percentage
    assert percentage is not None
    return percentage


def test_before_the_first_report_there_is_no_state(bridge: DataLoadingProgressBridge) -> None:
    assert bridge.get_status() is None


def test_a_symbol_is_named_with_its_place(bridge: DataLoadingProgressBridge) -> None:
    bridge.on_symbol_started("AAPL", 2, 5)

    status = status_of(bridge)

    assert ("Loading AAPL (2/5)", "loading", 2, 5, 20.0) == (
        status.message,
        status.phase,
        status.current_step,
        status.total_steps,
        status.percentage,
    )
    assert {"current_symbol": "AAPL", "rows_loaded": "0"} == status.context


def test_rows_are_counted_over_all_symbols(bridge: DataLoadingProgressBridge) -> None:
    bridge.on_symbol_started("IBM", 1, 2)
    bridge.on_symbol_progress("IBM", 100, 200)
    assert (25.0, 100) == (percentage_of(bridge), status_of(bridge).items_processed)
    bridge.on_symbol_completed("IBM", 200, 1.5)
    bridge.on_symbol_started("GOOG", 2, 2)
    bridge.on_symbol_progress("GOOG", 30, 40)

    status = status_of(bridge)

    assert (87.5, 230, "230", "GOOG") == (
        status.percentage,
        status.items_processed,
        status.context["rows_loaded"],
        status.context["current_symbol"],
    )
    assert status.estimated_remaining is not None
    assert status.estimated_remaining >= 0


def test_more_rows_than_estimated_are_no_more_than_the_symbol(
    bridge: DataLoadingProgressBridge,
) -> None:
    bridge.on_symbol_started("IBM", 1, 2)
    bridge.on_symbol_progress("IBM", 500, 200)

    assert (50.0, 500) == (percentage_of(bridge), status_of(bridge).items_processed)


@pytest.mark.parametrize("estimate", [None, 0])
def test_without_an_estimate_only_symbols_count(
    bridge: DataLoadingProgressBridge, estimate: int | None
) -> None:
    bridge.on_symbol_started("IBM", 1, 2)
    bridge.on_symbol_progress("IBM", 500, estimate)

    assert (0.0, None) == (percentage_of(bridge), status_of(bridge).estimated_remaining)


def test_each_symbol_is_one_metric(bridge: DataLoadingProgressBridge) -> None:
    bridge.on_symbol_started("IBM", 1, 2)
    bridge.on_symbol_completed("IBM", 200, 1.5, validation_time=0.25, gaps=3, rejected=4)
    bridge.on_symbol_started("XYZ", 2, 2)
    bridge.on_symbol_completed("XYZ", 10, 0.5, failure="NO_SUCH_SERIES")

    (first, second), cursor = bridge.get_metrics()

    assert (2, "symbol", 1, {"symbol": "IBM"}) == (cursor, first.kind, first.step, first.labels)
    assert {
        "rows_loaded": 200.0,
        "duration": 1.5,
        "validation_time": 0.25,
        "gaps": 3.0,
        "rejected": 4.0,
        "total_rows_loaded": 200.0,
        "symbols_completed": 1.0,
    } == first.values
    assert (2, {"symbol": "XYZ", "reason": "NO_SUCH_SERIES"}) == (second.step, second.labels)
    assert (210.0, 1.0) == (
        second.values["total_rows_loaded"],
        second.values["symbols_completed"],
    )


def test_a_metric_and_its_state_are_of_one_instant(bridge: DataLoadingProgressBridge) -> None:
    bridge.on_symbol_started("IBM", 1, 2)
    bridge.on_symbol_completed("IBM", 200, 1.5)

    snapshot = bridge.snapshot()

    assert snapshot.progress is not None
    assert (1, "Loaded IBM (1/2)", 50.0, 200) == (
        snapshot.metrics_count,
        snapshot.progress.message,
        snapshot.progress.percentage,
        snapshot.progress.items_processed,
    )


def test_a_symbol_that_failed_says_why(bridge: DataLoadingProgressBridge) -> None:
    bridge.on_symbol_started("XYZ", 1, 2)
    bridge.on_symbol_completed("XYZ", 0, 0.1, failure="NO_PERMISSION")

    assert ("XYZ (1/2): NO_PERMISSION", 50.0) == (
        status_of(bridge).message,
        percentage_of(bridge),
    )


def test_a_note_keeps_the_place_and_the_rows(bridge: DataLoadingProgressBridge) -> None:
    bridge.on_symbol_started("IBM", 1, 2)
    bridge.on_symbol_progress("IBM", 100, 200)
    bridge.on_note("waiting 12 s for IB pacing")
    bridge.on_note("waiting 11 s for IB pacing")

    status = status_of(bridge)

    assert ("Loading IBM (1/2): waiting 11 s for IB pacing", 25.0, 100) == (
        status.message,
        status.percentage,
        status.items_processed,
    )


def test_validation_says_what_it_does(bridge: DataLoadingProgressBridge) -> None:
    bridge.on_validation("request", "Checking symbols")
    assert ("Checking symbols", "validation", 0, None) == (
        status_of(bridge).message,
        status_of(bridge).phase,
        status_of(bridge).current_step,
        status_of(bridge).total_steps,
    )
    bridge.on_symbol_started("IBM", 1, 1)
    bridge.on_validation("ohlc", "IBM: 1 row left out")

    assert ("IBM: 1 row left out", "ohlc", 1) == (
        status_of(bridge).message,
        status_of(bridge).context["step"],
        status_of(bridge).current_step,
    )


def test_completion_is_a_hundred_and_keeps_the_counts(bridge: DataLoadingProgressBridge) -> None:
    bridge.on_symbol_started("IBM", 1, 2)
    bridge.on_symbol_completed("IBM", 200, 1.5)
    bridge.on_complete("Loaded 200 bars")

    status = status_of(bridge)

    assert ("completed", 100.0, "Loaded 200 bars", 1, 2, 200, "200") == (
        status.phase,
        status.percentage,
        status.message,
        status.current_step,
        status.total_steps,
        status.items_processed,
        status.context["rows_loaded"],
    )


def test_a_cancellation_keeps_how_far_it_came(bridge: DataLoadingProgressBridge) -> None:
    bridge.on_symbol_started("IBM", 1, 4)
    bridge.on_symbol_progress("IBM", 100, 200)
    bridge.cancel.request()
    bridge.on_cancellation()

    assert ("cancelled", 12.5, 100) == (
        status_of(bridge).phase,
        percentage_of(bridge),
        status_of(bridge).items_processed,
    )


def test_finished_work_stays_finished_after_a_late_cancellation(
    bridge: DataLoadingProgressBridge,
) -> None:
    bridge.cancel.request()
    bridge.on_complete()

    assert 100.0 == percentage_of(bridge)


REPORTS: dict[str, Callable[[DataLoadingProgressBridge], None]] = {
    "on_symbol_started": lambda bridge: bridge.on_symbol_started("IBM", 1, 1),
    "on_symbol_progress": lambda bridge: bridge.on_symbol_progress("IBM", 1, 2),
    "on_symbol_completed": lambda bridge: bridge.on_symbol_completed("IBM", 1, 0.5),
    "on_validation": lambda bridge: bridge.on_validation("request", "Checking"),
    "on_note": lambda bridge: bridge.on_note("waiting"),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_report_after_a_cancellation_is_recorded_and_raises(
    bridge: DataLoadingProgressBridge, report: Callable[[DataLoadingProgressBridge], None]
) -> None:
    bridge.cancel.request("enough")

    with pytest.raises(OperationCancelledError, match="enough"):
        report(bridge)

    assert bridge.get_status() is not None


def test_every_report_is_synchronous() -> None:
    reports = [
        report
        for name, report in inspect.getmembers(DataLoadingProgressBridge, inspect.isfunction)
        if name.startswith("on_")
    ]

    assert 7 == len(reports)
    assert not any(inspect.iscoroutinefunction(report) for report in reports)


@pytest.mark.parametrize("rows", [np.int64(3), np.ones(1)])
def test_numbers_that_are_not_plain_are_refused(
    bridge: DataLoadingProgressBridge, rows: int
) -> None:
    with pytest.raises(TypeError, match=r"rows_loaded is a .*convert with"):
        bridge.on_symbol_progress("IBM", rows, 10)
    with pytest.raises(TypeError, match="total_rows_estimate is a "):
        bridge.on_symbol_progress("IBM", 10, rows)
    with pytest.raises(TypeError, match="gaps is a "):
        bridge.on_symbol_completed("IBM", 10, 0.5, gaps=rows)

    assert bridge.get_status() is None
    assert 0 == bridge.snapshot().metrics_count


def test_progress_takes_no_lock(bridge: DataLoadingProgressBridge) -> None:
    reported = threading.Event()

    def report() -> None:
        bridge.on_symbol_progress("IBM", 1, 2)
        reported.set()

    thread = threading.Thread(target=report)
    with bridge._lock:
        thread.start()
        assert reported.wait(5)
    thread.join(5)
    assert not thread.is_alive()


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.one_of(st.none(), st.integers(0, 60)), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_percentages_never_fall_and_rows_never_get_fewer(
    symbols: list[tuple[int, int | None, bool]],
) -> None:
    bridge = DataLoadingProgressBridge()
    seen, rows = [], []

    def look() -> None:
        seen.append(percentage_of(bridge))
        rows.append(status_of(bridge).items_processed)

    for number, (count, estimate, noted) in enumerate(symbols, start=1):
        bridge.on_symbol_started("S", number, len(symbols))
        look()
        for loaded in range(0, count + 1, 10):
            bridge.on_symbol_progress("S", loaded, estimate)
            look()
            if noted:
                bridge.on_note("waiting")
                look()
        bridge.on_symbol_completed("S", count, 0.1)
        look()
    bridge.on_complete()
    look()

    assert sorted(seen) == seen
    assert sorted(rows) == rows
    assert (100.0, sum(count for count, _, _ in symbols)) == (seen[-1], rows[-1])
