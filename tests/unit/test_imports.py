"""The rules of who may import whom, and that nothing runs at import."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROCESSES = ("backend", "training_host", "ib_host")
GATEWAYS = ("ib_host.gateway", "ib_host.simulator")
"""Where an event loop is allowed, because IB needs one."""
EVENT_LOOPS = ("asyncio", "anyio", "trio", "uvloop", "grpc.aio")
TORCH = ("torch", "safetensors.torch")
TRAINS = {"shared.training.classifier", "shared.training.network", "shared.training.trainer"}
"""The modules that are only imported once a training starts or a model predicts."""
DATABASES = {
    "shared.operations.database",
    "shared.operations.database_faults",
    "shared.operations.migration",
    "shared.operations.migrations.forgotten",
    "shared.operations.migrations.records",
    "shared.operations.migrations.told_by",
    "shared.operations.postgres_database",
    "shared.operations.sql_connections",
    "shared.operations.sql_forgotten",
    "shared.operations.sql_metrics",
    "shared.operations.sql_pages",
    "shared.operations.sql_records",
    "shared.operations.sql_retention",
    "shared.operations.sql_schema",
    "shared.operations.sql_store",
    "shared.operations.sqlite_database",
}
"""The modules that know how records are kept in databases."""
SQL = ("sqlalchemy", "alembic", "sqlite3")
TELEMETRY = ("prometheus_client", "opentelemetry")
SPEAKS = ("servicer", "stub", "conversion", "operations.remote")
"""How the modules end that turn messages into domain values and back."""
WIRE = (
    "grpc",
    "grpc_health",
    "grpc_reflection",
    "google.longrunning",
    "google.protobuf",
    "google.rpc",
    "ktrdr",
)
STANDARD = "google.longrunning"
"""Its messages mean operations, which `shared.rpc` does not know."""


def is_in(name: str, package: str) -> bool:
    """Whether a dotted name is the package or lies in it."""
    return name == package or name.startswith(package + ".")


def imported(module: str, source: str, *, package: bool = False) -> Iterator[tuple[int, str]]:
    """Give every import of a module, wherever it stands: line and full dotted name."""
    parts = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(names=names, module=origin, level=level):
                base = parts[: len(parts) - level + 1] if level else []
                whole = ".".join([*base, *([origin] if origin else [])])
                yield from ((node.lineno, f"{whole}.{alias.name}") for alias in names)
            case ast.Call(args=[ast.Constant(value=str(name)), *_], func=func):
                called = ast.unparse(func)
                if called in {"__import__", "import_module", "importlib.import_module"}:
                    yield node.lineno, name


def faults(module: str, source: str, *, package: bool = False) -> list[str]:
    """Name every import of a module that breaks a rule."""
    return [
        f"{module}:{line} imports {name}: {rule}"
        for line, name in imported(module, source, package=package)
        for rule in (_direction(module, name), _wire(module, name), _heavy(module, name))
        if rule
    ]


def _direction(module: str, name: str) -> str:
    own, other = module.partition(".")[0], name.partition(".")[0]
    if other in {"tests", "benchmarks", "docs"}:
        return "only tests, benchmarks and documents import these"
    if other in PROCESSES and own not in PROCESSES:
        return "imports point one way: ktrdr, shared, processes"
    if other in PROCESSES and own != other:
        return "no process imports another"
    if is_in(module, "backend.cli") and other == "backend" and not is_in(name, "backend.cli"):
        return "the command imports only shared and ktrdr"
    return ""


def _wire(module: str, name: str) -> str:
    kind = next((package for package in WIRE if is_in(name, package)), None)
    if kind is None or is_in(module, "backend.cli"):
        return ""
    if module.endswith(SPEAKS):
        return ""
    if is_in(module, "shared.rpc") and kind not in {"ktrdr", STANDARD}:
        return ""
    return "messages and gRPC stop at servicers, stubs and conversion modules"


def _heavy(module: str, name: str) -> str:  # noqa: PLR0911  # a list of rules
    if any(is_in(name, package) for package in TORCH) and not is_in(module, "shared.training"):
        return "torch belongs to shared.training"
    allowed_loop = any(is_in(module, gateway) for gateway in GATEWAYS)
    if any(is_in(name, package) for package in EVENT_LOOPS) and not allowed_loop:
        return "no event loop exists here"
    if is_in(name, "ib_insync") and module != "ib_host.gateway.connection":
        return "only the gateway's connection imports ib_insync"
    if any(is_in(name, package) for package in SQL) and module not in DATABASES:
        return "databases belong to the modules that keep records in them"
    if is_in(name, "psycopg") and module != "shared.operations.postgres_database":
        return "only the database of PostgreSQL imports psycopg"
    if any(is_in(name, each) for each in TELEMETRY) and not is_in(module, "shared.monitoring"):
        return "what watches over a process belongs to shared.monitoring"
    return ""


def sources() -> dict[str, Path]:
    """Every handwritten module of the program: its name and its file."""
    found: dict[str, Path] = {}
    for package in ("shared", *PROCESSES):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def in_fresh_process(program: str) -> object:
    """Run a program in an interpreter of its own; return the JSON it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer: object = json.loads(done.stdout)
    return answer


