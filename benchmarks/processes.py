"""The processes that measurements need: real ones, and a bare echo.

All listen on the loopback address, each in a process of its own, so that none
is measured while it shares an interpreter with its caller.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc

from backend.program import ROOT, Program
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.process import SWITCH_INTERVAL

STRATEGY = ROOT / "strategies" / "small.yaml"
READY_WITHIN = 60.0
ECHO = "/benchmarks.Echo/Echo"


def long_training() -> str:
    """The small strategy with more epochs than any measurement lasts."""
    text, replaced = re.subn(r"\bepochs: \d+", "epochs: 10000", STRATEGY.read_text("utf-8"))
    assert replaced == 1, f"{STRATEGY} does not say once how many epochs it has"
    return text


def program(module: str, home: Path, **settings: object) -> Program:
    """Run `python -m module` with its files in `home`.

    It has these settings and no others, whatever the shell has, and traces nothing.
    """
    told = {name: str(value) for name, value in settings.items()}
    return Program(module, home, home / f"{module}.log", {"OTEL_TRACES_EXPORTER": "none", **told})


@contextmanager
def spawned(
    serve: Callable[..., None], *arguments: object, within: float = READY_WITHIN
) -> Iterator[tuple[Any, Connection]]:
    """Run `serve(connection, *arguments)` in a process that first sends its address, or a result.

    Fails if nothing is sent `within` seconds. To receive from a process that has
    ended raises EOFError.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, *arguments))
    process.start()
    there.close()  # so that its end is seen as the end of the connection
    try:
        yield _first(here, within), here
    finally:
        with suppress(OSError):
            here.send(None)
        process.join(15.0)
        if process.is_alive():
            process.kill()
            process.join()
        here.close()


def _first(here: Connection, within: float) -> object:
    with suppress(EOFError):
        if here.poll(within):
            return here.recv()
    raise AssertionError("the process did not start; it has said why")


def halves() -> tuple[frozenset[int], frozenset[int]]:
    """The processors in two halves, for what is measured and for those who ask; one is both."""
    numbers = sorted(os.sched_getaffinity(0))
    middle = len(numbers) // 2
    return frozenset(numbers[middle:]), frozenset(numbers[:middle] or numbers)


@contextmanager
def on_processors(numbers: Collection[int]) -> Iterator[None]:
    """Have this thread, and what it starts, run on these while the block runs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def peak_memory(process: int | str = "self") -> int:
    """Return the most bytes a process has had in memory so far.

    The kernel counts them anew at every exec, as it does not for getrusage: there a
    process that was spawned begins with the peak of the one that spawned it.
    """
    status = Path(f"/proc/{process}/status").read_text("ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, "this system does not say what memory a process took"
    return int(found[1]) * 1024


# ------------------------------------------------------------------------ echo


@contextmanager
def echo_server() -> Iterator[str]:
    """Serve a bare gRPC echo of GetOperation's answer: no interceptor, no option, no work."""
    with spawned(_serve_echo) as (address, _):
        yield address


def _serve_echo(told: Connection) -> None:
    _serve_method(told, lambda request, _: request)


def _serve_method(told: Connection, behaviour: Callable[[Any, Any], Any]) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL)
    server = grpc.server(ThreadPoolExecutor(26))
    handler = grpc.unary_unary_rpc_method_handler(
        behaviour,
        pb.GetOperationResponse.FromString,
        pb.GetOperationResponse.SerializeToString,
    )
    service, _, method = ECHO.lstrip("/").partition("/")
    generic = grpc.method_handlers_generic_handler(service, {method: handler})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    told.send(f"127.0.0.1:{port}")
    told.recv()
    server.stop(None).wait()


@contextmanager
def relay_server(target: str) -> Iterator[str]:
    """Serve what passes the echo's calls on to it and does nothing else: the limit of a proxy."""
    with spawned(_serve_relay, target) as (address, _):
        yield address


def _serve_relay(told: Connection, target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        echo = echo_on(channel)
        _serve_method(told, lambda request, _: echo(request))


def echo_on(channel: grpc.Channel) -> Callable[[pb.GetOperationResponse], pb.GetOperationResponse]:
    """The echo's stub."""
    call: Any = channel.unary_unary(
        ECHO, pb.GetOperationResponse.SerializeToString, pb.GetOperationResponse.FromString
    )
    echo: Callable[[pb.GetOperationResponse], pb.GetOperationResponse] = call
    return echo
