import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.training.evaluation import confusion_matrix, cross_entropy, evaluate, majority_label

LABELS = st.lists(st.integers(0, 2), min_size=1, max_size=40)


def answers(*labels: int) -> np.ndarray:
    """Logits that answer these labels with certainty."""
    return np.eye(3)[list(labels)] * 50


def test_the_confusion_matrix_counts_label_by_answer() -> None:
    matrix = confusion_matrix(np.array([0, 2, 2]), np.array([0, 0, 2]))

    assert [[1, 0, 1], [0, 0, 0], [0, 0, 1]] == matrix.tolist()


def test_figures_are_weighted_by_support() -> None:
    labels = np.array([0, 0, 0, 2])

    metrics = evaluate(answers(0, 0, 2, 2), labels, majority=0)

    # BUY: precision 1, recall 2/3, f1 0.8; SELL: precision 1/2, recall 1, f1 2/3.
    assert 0.75 == metrics.accuracy
    assert pytest.approx(0.75 * 1 + 0.25 * 0.5) == metrics.precision
    assert pytest.approx(0.75 * 2 / 3 + 0.25) == metrics.recall
    assert pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3) == metrics.f1
    assert 0.75 == metrics.baseline_accuracy
    assert pytest.approx(12.5) == metrics.loss


def test_a_label_never_answered_has_precision_zero() -> None:
    metrics = evaluate(answers(1, 1), np.array([1, 2]), majority=0)

    assert 0.25 == metrics.precision
    assert 0.0 == metrics.baseline_accuracy


def test_cross_entropy_of_an_even_guess_is_log_3() -> None:
    assert pytest.approx(np.log(3)) == cross_entropy(np.zeros((5, 3)), np.array([0, 1, 2, 0, 1]))


def test_cross_entropy_of_huge_logits_is_finite() -> None:
    assert pytest.approx(2e4) == cross_entropy(np.array([[1e4, 0.0, -1e4]]), np.array([2]))


@given(labels=LABELS)
def test_perfect_answers_score_one(labels: list[int]) -> None:
    metrics = evaluate(
        answers(*labels), np.array(labels), majority=majority_label(np.array(labels))
    )

    assert [pytest.approx(1.0)] * 4 == [
        metrics.accuracy,
        metrics.precision,
        metrics.recall,
        metrics.f1,
    ]
    assert pytest.approx(0.0, abs=1e-9) == metrics.loss


@given(labels=LABELS, given_answers=st.data())
def test_weighted_recall_is_accuracy(labels: list[int], given_answers: st.DataObject) -> None:
    guesses = given_answers.draw(
        st.lists(st.integers(0, 2), min_size=len(labels), max_size=len(labels))
    )

    metrics = evaluate(answers(*guesses), np.array(labels), majority=0)

    assert pytest.approx(metrics.accuracy) == metrics.recall


def test_the_majority_of_equals_is_the_lower_label() -> None:
    assert 1 == majority_label(np.array([2, 1, 1, 2, 0]))
