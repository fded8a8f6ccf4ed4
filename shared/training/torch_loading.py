"""Loading torch, which is large, when the first training needs it."""

from __future__ import annotations

import gc
import sys
import threading

_loading = threading.Lock()
"""Held while torch is imported, so that what it leaves is kept aside once."""


def load_torch() -> None:
    """Import torch, unless that has been done, and keep it out of garbage collections.

    It leaves some hundred thousand objects, and as many again when the first
    optimiser is made. Each time all of them were looked through, every thread would
    stand still for 0.2 s, those that serve calls included.
    """
    with _loading:
        if "torch" not in sys.modules:
            import torch

            torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
            gc.freeze()
