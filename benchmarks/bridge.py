"""What a report costs: the bridge beside `tqdm.update` and beside formatting in the worker.

python -m benchmarks.bridge           a table with ratios; exit 1 if a target is missed
python -m benchmarks.bridge --json    one object of medians in nanoseconds
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import devnull
from pathlib import Path

from tqdm import tqdm

from benchmarks.format_in_worker import FormatInWorkerBridge
from benchmarks.rounds import Round, Spread, measure
from shared.training.bridge import TrainingProgressBridge

CALLS = 10_000
ROUNDS = 30
BATCHES = 100
METRICS = {
    "train_loss": 0.693147,
    "train_accuracy": 0.5,
    "val_loss": 0.71,
    "val_accuracy": 0.48,
    "learning_rate": 0.001,
    "duration": 1.25,
}


def _on_epoch() -> Callable[[int], None]:
    bridge = TrainingProgressBridge(CALLS)
    bridge.on_phase("training", total_batches=BATCHES)

    def run(calls: int) -> None:
        on_epoch = bridge.on_epoch
        for epoch in range(calls):
            on_epoch(epoch, calls, METRICS)

    return run


def _on_batch() -> Callable[[int], None]:
    bridge = TrainingProgressBridge(CALLS)
    bridge.on_phase("training", total_batches=CALLS)

    def run(calls: int) -> None:
        on_batch = bridge.on_batch
        for batch in range(calls):
            on_batch(0, batch, calls)

    return run


def _format_in_worker() -> Callable[[int], None]:
    bridge = FormatInWorkerBridge(CALLS, BATCHES)

    def run(calls: int) -> None:
        on_epoch = bridge.on_epoch
        for epoch in range(calls):
            on_epoch(epoch, calls, METRICS)

    return run


@contextmanager
def _tqdm_update() -> Iterator[Round]:
    with Path(devnull).open("w", encoding="utf-8") as nowhere:

        def set_up() -> Callable[[int], None]:
            bar = tqdm(total=CALLS, file=nowhere)

            def run(calls: int) -> None:
                update = bar.update
                for _ in range(calls):
                    update()

            return run

        yield set_up


def bench(calls: int = CALLS, rounds: int = ROUNDS) -> Mapping[str, Spread]:
    """Measure all subjects in one interleaved run."""
    with _tqdm_update() as tqdm_update:
        subjects: dict[str, Round] = {
            "on_epoch": _on_epoch,
            "on_batch": _on_batch,
            "tqdm_update": tqdm_update,
            "format_in_worker": _format_in_worker,
        }
        return measure(subjects, calls=calls, rounds=rounds)


def report(spreads: Mapping[str, Spread]) -> bool:
    """Print the table; return whether every target is met."""
    print(f"{CALLS} calls a round, {ROUNDS} interleaved rounds; ns per call\n")
    print(f"{'':<18}{'median':>9}{'10 %':>9}{'90 %':>9}")
    for name, spread in spreads.items():
        print(f"{name:<18}{spread.median:>9.0f}{spread.low:>9.0f}{spread.high:>9.0f}")
    on_epoch, on_batch = spreads["on_epoch"].median, spreads["on_batch"].median
    tqdm_update, formatted = spreads["tqdm_update"].median, spreads["format_in_worker"].median
    targets = [
        ("on_epoch below 1 µs", on_epoch < 1000, f"{on_epoch:.0f} ns"),
        (
            "on_epoch ≥ 5x cheaper than formatting in the worker",
            formatted >= 5 * on_epoch,
            f"{formatted / on_epoch:.2f}x",
        ),
        (
            "on_batch at most one tqdm.update()",
            on_batch <= tqdm_update,
            f"{on_batch / tqdm_update:.2f} of one",
        ),
    ]
    print()
    for target, met, figure in targets:
        print(f"{'met   ' if met else 'MISSED'}  {target}: {figure}")
    return all(met for _, met, _ in targets)


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="What a report to the bridge costs.")
    parser.add_argument("--json", action="store_true", help="print medians as one JSON object")
    arguments = parser.parse_args()
    spreads = bench()
    if arguments.json:
        print(json.dumps({f"{name}_ns": round(s.median, 1) for name, s in spreads.items()}))
        return 0
    return 0 if report(spreads) else 1


if __name__ == "__main__":
    sys.exit(main())
