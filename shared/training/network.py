"""The network: a multi-layer perceptron over the features of one bar.

All chance comes from the generator it is given, none from torch's global one:
first weights and dropout alike. So a run is repeatable beside others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.training.labels import Label
from shared.training.strategy import Architecture

_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}


class SeededDropout(nn.Module):
    """Dropout that draws from a generator of its own run."""

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self._keep = 1.0 - rate
        self._generator = generator

    def forward(self, values: Tensor) -> Tensor:
        """Zero a share of the values and scale the rest up, while training."""
        if not self.training:
            return values
        mask = torch.empty_like(values).bernoulli_(self._keep, generator=self._generator)
        return values * mask.div_(self._keep)


class Mlp(nn.Module):
    """Hidden layers as the architecture says, then one logit per label."""

    def __init__(
        self, architecture: Architecture, features: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = features
        for size in architecture.hidden_layers:
            layers += [_linear(width, size, generator), _ACTIVATIONS[architecture.activation]()]
            if architecture.dropout > 0:
                layers.append(SeededDropout(architecture.dropout, generator))
            width = size
        layers.append(_linear(width, len(Label), generator))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, features) to logits (batch, 3)."""
        logits: Tensor = self.layers(inputs)
        return logits

    @property
    def parameter_count(self) -> int:
        """Trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the weights by name."""
        return {name: value.numpy().copy() for name, value in self.state_dict().items()}


def load_mlp(
    architecture: Architecture, features: int, weights: Mapping[str, NDArray[np.float32]]
) -> Mlp:
    """Build a network with these weights, ready to answer.

    Raises RuntimeError if the weights are not those of such a network.
    """
    network = Mlp(architecture, features, torch.Generator())
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return network.eval()


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer initialised as torch does by default, but from the generator."""
    # skip_init: the usual constructor would draw from, and move on, the global one.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]  # torch's
    bound = 1.0 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
