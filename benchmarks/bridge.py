"""What a report costs: the bridge beside tqdm, Prometheus, MLflow, Celery and formatting.

python -m benchmarks.bridge    tables with ratios; exit 1 if a target is missed

A report of an epoch has six figures. Those who know one figure at a time are
called six times: what is compared is what the worker waits for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import devnull
from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time_ns

from tqdm import tqdm

from benchmarks.format_in_worker import FormatInWorkerBridge
from benchmarks.rivals.reports import RIVALS
from benchmarks.rounds import Round, Spread, measure, repeated, table
from benchmarks.targets import Target, exit_code, judged
from shared.training.bridge import TrainingProgressBridge

CALLS, ROUNDS = 10_000, 200
SLOW_CALLS, SLOW_ROUNDS = 20, 12
"""For rivals that write to a disk."""
BATCHES = 100
METRICS = {
    "train_loss": 0.693147,
    "train_accuracy": 0.5,
    "val_loss": 0.71,
    "val_accuracy": 0.48,
    "learning_rate": 0.001,
    "duration": 1.25,
}
US = 1e3
"""Nanoseconds."""


def on_epoch() -> Callable[[int], None]:
    """A round of reports of an epoch."""
    bridge = TrainingProgressBridge(CALLS)
    bridge.on_phase("training", total_batches=BATCHES)

    def run(calls: int) -> None:
        report = bridge.on_epoch
        for epoch in range(calls):
            report(epoch, calls, METRICS)

    return run


def on_batch() -> Callable[[int], None]:
    """A round of reports of a batch."""
    bridge = TrainingProgressBridge(CALLS)
    bridge.on_phase("training", total_batches=CALLS)

    def run(calls: int) -> None:
        report = bridge.on_batch
        for batch in range(calls):
            report(0, batch, calls)

    return run


def _format_in_worker() -> Callable[[int], None]:
    bridge = FormatInWorkerBridge(CALLS, BATCHES)

    def run(calls: int) -> None:
        report = bridge.on_epoch
        for epoch in range(calls):
            report(epoch, calls, METRICS)

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


def measure_fast() -> Mapping[str, Spread]:
    """Measure what stays in memory, in one interleaved run."""
    with _tqdm_update() as tqdm_update:
        subjects: dict[str, Round] = {
            "on_epoch": on_epoch,
            "on_batch": on_batch,
            "tqdm.update": tqdm_update,
            "format in worker": _format_in_worker,
        }
        return measure(subjects, calls=CALLS, rounds=ROUNDS, clock=thread_time_ns)


def measure_rivals() -> tuple[Mapping[str, Spread], list[str]]:
    """Measure whatever rivals are installed beside `on_epoch`; name those that are not."""
    absent: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        subjects: dict[str, Round] = {"on_epoch": on_epoch}
        for name, opened in RIVALS.items():
            try:
                subjects[name] = repeated(stack.enter_context(opened(folder, METRICS)))
            except ModuleNotFoundError:
                absent.append(name)
        return measure(subjects, calls=SLOW_CALLS, rounds=SLOW_ROUNDS), absent


def fast_targets(spreads: Mapping[str, Spread]) -> list[Target]:
    """What the design asks for."""
    epoch = spreads["on_epoch"]
    cheaper = spreads["format in worker"].over(epoch)
    batch = spreads["on_batch"].over(spreads["tqdm.update"])
    return [
        Target("on_epoch below 1 µs", epoch.median < 1000, f"{epoch:.0f} ns"),
        Target(
            "on_epoch at least 5 times cheaper than formatting in the worker",
            cheaper.median >= 5,
            f"{cheaper:.2f} times",
        ),
        Target("on_batch at most one tqdm.update", batch.median <= 1, f"{batch:.2f} of one"),
    ]


def rival_targets(spreads: Mapping[str, Spread]) -> list[Target]:
    """No rival is cheaper to report an epoch to."""
    ours = spreads["on_epoch"]
    return [
        Target(f"on_epoch cheaper than {name}", (times := spread.over(ours)).median > 1,
               f"{times:,.0f} times")
        for name, spread in spreads.items()
        if name != "on_epoch"
    ]  # fmt: skip


def main() -> int:
    """Measure and print; 1 if a target is missed or a rival is not installed."""
    fast = measure_fast()
    print(f"{CALLS} calls a round, {ROUNDS} interleaved rounds; ns of processor time per call\n")
    print(table(fast, unit=1.0, digits=0))
    well = judged(fast_targets(fast))
    rivals, absent = measure_rivals()
    print(f"\nAn epoch's six figures, {SLOW_CALLS} calls in each of {SLOW_ROUNDS} rounds;")
    print("µs per report\n")
    print(table(rivals, unit=US))
    return exit_code(judged(rival_targets(rivals), absent) and well)


if __name__ == "__main__":
    sys.exit(main())