def loaded_by(modules: list[str], suspects: list[str]) -> object:
    """Which of the suspects are loaded once these modules are imported."""
    return in_fresh_process(
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {suspects!r} if name in sys.modules]))"
    )


# ----------------------------------------------------------------- the checker itself


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("shared.rpc.server", "import backend.settings", "one way"),
        ("shared.rpc.server", "from backend import settings", "one way"),
        ("shared.clock", "def f():\n    from ib_host.gateway import Gateway", "one way"),
        ("shared.clock", "import importlib\nimportlib.import_module('backend.x')", "one way"),
        ("shared.clock", "from tests.support import clock", "only tests"),
        ("backend.data", "import training_host", "no process"),
        ("ib_host.servicer", "from backend.settings import BackendSettings", "no process"),
        ("backend.cli.app", "from backend.settings import BackendSettings", "only shared"),
        ("backend.cli.app", "from ..settings import BackendSettings", "only shared"),
        ("backend.cli.app", "from .. import settings", "only shared"),
        ("shared.operations.service", "from ktrdr.operations.v1 import operation_pb2", "stop at"),
        ("shared.operations.service", "import ktrdr.operations.v1.operation_pb2", "stop at"),
        ("shared.operations.live", "from google.protobuf.any_pb2 import Any", "stop at"),
        ("shared.operations.waits", "from google.longrunning import operations_pb2", "stop at"),
        ("shared.rpc.server", "import google.longrunning.operations_pb2", "stop at"),
        ("backend.__main__", "from google.longrunning.operations_pb2 import Operation", "stop at"),
        ("shared.training.orchestrator", "import grpc", "stop at"),
        ("shared.rpc.paging", "from ktrdr.operations.v1 import operation_pb2", "stop at"),
        ("backend.__main__", "from ktrdr.training.v1 import training_pb2", "stop at"),
        ("backend.__main__", "from ktrdr.training.v1 import training_service_pb2_grpc", "stop at"),
        ("backend.__main__", "import torch", "torch belongs"),
        ("backend.cli.plot", "from torch.nn import Module", "torch belongs"),
        ("shared.operations.model", "from torch import Tensor", "torch belongs"),
        ("shared.marketdata.bars", "import safetensors.torch", "torch belongs"),
        ("shared.operations.bridge", "import asyncio", "no event loop"),
        ("shared.rpc.server", "from grpc import aio", "no event loop"),
        ("backend.cli.watch", "if True:\n    from asyncio import run", "no event loop"),
        ("ib_host.loader", "from ib_insync import IB", "only the gateway"),
        ("ib_host.gateway.gateway", "import ib_insync", "only the gateway's connection"),
        ("shared.operations.service", "from sqlalchemy import select", "databases belong"),
        ("backend.__main__", "import sqlite3", "databases belong"),
        ("shared.operations.sql_store", "import psycopg", "only the database of PostgreSQL"),
        ("shared.operations.refresh", "import prometheus_client", "what watches"),
        ("shared.rpc.server", "from opentelemetry import trace", "what watches"),
    ],
)
def test_the_checker_catches(module: str, source: str, rule: str) -> None:
    found = faults(module, source)
    assert len(found) == 1
    assert rule in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("shared.operations.servicer", "from ktrdr.operations.v1 import operation_pb2 as pb"),
        ("shared.operations.remote_stub", "import grpc"),
        ("shared.operations.x_servicer", "from google.longrunning import operations_pb2 as lro"),
        ("shared.rpc.status", "from google.rpc import status_pb2"),
        ("shared.training.trainer", "import torch"),
        ("backend.__main__", "from backend.settings import BackendSettings"),
        ("backend.cli.client", "import grpc\nfrom ktrdr.operations.v1 import operation_pb2"),
        ("backend.cli.app", "from .commands import models\nfrom backend.cli import pace"),
        ("backend.cli.tables", "from shared.operations.model import Operation"),
        ("ib_host.gateway.connection", "import asyncio\nimport ib_insync"),
        ("shared.operations.sql_store", "from sqlalchemy import select"),
        ("shared.operations.postgres_database", "import psycopg"),
        ("backend.__main__", "from shared.operations.database import open_store"),
        ("shared.x", "import backend_of_somebody\nimport torchvision_not\nimport grpcx"),
        ("shared.x", '"""import backend"""\nname = "import torch"\nprint("backend.cli")'),
    ],
)
def test_the_checker_lets_pass(module: str, source: str) -> None:
    assert faults(module, source) == []


