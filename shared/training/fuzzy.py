"""Fuzzy membership: how much a value belongs to a set, from 0 to 1.

NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def membership(kind: str, parameters: Sequence[float], values: Values) -> Values:
    """Return the membership of each value in a set of this kind.

    triangular [a, b, c] rises from a to its top at b and falls to c.
    trapezoidal [a, b, c, d] is 1 from b to c. gaussian [mu, sigma] is a bell.
    Where the two outer points of a side are equal, the set is a shoulder: open
    on that side, with membership 1 beyond it.
    """
    if kind == "gaussian":
        mu, sigma = parameters
        return np.asarray(np.exp(-0.5 * ((values - mu) / sigma) ** 2))
    if kind == "triangular":
        a, b, c = parameters
        return _between(a, b, b, c, values)
    if kind == "trapezoidal":
        a, b, c, d = parameters
        return _between(a, b, c, d, values)
    raise ValueError(f"unknown membership function {kind!r}")


def _between(a: float, b: float, c: float, d: float, values: Values) -> Values:
    """Interpolate (a, 0) (b, 1) (c, 1) (d, 0), without the foot of a shoulder."""
    points = [(b, 1.0), (c, 1.0)] if b < c else [(b, 1.0)]
    if a < b:
        points.insert(0, (a, 0.0))
    if c < d:
        points.append((d, 0.0))
    x, y = zip(*points, strict=True)
    return np.asarray(np.interp(values, x, y))
