"""How long reads take while the process works: at rest, beside torch, beside pure Python.

python -m benchmarks.interference    a table with ratios; exit 1 if a target is missed

A process serves an operation that rests and does other work at the same time, in a
thread: a training as small networks are trained, or a loop of pure Python, which
never lets go of the interpreter by itself. A client in another process reads,
anew each time, in turn: at rest; beside torch; beside Python; and beside Python
with the switch interval that the interpreter has by default, 5 ms.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import median, quantiles
from time import monotonic, perf_counter_ns
from typing import Any

import grpc

from benchmarks.processes import spawned
from benchmarks.quiet_host import serve_resting
from benchmarks.targets import Target, exit_code, judged
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from shared.process import SWITCH_INTERVAL

ROUNDS, STAY = 5, 1.5
"""Rounds, and the seconds of each situation of a round."""
REST, TORCH, PYTHON, DEFAULT = "at rest", "torch trains", "Python is busy", "the same, 5 ms slices"
MS = 1e6
"""Nanoseconds."""


@dataclass(slots=True)
class Reads:
    """What was measured in a situation."""

    times: list[int] = field(default_factory=list)
    """Nanoseconds of each read."""

    @property
    def median(self) -> float:
        """Milliseconds."""
        return median(self.times) / MS

    @property
    def mean(self) -> float:
        """Milliseconds."""
        return sum(self.times) / len(self.times) / MS

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return quantiles(self.times, n=100)[-1] / MS


# ----------------------------------------------------------------- the busy process


@contextmanager
def busy_process() -> Iterator[tuple[str, Connection]]:
    """Serve an operation in a process that does other work when it is told so."""
    with spawned(_serve) as served:
        yield served


def _serve(told: Connection) -> None:
    with serve_resting() as address, ThreadPoolExecutor(1) as workers:
        told.send(address)
        while (situation := told.recv()) is not None:
            sys.setswitchinterval(0.005 if situation == DEFAULT else SWITCH_INTERVAL)
            work, done = WORKS[situation], threading.Event()
            worker = workers.submit(repeat, None if work is None else work(), done)
            try:
                told.send("working")
                told.recv()
            finally:
                done.set()
            told.send(worker.result())


def repeat(step: Callable[[], object] | None, done: threading.Event) -> int:
    """Do a step over and over, or rest; return how many steps were done."""
    if step is None:
        done.wait()
        return 0
    steps = 0
    while not done.is_set():
        step()
        steps += 1
    return steps


def _spinning() -> Callable[[], object]:
    return lambda: sum(number * number for number in range(1000))


def _training() -> Callable[[], object]:
    import torch
    from torch import nn

    torch.set_num_threads(1)
    layers = [nn.Linear(9, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)]
    network = nn.Sequential(*layers)
    optimizer: Any = torch.optim.Adam(network.parameters(), fused=True)
    loss_of = nn.CrossEntropyLoss()
    inputs, labels = torch.randn(32, 9), torch.randint(0, 3, (32,))

    def step() -> None:
        optimizer.zero_grad()
        loss_of(network(inputs), labels).backward()
        optimizer.step()

    return step


WORKS: Mapping[str, Callable[[], Callable[[], object]] | None] = {
    REST: None,
    TORCH: _training,
    PYTHON: _spinning,
    DEFAULT: _spinning,
}
"""What sets up the steps of each situation."""


# -------------------------------------------------------------------------- measuring


def bench() -> Mapping[str, Reads]:
    """Measure the situations in interleaved rounds; the first round warms up."""
    reads = {name: Reads() for name in (REST, TORCH, PYTHON, DEFAULT)}
    with busy_process() as (address, told), grpc.insecure_channel(address) as channel:
        get = OperationsServiceStub(channel).GetOperation
        request = pb.GetOperationRequest(operation_id="op", force_refresh=True)
        for index in range(ROUNDS + 1):
            for name, each in reads.items():
                told.send(name)
                told.recv()
                times = _read(lambda: get(request), STAY if index else STAY / 3)
                told.send("enough")
                require_work(name, told.recv())
                if index:
                    each.times += times
    return reads


def require_work(situation: str, steps: int) -> None:
    """Raise if reads were measured at rest that should have been beside work."""
    if WORKS[situation] is not None and not steps:
        raise RuntimeError(f"{situation}: nothing was done while it was measured")


def _read(call: Callable[[], object], seconds: float) -> list[int]:
    times = []
    end = monotonic() + seconds
    while monotonic() < end:
        start = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - start)
    return times


def targets(reads: Mapping[str, Reads]) -> list[Target]:
    """Work in the process costs its readers milliseconds, not tens of them."""
    rows = []
    for name in (TORCH, PYTHON):
        found = reads[name]
        figure = f"{found.median:.2f} ms, {found.p99:.2f} ms"
        met = found.median < 10 and found.p99 < 50
        rows.append(Target(f"{name}: median below 10 ms, 99 % below 50 ms", met, figure))
    return rows


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    reads = bench()
    print(f"{ROUNDS} interleaved rounds of {STAY} s each; ms per forced read\n")
    print(f"{'':<24}{'reads':>8}{'median':>10}{'mean':>10}{'99 %':>10}{'worst':>10}")
    for name, each in reads.items():
        figures = (each.median, each.mean, each.p99, max(each.times) / MS)
        row = "".join(f"{value:>10.2f}" for value in figures)
        print(f"{name:<24}{len(each.times):>8}{row}")
    ratio = reads[DEFAULT].mean / reads[PYTHON].mean
    print(f"\nwith slices of 5 ms the mean is {ratio:.1f} times that of {SWITCH_INTERVAL * 1e3} ms")
    return exit_code(judged(targets(reads)))


if __name__ == "__main__":
    sys.exit(main())
