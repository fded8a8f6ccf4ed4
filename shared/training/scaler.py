"""The scaler: centres and scales features by what the training part showed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scaler:
    """A mean and a scale per feature."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    """Never zero: a feature that does not vary is only centred."""

    @classmethod
    def fit(cls, inputs: NDArray[np.floating]) -> Scaler:
        """Take mean and standard deviation of each column of (rows, features)."""
        values = np.asarray(inputs, dtype=np.float64)
        deviation = values.std(axis=0)
        return cls(
            tuple(values.mean(axis=0).tolist()),
            tuple(np.where(deviation < 1e-9, 1.0, deviation).tolist()),
        )

    @classmethod
    def identity(cls, features: int) -> Scaler:
        """Return the scaler that changes nothing."""
        return cls((0.0,) * features, (1.0,) * features)

    def apply(self, inputs: NDArray[np.floating]) -> Matrix:
        """Return (rows, features) centred and scaled, as float32."""
        values = np.asarray(inputs, dtype=np.float64)
        scaled = (values - np.asarray(self.mean)) / np.asarray(self.scale)
        return np.asarray(scaled, dtype=np.float32)
