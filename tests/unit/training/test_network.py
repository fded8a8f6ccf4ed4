import numpy as np
import pytest
import torch

from shared.training.network import Mlp, SeededDropout, load_mlp
from shared.training.strategy import Architecture

SHAPE = Architecture(hidden_layers=(25, 15), dropout=0.5)


def network(seed: int = 1, architecture: Architecture = SHAPE) -> Mlp:
    return Mlp(architecture, 9, torch.Generator().manual_seed(seed))


def test_it_maps_features_to_three_logits() -> None:
    assert (4, 3) == tuple(network()(torch.zeros(4, 9)).shape)


def test_parameters_are_counted() -> None:
    assert 9 * 25 + 25 + 25 * 15 + 15 + 15 * 3 + 3 == network().parameter_count


@pytest.mark.parametrize(
    "activation", ["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu"]
)
def test_every_activation_of_a_strategy_exists(activation: str) -> None:
    shape = Architecture.model_validate({"hidden_layers": [3], "activation": activation})

    assert torch.isfinite(network(architecture=shape)(torch.ones(2, 9))).all()


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second, other = network(1).weights(), network(1).weights(), network(2).weights()

    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()

    network()(torch.ones(8, 9)).sum().backward()

    assert torch.equal(before, torch.random.get_rng_state())


def test_first_weights_are_bounded_as_torch_does() -> None:
    weights = network().weights()["layers.0.weight"]

    assert abs(weights).max() <= 1 / 3
    assert abs(weights).max() > 0.9 / 3


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    dropout = SeededDropout(0.25, torch.Generator().manual_seed(1))

    dropped = dropout(torch.ones(200, 200))

    assert pytest.approx(0.25, abs=0.01) == (dropped == 0).float().mean().item()
    assert pytest.approx(1.0, abs=0.01) == dropped.mean().item()


def test_dropout_rests_while_answering() -> None:
    values = torch.ones(5, 5)

    assert torch.equal(values, SeededDropout(0.5, torch.Generator()).eval()(values))


def test_weights_are_copies() -> None:
    net = network()
    weights = net.weights()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()

    assert np.abs(weights["layers.0.weight"]).sum() > 0


def test_loaded_weights_answer_the_same() -> None:
    net = network().eval()
    inputs = torch.rand(10, 9)

    again = load_mlp(SHAPE, 9, net.weights())

    assert torch.equal(net(inputs), again(inputs))


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_mlp(SHAPE, 10, network().weights())
