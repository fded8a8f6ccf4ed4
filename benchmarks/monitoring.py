"""What being monitored costs a read: a cached GetOperation with metrics off and on, and an echo.

python -m benchmarks.monitoring    a table with ratios; exit 1 if a target is missed

Two backends and an echo are measured in one interleaved run; they differ in
KTRDR_METRICS_PORT alone. Nobody scrapes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack

import grpc

from benchmarks.processes import echo_on, echo_server
from benchmarks.remote import NEVER, Remote, remote_trainings
from benchmarks.rounds import Round, Spread, measure, repeated, table
from benchmarks.targets import Target, exit_code, judged
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

CALLS, ROUNDS = 100, 60
US = 1e3
"""Nanoseconds."""


def measure_reads() -> Mapping[str, Spread]:
    """Measure all three, in turn."""
    with ExitStack() as stack:
        off = stack.enter_context(remote_trainings(NEVER))
        on = stack.enter_context(remote_trainings(NEVER, KTRDR_METRICS_PORT=0))
        echo = echo_on(_channel(stack.enter_context(echo_server()), stack))
        answer = OperationsServiceStub(_channel(off.address, stack)).GetOperation(off.request)
        subjects = {
            "echo": repeated(lambda: echo(answer)),
            "metrics off": _cached_read(off, stack),
            "metrics on": _cached_read(on, stack),
        }
        return measure(subjects, calls=CALLS, rounds=ROUNDS)


def _cached_read(remote: Remote, stack: ExitStack) -> Round:
    get = OperationsServiceStub(_channel(remote.address, stack)).GetOperation
    request = remote.request
    return repeated(lambda: get(request))


def _channel(address: str, stack: ExitStack) -> grpc.Channel:
    return stack.enter_context(grpc.insecure_channel(address))


def targets(spreads: Mapping[str, Spread]) -> list[Target]:
    """What the design asks of a read with metrics off and on."""
    off = spreads["metrics off"].over(spreads["echo"])
    on = spreads["metrics on"].over(spreads["metrics off"])
    return [
        Target("metrics off <= 1.2 echoes", off.median <= 1.2, f"{off:.2f}"),
        Target("metrics on <= 1.1 reads with metrics off", on.median <= 1.1, f"{on:.2f}"),
    ]


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    spreads = measure_reads()
    print(f"{CALLS} calls a round, {ROUNDS} interleaved rounds; µs per call\n")
    print(table(spreads, unit=US))
    return exit_code(judged(targets(spreads)))


if __name__ == "__main__":
    sys.exit(main())
