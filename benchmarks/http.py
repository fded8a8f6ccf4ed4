"""ktrdr beside the same design over HTTP, on the same machine and payload.

python -m benchmarks.http    tables with ratios; exit 1 if a target is missed

Both have a client, a backend and a host, each in a process of its own, and one
operation that rests. httpx is measured both ways, as AsyncClient and as Client. For
requests per second 50 clients in one process ask as fast as they are answered:
threads for the generated stub and httpx.Client, tasks for httpx.AsyncClient.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import grpc

from benchmarks.remote import remote_trainings
from benchmarks.rounds import Round, Spread, measure, repeated, table
from benchmarks.targets import Target, exit_code, judged
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

CALLS, ROUNDS = 50, 25
CLIENTS, STAY, CROWDS = 50, 2.0, 6
"""Clients at once, seconds of each stay, stays of each kind."""
NEVER = 60.0
"""A TTL that does not end within the measurement."""
US = 1e3
"""Nanoseconds."""
ASYNC, SYNC = "httpx.AsyncClient", "httpx.Client"
KINDS = ("cached read", "remote miss")
Crowd = Callable[[], int]
"""Lets the clients ask for a stay; returns how many answers there were."""


# ----------------------------------------------------------------- the two systems


@contextmanager
def both() -> Iterator[tuple[Mapping[str, Round], Mapping[str, Crowd]]]:
    """Run both systems; give reads to time, and crowds to count. Needs the rivals."""
    import httpx

    from benchmarks.rivals.http_twin import OPERATION, PATH, http_twin

    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    with (
        remote_trainings(NEVER, KTRDR_READ_LIMIT=CLIENTS) as ours,
        http_twin(NEVER) as twin,
        grpc.insecure_channel(ours.address) as channel,
        httpx.Client(base_url=twin, limits=limits) as client,
        asyncio.Runner() as runner,
    ):
        get = OperationsServiceStub(channel).GetOperation
        cached = ours.request
        forced = pb.GetOperationRequest(operation_id=ours.resting, force_refresh=True)
        url, force = f"{PATH}/{OPERATION}", {"force_refresh": "true"}
        later = httpx.AsyncClient(base_url=twin, limits=limits)

        def awaited(params: Mapping[str, str]) -> Round:
            async def many(calls: int) -> None:
                for _ in range(calls):
                    (await later.get(url, params=params)).raise_for_status().json()

            return lambda: lambda calls: runner.run(many(calls))

        def blocking(params: Mapping[str, str]) -> Round:
            return repeated(lambda: client.get(url, params=params).raise_for_status().json())

        reads = {
            "ktrdr cached read": repeated(lambda: get(cached)),
            f"{ASYNC} cached read": awaited({}),
            f"{SYNC} cached read": blocking({}),
            "ktrdr remote miss": repeated(lambda: get(forced)),
            f"{ASYNC} remote miss": awaited(force),
            f"{SYNC} remote miss": blocking(force),
        }
        crowds = {
            "ktrdr": lambda: _threads(lambda: get(cached)),
            ASYNC: lambda: runner.run(_tasks(lambda: later.get(url))),
            SYNC: lambda: _threads(lambda: client.get(url).raise_for_status().json()),
        }
        try:
            yield reads, crowds
        finally:
            runner.run(later.aclose())


def _threads(call: Callable[[], object]) -> int:
    """Count the answers that clients in threads get in a stay."""
    end = monotonic() + STAY

    def client() -> int:
        answers = 0
        while monotonic() < end:
            call()
            answers += 1
        return answers

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(each.result() for each in [pool.submit(client) for _ in range(CLIENTS)])


async def _tasks(call: Callable[[], Any]) -> int:
    """Count the answers that clients in tasks get in a stay."""
    end = monotonic() + STAY

    async def client() -> int:
        answers = 0
        while monotonic() < end:
            (await call()).raise_for_status().json()
            answers += 1
        return answers

    return sum(await asyncio.gather(*(client() for _ in range(CLIENTS))))


def count(crowds: Mapping[str, Crowd]) -> Mapping[str, Spread]:
    """Answers per second of each kind of client, in interleaved stays."""
    rates: dict[str, list[float]] = {name: [] for name in crowds}
    for _ in range(CROWDS):
        for name, crowd in crowds.items():
            began = monotonic()
            answers = crowd()
            rates[name].append(answers / (monotonic() - began))
    return {name: Spread(tuple(values)) for name, values in rates.items()}


# --------------------------------------------------------------------------- report


def targets(reads: Mapping[str, Spread], rates: Mapping[str, Spread]) -> list[Target]:
    """At most half the median, and four times the requests per second, of the twin."""
    rows = [
        Target(
            f"{kind} at least 2 times faster than over {ASYNC}",
            (ratio := reads[f"{ASYNC} {kind}"].over(reads[f"ktrdr {kind}"])).median >= 2,
            f"{ratio:.2f} times",
        )
        for kind in KINDS
    ]
    rate = rates["ktrdr"].over(rates[ASYNC])
    wanted = f"at least 4 times the requests per second of {ASYNC} at {CLIENTS} clients"
    return [*rows, Target(wanted, rate.median >= 4, f"{rate:.2f} times")]


def report_blocking(reads: Mapping[str, Spread], rates: Mapping[str, Spread]) -> None:
    """Print how the other way to use httpx compares; the design of the twin does not use it."""
    print()
    for kind in KINDS:
        ratio = reads[f"{SYNC} {kind}"].over(reads[f"ktrdr {kind}"])
        print(f"over {SYNC} a {kind} takes {ratio:.2f} times as long")
    print(f"ktrdr answers {rates['ktrdr'].over(rates[SYNC]):.2f} times the requests of {SYNC}")


def main() -> int:
    """Measure and print; 1 if a target is missed or the rival is not installed."""
    try:
        with both() as (reads, crowds):
            times = measure(reads, calls=CALLS, rounds=ROUNDS)
            rates = count(crowds)
    except ModuleNotFoundError as error:
        return exit_code(judged([], [f"FastAPI + httpx ({error.name})"]))
    print(f"{CALLS} calls a round, {ROUNDS} interleaved rounds; µs per read\n")
    print(table(times, unit=US))
    print(f"\n{CLIENTS} clients, {CROWDS} stays of {STAY:.0f} s each; cached reads per second\n")
    print(table(rates, unit=1.0, digits=0))
    report_blocking(times, rates)
    return exit_code(judged(targets(times, rates)))


if __name__ == "__main__":
    sys.exit(main())
