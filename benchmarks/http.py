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
from typing import Any, NamedTuple

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
CACHED, MISS = "cached read", "remote miss"
KINDS: Mapping[str, Mapping[str, str]] = {CACHED: {}, MISS: {"force_refresh": "true"}}
"""The kinds of reads, and how the twin is asked for each."""
Crowd = Callable[[], int]
"""Lets the clients ask for a stay; returns how many answers there were."""


# ----------------------------------------------------------------- the two systems


class Reader(NamedTuple):
    """One kind of client of one of the systems."""

    reads: Mapping[str, Round]
    """To time, by KINDS."""
    crowd: Crowd
    """To count, of cached reads."""


@contextmanager
def both() -> Iterator[Mapping[str, Reader]]:
    """Run both systems; give the clients of each. Needs the rivals."""
    with _twin() as over_http, _ktrdr() as ours:
        yield {"ktrdr": ours, **over_http}


@contextmanager
def _ktrdr() -> Iterator[Reader]:
    with (
        remote_trainings(NEVER, KTRDR_READ_LIMIT=CLIENTS) as remote,
        grpc.insecure_channel(remote.address) as channel,
    ):
        get = OperationsServiceStub(channel).GetOperation
        cached = remote.request
        forced = pb.GetOperationRequest(operation_id=remote.resting, force_refresh=True)
        reads = {CACHED: repeated(lambda: get(cached)), MISS: repeated(lambda: get(forced))}
        yield Reader(reads, lambda: _threads(lambda: get(cached)))


@contextmanager
def _twin() -> Iterator[Mapping[str, Reader]]:
    import httpx

    from benchmarks.rivals.http_twin import OPERATION, PATH, http_twin

    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    url = f"{PATH}/{OPERATION}"
    with (
        http_twin(NEVER) as address,
        httpx.Client(base_url=address, limits=limits) as client,
        asyncio.Runner() as runner,
    ):
        later = httpx.AsyncClient(base_url=address, limits=limits)
        try:
            yield {ASYNC: _awaiting(later, url, runner), SYNC: _blocking(client, url)}
        finally:
            runner.run(later.aclose())


def _awaiting(client: Any, url: str, runner: asyncio.Runner) -> Reader:
    def read(params: Mapping[str, str]) -> Round:
        async def many(calls: int) -> None:
            for _ in range(calls):
                (await client.get(url, params=params)).raise_for_status().json()

        return lambda: lambda calls: runner.run(many(calls))

    reads = {kind: read(params) for kind, params in KINDS.items()}
    return Reader(reads, lambda: runner.run(_tasks(lambda: client.get(url))))


def _blocking(client: Any, url: str) -> Reader:
    import httpx

    def read(params: Mapping[str, str]) -> Round:
        return repeated(lambda: client.get(url, params=params).raise_for_status().json())

    def in_a_crowd() -> object:
        try:
            return client.get(url).raise_for_status().json()
        except httpx.TransportError as error:  # once in many thousand calls of 50 threads
            print(f"{SYNC} had no answer and asked once more: {error}")
            return client.get(url).raise_for_status().json()

    reads = {kind: read(params) for kind, params in KINDS.items()}
    return Reader(reads, lambda: _threads(in_a_crowd))


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
        with both() as readers:
            reads = {
                f"{name} {kind}": reader.reads[kind]
                for kind in KINDS
                for name, reader in readers.items()
            }
            times = measure(reads, calls=CALLS, rounds=ROUNDS)
            rates = count({name: reader.crowd for name, reader in readers.items()})
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
