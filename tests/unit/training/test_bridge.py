from __future__ import annotations

import inspect
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.operations.model import Progress
from shared.rpc.errors import OperationCancelledError
from shared.training.bridge import SYMBOL_STEPS, TrainingProgressBridge

EPOCHS, BATCHES = 4, 10
FIGURES = {"train_loss": 0.5, "val_loss": 0.6}


@pytest.fixture
def bridge() -> TrainingProgressBridge:
    return TrainingProgressBridge(EPOCHS)


def status_of(bridge: TrainingProgressBridge) -> Progress:
    status = bridge.get_status()
    assert status is not None
    return status


def percentage_of(bridge: TrainingProgressBridge) -> float:
    percentage = status_of(bridge).percentage
    assert percentage is not None
    return percentage


def test_on_epoch_updates_state(bridge: TrainingProgressBridge) -> None:
    bridge.on_phase("training", "Training", total_batches=BATCHES)
    bridge.on_epoch(1, EPOCHS, FIGURES)

    status = status_of(bridge)

    assert ("training", 2, EPOCHS, 20, 40, "Epoch 2/4") == (
        status.phase,
        status.current_step,
        status.total_steps,
        status.items_processed,
        status.items_total,
        status.message,
    )
    assert pytest.approx(50.0) == status.percentage


def test_on_epoch_appends_metric(bridge: TrainingProgressBridge) -> None:
    bridge.on_epoch(0, EPOCHS, FIGURES)
    bridge.on_epoch(1, EPOCHS, {"train_loss": 0.4})

    assert 2 == bridge.snapshot().metrics_count
    assert [1, 2] == [metric.step for metric in bridge.get_metrics()[0]]


def test_get_status_returns_current_progress(bridge: TrainingProgressBridge) -> None:
    bridge.on_phase("training", total_batches=BATCHES)
    bridge.on_batch(2, 4, BATCHES)

    status = status_of(bridge)

    assert ("Epoch 3/4, batch 5/10", 3, 25, 40) == (
        status.message,
        status.current_step,
        status.items_processed,
        status.items_total,
    )
    assert pytest.approx(5 + 90 * 25 / 40) == status.percentage
    assert status.estimated_remaining is not None
    assert status.estimated_remaining >= 0


def test_get_metrics_returns_epoch_metrics(bridge: TrainingProgressBridge) -> None:
    bridge.on_epoch(0, EPOCHS, FIGURES)
    bridge.on_epoch(1, EPOCHS, {"train_loss": float("nan"), "steps": 7, "best": "yes"})  # type: ignore[dict-item]  # labels may come along

    (first, second), cursor = bridge.get_metrics()

    assert (("epoch", 1, FIGURES), 2) == ((first.kind, first.step, first.values), cursor)
    assert {"train_loss", "steps"} == set(second.values)
    assert 7.0 == second.values["steps"]
    assert {"best": "yes"} == second.labels
    assert first.time <= second.time


def test_on_epoch_is_synchronous(bridge: TrainingProgressBridge) -> None:
    threads = threading.active_count()

    assert bridge.on_epoch(0, EPOCHS, FIGURES) is None  # type: ignore[func-returns-value]  # and nothing to await
    assert not inspect.iscoroutinefunction(bridge.on_epoch)
    assert 1 == len(bridge.get_metrics()[0])
    assert threads == threading.active_count()


def test_every_report_is_synchronous() -> None:
    reports = [
        report
        for name, report in inspect.getmembers(TrainingProgressBridge, inspect.isfunction)
        if name.startswith("on_")
    ]

    assert 9 == len(reports)
    assert not any(inspect.iscoroutinefunction(report) for report in reports)


def test_figures_changed_afterwards_do_not_change_the_log(bridge: TrainingProgressBridge) -> None:
    figures = dict(FIGURES)
    bridge.on_epoch(0, EPOCHS, figures)
    figures["train_loss"] = 99.0

    assert FIGURES == bridge.get_metrics()[0][0].values


@pytest.mark.parametrize("value", [torch.tensor(1.0), np.float32(1), np.float64(1), np.ones(2)])
def test_on_epoch_refuses_tensors_and_arrays(bridge: TrainingProgressBridge, value: float) -> None:
    with pytest.raises(TypeError, match=r"val_loss is a .*convert with float"):
        bridge.on_epoch(0, EPOCHS, {"train_loss": 1.0, "val_loss": value})

    assert bridge.get_status() is None
    assert 0 == bridge.snapshot().metrics_count


def test_on_epoch_refuses_a_whole_number_that_no_float_holds(
    bridge: TrainingProgressBridge,
) -> None:
    with pytest.raises(OverflowError, match="steps is beyond what a float holds"):
        bridge.on_epoch(0, EPOCHS, {"train_loss": 1.0, "steps": 10**400})

    assert 0 == bridge.snapshot().metrics_count


