"""The processes that measurements need: real ones, and a bare echo.

All listen on the loopback address, each in a process of its own, so that none
is measured while it shares an interpreter with its caller.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import grpc

from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.process import SWITCH_INTERVAL

ROOT = Path(__file__).resolve().parents[1]
STRATEGY = ROOT / "strategies" / "small.yaml"
READY_WITHIN = 60.0
ECHO = "/benchmarks.Echo/Echo"


@contextmanager
def program(module: str, home: Path, **settings: object) -> Iterator[tuple[str, int]]:
    """Run `python -m module` with its files in `home`; give its address and process id."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("KTRDR_")}
    process = subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**kept, "KTRDR_HOME": str(home)} | {name: str(v) for name, v in settings.items()},
        stdout=subprocess.PIPE,
        stderr=(home / f"{module}.log").open("w"),
        text=True,
    )
    try:
        yield _address(process), process.pid
    finally:
        process.terminate()
        try:
            process.wait(15.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[str]) -> str:
    impatience = threading.Timer(READY_WITHIN, process.kill)
    impatience.start()
    try:
        line = process.stdout.readline() if process.stdout else ""
    finally:
        impatience.cancel()
    assert " ready on " in line, "the process did not start; its log says why"
    return line.rpartition(" ready on ")[2].strip()


@contextmanager
def spawned(serve: Callable[..., None], *arguments: object) -> Iterator[tuple[str, Connection]]:
    """Run `serve(connection, *arguments)` in a process that first sends its address."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, *arguments))
    process.start()
    try:
        wait([here, process.sentinel], READY_WITHIN)  # it may as well end
        assert here.poll(0.0), "the process did not start; it has said why"
        yield here.recv(), here
    finally:
        with suppress(OSError):
            here.send(None)
        process.join(15.0)
        if process.is_alive():
            process.kill()
            process.join()


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
