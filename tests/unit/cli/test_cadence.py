import pytest

from backend.cli.cadence import cadence_of
from ktrdr.operations.v1 import operation_pb2 as op
from tests.unit.cli.open_operations import LOADING, each, steps, working


def test_a_step_usually_takes_the_median_of_the_last_ones() -> None:
    cadence = cadence_of(working(), steps(100, 96, 92, 30, 26))
    assert (4.0, "epoch") == (cadence.usual, cadence.unit)


def test_the_step_at_hand_began_when_the_last_one_ended() -> None:
    cadence = cadence_of(working(silence=2), each(4, last=10))
    assert (2.0, 10.0) == (cadence.silence, cadence.lag)


def test_a_clock_of_the_owner_that_is_wrong_changes_nothing() -> None:
    right = cadence_of(working(silence=2), each(4, last=10))
    wrong = cadence_of(working(silence=2, skew=7_200), each(4, last=10, skew=7_200))
    assert right == wrong


@pytest.mark.parametrize("phase", ["preprocessing", "evaluation", "saving"])
def test_where_no_steps_follow_each_other_the_silence_counts(phase: str) -> None:
    cadence = cadence_of(working(silence=2, phase=phase), each(4, last=10))
    assert 2.0 == cadence.lag


def test_a_load_that_reports_pieces_is_not_late_with_its_symbol() -> None:
    load = working(type_=LOADING, phase="loading", silence=1)
    cadence = cadence_of(load, each(2, last=500, kind="symbol"))
    assert (2.0, "symbol", 1.0) == (cadence.usual, cadence.unit, cadence.lag)


def test_of_one_step_its_own_word_is_taken() -> None:
    (metric,) = steps(10)
    metric.values["duration"] = 7.5
    assert 7.5 == cadence_of(working(), (metric,)).usual


def test_before_the_first_step_a_batch_takes_at_most_the_time_since_the_start() -> None:
    cadence = cadence_of(working(started=102, silence=2, items=50), ())
    assert (2.0, "batch", 2.0) == (cadence.usual, cadence.unit, cadence.lag)
    assert 25.0 == cadence.least


@pytest.mark.parametrize(
    "operation",
    [
        working(items=0),
        working(silence=None),
        working(type_=LOADING, items=5_000),
        op.Operation(),
    ],
)
def test_without_a_sign_of_pace_none_is_known(operation: op.Operation) -> None:
    cadence = cadence_of(operation, ())
    assert (None, "") == (cadence.usual, cadence.unit)


def test_metrics_of_other_kinds_are_no_steps() -> None:
    note = op.Metric(kind="note")
    assert 4.0 == cadence_of(working(), (note, *each(4, last=1))).usual
