"""One epoch of 75 000 samples of 9 features in batches of 32, beside the usual way to write it.

python -m benchmarks.epoch    a table with the ablation; exit 1 if a target is missed

The usual way takes batches from a DataLoader, steps the default Adam and reads the
loss back after each batch. Each other line changes one thing more, until nothing
but the trainer itself is left, which also reports every batch to a bridge. All have
one thread, which is kind to the usual way: by default it takes a thread per core,
and that is many times slower where the cores are busy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from time import thread_time_ns

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.bridge import on_batch, on_epoch
from benchmarks.rounds import Round, Spread, measure, table
from benchmarks.targets import Target, exit_code, judged
from shared.clock import SystemClock
from shared.operations.cancellation import CancelSignal
from shared.training.bridge import TrainingProgressBridge
from shared.training.dataset import Part
from shared.training.network import Mlp
from shared.training.strategy import Architecture, TrainingOptions
from shared.training.trainer import Trainer

SAMPLES, FEATURES, BATCH, ROUNDS = 75_000, 9, 32, 8
REPORTS = 10_000
SHARE = 0.001
"""Of an epoch's time, for all reports of it."""
S = 1e9
"""Nanoseconds."""
Batches = Iterable[tuple[Tensor, Tensor]]


def _part(samples: int, seed: int) -> Part:
    """Samples of noise whose sum decides the label."""
    chance = np.random.default_rng(seed)
    inputs = chance.normal(size=(samples, FEATURES)).astype(np.float32)
    return Part(inputs, np.digitize(inputs.sum(axis=1), [-1.0, 1.0]).astype(np.int64))


@cache
def train() -> Part:
    """What is trained on."""
    return _part(SAMPLES, 1)


@cache
def validation() -> Part:
    """What the trainer validates on: next to nothing, as the others do not."""
    return _part(BATCH, 2)


def _network() -> tuple[Mlp, torch.Generator]:
    generator = torch.Generator().manual_seed(7)
    return Mlp(Architecture(hidden_layers=(32, 16)), FEATURES, generator), generator


# ------------------------------------------------------------------- written by hand


def _loaded() -> Batches:
    data = TensorDataset(torch.from_numpy(train().inputs), torch.from_numpy(train().labels))
    return DataLoader(data, batch_size=BATCH, shuffle=True)


def _sliced() -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(SAMPLES)
    inputs = torch.from_numpy(train().inputs)[order]
    labels = torch.from_numpy(train().labels)[order]
    yield from zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True)


def _by_hand(batches: Callable[[], Batches], *, fused: bool, read_back: bool) -> Round:
    """An epoch as it is written without a trainer."""

    def set_up() -> Callable[[int], None]:
        network, _ = _network()
        optimizer = torch.optim.Adam(network.parameters(), fused=fused)
        loss_of = nn.CrossEntropyLoss()

        def run(_: int) -> None:
            total, losses = 0.0, []
            for inputs, labels in batches():
                optimizer.zero_grad()
                loss = loss_of(network(inputs), labels)
                loss.backward()
                optimizer.step()
                if read_back:
                    total += loss.item()
                else:
                    losses.append(loss.detach())
            assert total or torch.stack(losses).mean().item()

        return run

    return set_up


# ----------------------------------------------------------------------- the trainer


def _trainer() -> Callable[[int], None]:
    network, generator = _network()
    options = TrainingOptions(epochs=1, batch_size=BATCH, weight_decay=0.0)
    bridge, cancel = TrainingProgressBridge(1), CancelSignal()
    trainer = Trainer(options, bridge, cancel, generator, SystemClock())

    def run(_: int) -> None:
        trainer.fit(network, train(), validation())

    return run


USUAL, OURS = "DataLoader, Adam, .item()", "ktrdr's trainer, with reports"


def bench() -> dict[str, Spread]:
    """Measure all ways in one interleaved run."""
    torch.set_num_threads(1)
    return measure(
        {
            USUAL: _by_hand(_loaded, fused=False, read_back=True),
            "slices, Adam, .item()": _by_hand(_sliced, fused=False, read_back=True),
            "slices, fused Adam, .item()": _by_hand(_sliced, fused=True, read_back=True),
            "slices, fused Adam": _by_hand(_sliced, fused=True, read_back=False),
            OURS: _trainer,
        },
        calls=1,
        rounds=ROUNDS,
        clock=thread_time_ns,
    )


def share_of_reports(epoch: float) -> float:
    """The reports' share of an epoch that takes so many nanoseconds."""
    reports = {"on_batch": on_batch, "on_epoch": on_epoch}
    costs = measure(reports, calls=REPORTS, rounds=20, clock=thread_time_ns)
    batches = -(-SAMPLES // BATCH)
    return (batches * costs["on_batch"].median + costs["on_epoch"].median) / epoch


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    times = bench()
    print(f"{ROUNDS} interleaved epochs of each; s of processor time per epoch\n")
    print(table(times, unit=S, digits=3))
    print()
    for name, spread in times.items():
        print(f"{name}: {spread.over(times[USUAL]):.2f} of the usual way")
    faster = times[USUAL].over(times[OURS])
    share = share_of_reports(times[OURS].median)
    return exit_code(
        judged(
            [
                Target(
                    "an epoch at least 1.6 times faster than DataLoader, default Adam and .item()",
                    faster.median >= 1.6,
                    f"{faster:.2f} times",
                ),
                Target(
                    "reports take at most 0.1 % of the training", share <= SHARE, f"{share:.4%}"
                ),
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