def test_a_figure_without_a_text_for_a_name_is_told_under_one(
    bridge: TrainingProgressBridge,
) -> None:
    bridge.on_epoch(0, EPOCHS, {5: 1.0})  # type: ignore[dict-item]  # a worker's mistake

    assert {"5": 1.0} == bridge.get_metrics()[0][0].values


@pytest.mark.parametrize("epoch", [10**30, 1.5, "first"])
def test_an_epoch_that_no_answer_could_hold_is_an_error_at_read(
    bridge: TrainingProgressBridge, epoch: int
) -> None:
    bridge.on_epoch(epoch, EPOCHS, FIGURES)

    with pytest.raises((TypeError, ValueError)):
        bridge.snapshot()


def test_on_batch_takes_no_lock(bridge: TrainingProgressBridge) -> None:
    reported = threading.Event()

    def report() -> None:
        bridge.on_batch(0, 0, BATCHES)
        reported.set()

    thread = threading.Thread(target=report)
    with bridge._lock:
        thread.start()
        assert reported.wait(5)
    thread.join(5)
    assert not thread.is_alive()


def test_preparing_moves_from_zero_to_five(bridge: TrainingProgressBridge) -> None:
    seen = []
    bridge.on_phase("preprocessing", "Reading bars")
    seen.append(percentage_of(bridge))
    for index, symbol in enumerate(("IBM", "GOOG"), start=1):
        for step in SYMBOL_STEPS:
            bridge.on_symbol_processing(symbol, index, 2, step)
            seen.append(percentage_of(bridge))
            if step == "computing_indicators":
                bridge.on_indicator_computation(symbol, index, 2, "1d", "rsi_14", 2, 2)
            if step == "generating_fuzzy":
                bridge.on_fuzzy_generation(symbol, index, 2, "1d", "low", 2, 3)
            seen.append(percentage_of(bridge))
    bridge.on_preparation_phase("combining_data")
    seen.append(percentage_of(bridge))

    assert sorted(seen) == seen
    assert (0.0, 5.0) == (seen[0], seen[-1])
    assert len(set(seen)) > 10


def test_an_indicator_is_named_with_its_place(bridge: TrainingProgressBridge) -> None:
    bridge.on_indicator_computation("IBM", 1, 2, "1d", "rsi_14", 2, 5)

    status = status_of(bridge)

    assert "IBM (1/2) 1d: indicator rsi_14 (2/5)" == status.message
    assert ("preprocessing", "computing_indicators", "rsi_14", "1") == (
        status.phase,
        status.context["step"],
        status.context["indicator"],
        status.context["symbol_index"],
    )


def test_a_fuzzy_set_is_named_with_its_place(bridge: TrainingProgressBridge) -> None:
    bridge.on_fuzzy_generation("IBM", 1, 2, "1d", "oversold", 1, 3)

    status = status_of(bridge)

    assert "IBM (1/2) 1d: fuzzy set oversold (1/3)" == status.message
    assert ("generating_fuzzy", "oversold") == (
        status.context["step"],
        status.context["fuzzy_set"],
    )


def test_an_unknown_step_is_refused_with_those_there_are(bridge: TrainingProgressBridge) -> None:
    with pytest.raises(ValueError, match="step: 'resting' is none of loading_data, "):
        bridge.on_symbol_processing("IBM", 1, 1, "resting")


def test_preparation_says_its_step(bridge: TrainingProgressBridge) -> None:
    bridge.on_preparation_phase("splitting_data")

    assert ("splitting data", "preparation", {"step": "splitting_data"}) == (
        status_of(bridge).message,
        status_of(bridge).phase,
        status_of(bridge).context,
    )


def test_a_phase_without_a_weight_keeps_the_percentage(bridge: TrainingProgressBridge) -> None:
    bridge.on_phase("evaluation", "Evaluating")
    bridge.on_phase("celebrating", "Done")

    assert ("celebrating", 95.0) == (status_of(bridge).phase, percentage_of(bridge))


def test_completion_is_a_hundred(bridge: TrainingProgressBridge) -> None:
    bridge.on_complete("Saved")

    assert (100.0, "Saved", "completed") == (
        percentage_of(bridge),
        status_of(bridge).message,
        status_of(bridge).phase,
    )


def test_a_cancellation_keeps_how_far_it_came(bridge: TrainingProgressBridge) -> None:
    bridge.on_batch(1, 9, BATCHES)
    before = percentage_of(bridge)
    bridge.cancel.request()
    bridge.on_cancellation("Stopped")

    assert (before, "Stopped", "cancelled") == (
        percentage_of(bridge),
        status_of(bridge).message,
        status_of(bridge).phase,
    )


