from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from shared.training.torch_loading import load_torch

LOADED_BY_TWO = """
import gc, sys, threading
from shared.training.torch_loading import load_torch
assert "torch" not in sys.modules and gc.get_freeze_count() == 0
threads = [threading.Thread(target=load_torch) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
import torch
network = torch.nn.Linear(2, 1)
network(torch.zeros(1, 2)).sum().backward()
torch.optim.AdamW(network.parameters()).step()
print(gc.get_freeze_count() > 100_000, len(gc.get_objects()) < 100_000)
"""


@pytest.mark.slow
def test_what_torch_and_a_first_training_leave_is_out_of_later_collections() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY_TWO], capture_output=True, text=True, check=False
    )
    assert ("True True\n", "") == (done.stdout, done.stderr)


def test_nothing_else_is_kept_from_collection_once_torch_is_there() -> None:
    import torch  # noqa: F401

    before = gc.get_freeze_count()
    load_torch()
    assert before == gc.get_freeze_count()
