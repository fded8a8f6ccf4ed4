import numpy as np
import pytest
import torch

from shared.training.classifier import Classifier
from shared.training.network import Mlp
from shared.training.scaler import Scaler
from shared.training.strategy import Architecture


@pytest.fixture
def classifier() -> Classifier:
    shape = Architecture(hidden_layers=(4,), dropout=0.5)
    network = Mlp(shape, 2, torch.Generator().manual_seed(3))
    return Classifier(network, Scaler((1.0, 2.0), (2.0, 4.0)), ("a", "b"))


def test_probabilities_sum_to_one_and_repeat(classifier: Classifier) -> None:
    inputs = np.random.default_rng(1).normal(size=(6, 2))

    first, second = classifier.probabilities(inputs), classifier.probabilities(inputs)

    assert (6, 3) == first.shape
    assert np.allclose(1, first.sum(axis=1))
    assert (first == second).all()


def test_inputs_are_scaled_first(classifier: Classifier) -> None:
    plain = Classifier(classifier.network, Scaler.identity(2), ("a", "b"))

    scaled = plain.probabilities(np.array([[1.0, 0.5]]))

    assert np.allclose(scaled, classifier.probabilities(np.array([[3.0, 4.0]])))


@pytest.mark.parametrize("shape", [(3, 3), (2,)])
def test_other_columns_are_refused(shape: tuple[int, ...], classifier: Classifier) -> None:
    with pytest.raises(ValueError, match=r"inputs must be \(samples, 2\)"):
        classifier.probabilities(np.zeros(shape))