REPORTS: dict[str, Callable[[TrainingProgressBridge], None]] = {
    "on_phase": lambda bridge: bridge.on_phase("training"),
    "on_symbol_processing": lambda bridge: bridge.on_symbol_processing("IBM", 1, 1, "loading_data"),
    "on_indicator_computation": lambda bridge: bridge.on_indicator_computation(
        "IBM", 1, 1, "1d", "rsi", 1, 1
    ),
    "on_fuzzy_generation": lambda bridge: bridge.on_fuzzy_generation(
        "IBM", 1, 1, "1d", "low", 1, 1
    ),
    "on_preparation_phase": lambda bridge: bridge.on_preparation_phase("combining_data"),
    "on_batch": lambda bridge: bridge.on_batch(0, 0, 1),
    "on_epoch": lambda bridge: bridge.on_epoch(0, 1, FIGURES),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_report_after_a_cancellation_is_recorded_and_raises(
    bridge: TrainingProgressBridge, report: Callable[[TrainingProgressBridge], None]
) -> None:
    bridge.cancel.request("enough")

    with pytest.raises(OperationCancelledError, match="enough"):
        report(bridge)

    assert bridge.get_status() is not None


def test_finished_work_stays_finished_after_a_late_cancellation(
    bridge: TrainingProgressBridge,
) -> None:
    bridge.cancel.request()
    bridge.on_complete()

    assert 100.0 == percentage_of(bridge)


def test_an_epoch_of_no_batches_can_be_read(bridge: TrainingProgressBridge) -> None:
    bridge.on_batch(0, 0, 0)
    assert percentage_of(bridge) <= 100

    TrainingProgressBridge(0).on_epoch(0, 0, FIGURES)
    empty = TrainingProgressBridge(0)
    empty.on_epoch(0, 0, FIGURES)
    assert percentage_of(empty) <= 100


def test_without_batches_the_epochs_tell_the_percentage(bridge: TrainingProgressBridge) -> None:
    bridge.on_phase("training")
    bridge.on_epoch(0, EPOCHS, FIGURES)

    assert pytest.approx(5 + 90 / 4) == percentage_of(bridge)


@given(
    reads=st.sets(st.integers(0, EPOCHS * (BATCHES + 1))),
    stop_after=st.integers(1, EPOCHS),
)
def test_percentages_never_fall_whenever_they_are_read(reads: set[int], stop_after: int) -> None:
    """Also with an early stop: the evaluation goes on from there."""
    bridge = TrainingProgressBridge(EPOCHS)
    seen: list[float] = []
    bridge.on_phase("training", total_batches=BATCHES)
    for epoch in range(stop_after):
        for batch in range(BATCHES):
            bridge.on_batch(epoch, batch, BATCHES)
            if epoch * (BATCHES + 1) + batch in reads:
                seen.append(percentage_of(bridge))
        bridge.on_epoch(epoch, EPOCHS, FIGURES)
        if epoch * (BATCHES + 1) + BATCHES in reads:
            seen.append(percentage_of(bridge))
    for phase in ("evaluation", "saving"):
        bridge.on_phase(phase)
        seen.append(percentage_of(bridge))
    bridge.on_complete()
    seen.append(percentage_of(bridge))

    assert sorted(seen) == seen
    assert [95.0, 98.0, 100.0] == seen[-3:]


def test_phases_around_the_epochs_say_how_many_are_done_of_how_many() -> None:
    bridge = TrainingProgressBridge(20)
    bridge.on_phase("preprocessing")
    before = bridge.get_status()
    bridge.on_phase("training", total_batches=4)
    bridge.on_epoch(0, 20, {"train_loss": 0.5})
    bridge.on_epoch(1, 20, {"train_loss": 0.4})  # and then it stopped early
    bridge.on_complete()
    after = bridge.get_status()

    assert before is not None
    assert after is not None
    assert (0, 20, 0, None) == (
        before.current_step,
        before.total_steps,
        before.items_processed,
        before.items_total,
    )
    assert (2, 20, 8, 80) == (
        after.current_step,
        after.total_steps,
        after.items_processed,
        after.items_total,
    )


def test_a_cancelled_training_stays_at_the_batch_it_had_reached() -> None:
    bridge = TrainingProgressBridge(20)
    bridge.on_phase("training", total_batches=97)
    bridge.on_epoch(0, 20, {"train_loss": 0.5})
    bridge.on_batch(1, 39, 97)
    before = bridge.get_status()
    bridge.on_cancellation()
    after = bridge.get_status()

    assert before is not None
    assert after is not None
    assert (2, 137) == (before.current_step, before.items_processed)
    assert (2, 137) == (after.current_step, after.items_processed)
    assert before.percentage == after.percentage


def test_batches_of_a_phase_that_did_not_announce_them_count_all_the_same() -> None:
    bridge = TrainingProgressBridge(20)
    bridge.on_phase("training")
    bridge.on_batch(0, 9, 10)
    bridge.on_epoch(0, 20, {"train_loss": 0.5})
    status = bridge.get_status()

    assert status is not None
    assert (10, 200) == (status.items_processed, status.items_total)


def test_a_state_counts_only_what_was_done_before_it() -> None:
    bridge = TrainingProgressBridge(20)
    bridge.on_phase("training", total_batches=4)
    latest = bridge._latest
    bridge.on_epoch(0, 20, {"train_loss": 0.5})
    progress = bridge._progress(latest)

    assert progress is not None
    assert 0 == progress.current_step
