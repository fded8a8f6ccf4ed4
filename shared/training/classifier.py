"""The classifier: a trained network with the scaler its inputs need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shared.training.network import Mlp
from shared.training.scaler import Scaler


@dataclass(frozen=True, slots=True)
class Classifier:
    """Answers features with probabilities of labels; needs no labels, bars or strategy."""

    network: Mlp
    scaler: Scaler
    features: tuple[str, ...]
    """Names of the input columns, in order."""

    def probabilities(self, inputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the probabilities (samples, 3) of BUY, HOLD and SELL.

        `inputs` are (samples, features), unscaled. Raises ValueError for another
        number of columns.
        """
        if inputs.ndim != 2 or inputs.shape[1] != len(self.features):
            raise ValueError(
                f"inputs must be (samples, {len(self.features)}), got {inputs.shape}; "
                "the columns are those of `features`"
            )
        self.network.eval()
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(self.scaler.apply(inputs)))
            answers: NDArray[np.float32] = torch.softmax(logits, dim=1).numpy()
        return answers