def test_the_checker_sees_relative_imports_of_packages() -> None:
    found = imported("backend.cli", "from . import app\nfrom ..x import y", package=True)
    assert [name for _, name in found] == ["backend.cli.app", "backend.x.y"]


def test_the_checker_sees_the_modules_there_are() -> None:
    assert {"shared.rpc.server", "backend.__main__", "backend.cli.app", "shared"} <= set(SOURCES)
    assert set(SOURCES) >= TRAINS | DATABASES


# ------------------------------------------------------------------------- the rules


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_keeps_the_rules(module: str) -> None:
    path = SOURCES[module]
    package = path.name == "__init__.py"
    assert faults(module, path.read_text(encoding="utf-8"), package=package) == []


def test_the_contract_is_generated_and_knows_nobody() -> None:
    files = list((ROOT / "protos/gen").rglob("*.py"))
    assert [path.name for path in files if not path.stem.endswith(("_pb2", "_pb2_grpc"))] == []
    known = {
        name.split(".")[0]
        for path in files
        for _, name in imported(path.stem, path.read_text(encoding="utf-8"))
    }
    assert known & {"shared", "tests", *PROCESSES} == set()


def test_torch_is_only_loaded_once_a_training_starts() -> None:
    light = [module for module in SOURCES if module not in TRAINS]
    assert loaded_by(light, ["torch"]) == []


def test_the_command_starts_without_heavy_modules() -> None:
    heavy = ["torch", "grpc", "numpy", "pandas", "talib", "matplotlib", "shared.training.strategy"]
    sql = [name for name in SQL if name != "sqlite3"]  # which coverage uses as well
    assert loaded_by(["backend.cli.app"], [*heavy, *sql, "psycopg", STANDARD]) == []


def test_psycopg_is_only_loaded_for_a_database_of_postgresql() -> None:
    light = [module for module in SOURCES if module != "shared.operations.postgres_database"]
    assert loaded_by(light, ["psycopg"]) == []


def test_nothing_that_watches_is_loaded_unless_it_is_asked_for() -> None:
    roots = [f"{process}.__main__" for process in PROCESSES]
    assert loaded_by([*roots, "backend.cli.app"], [*TELEMETRY]) == []


def test_nothing_runs_at_import() -> None:
    left = in_fresh_process(
        "import importlib, json, logging, signal, sys, threading\n"
        "interval = sys.getswitchinterval()\n"
        "interrupt = signal.getsignal(signal.SIGINT)\n"
        f"for name in {[*SOURCES]!r}: importlib.import_module(name)\n"
        "print(json.dumps({\n"
        "    'threads': [t.name for t in threading.enumerate()],\n"
        "    'handlers': len(logging.getLogger().handlers),\n"
        "    'ktrdr level': logging.getLogger('ktrdr').level,\n"
        "    'signals': [signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,\n"
        "                signal.getsignal(signal.SIGINT) is interrupt],\n"
        "    'switch interval': sys.getswitchinterval() == interval,\n"
        "    'torch, by those that train': 'torch' in sys.modules,\n"
        "}))"
    )
    assert left == {
        "threads": ["MainThread"],
        "handlers": 0,
        "ktrdr level": 0,
        "signals": [True, True],
        "switch interval": True,
        "torch, by those that train": True,
    }
