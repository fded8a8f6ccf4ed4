"""Every method of every process, called with every kind of token there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from backend.__main__ import build_backend
from backend.settings import BackendSettings
from ib_host.__main__ import build_ib_host
from ib_host.settings import IbHostSettings
from shared.operations.memory_store import MemoryOperationStore
from shared.process import Process, stop
from shared.rpc.channel import open_channel
from tests.integration.refusals import refusal_of
from tests.integration.running import BARS
from tests.support.certificates import READ, STRANGE, WRITE, bearer, tokens_file
from tests.support.contract import METHODS, SERVICES, STANDARD
from tests.support.hosts import new_instance
from training_host.__main__ import build_training_host
from training_host.settings import TrainingHostSettings

WRITING = {"StartTraining", "StartDataLoad", "CancelOperation", "DeleteOperation"}
OPEN = {"grpc.health.v1.Health"}
OTHERS = OPEN | {"grpc.reflection.v1alpha.ServerReflection"}
NOTHING = b""
"""A request that says nothing: whoever is let in begins nothing with it."""


def backend(home: Path, tokens: Path) -> Process:
    settings = BackendSettings(backend_address="127.0.0.1:0", home=home, tokens_file=tokens)
    return build_backend(settings, new_instance(), MemoryOperationStore(), BARS)


def training_host(home: Path, tokens: Path) -> Process:
    settings = TrainingHostSettings(
        training_host_address="127.0.0.1:0", home=home, tokens_file=tokens
    )
    return build_training_host(settings, new_instance(), MemoryOperationStore(), BARS)


def ib_host(home: Path, tokens: Path) -> Process:
    settings = IbHostSettings(ib_host_address="127.0.0.1:0", home=home, tokens_file=tokens)
    return build_ib_host(settings, new_instance(), MemoryOperationStore(), BARS)


PROCESSES: dict[str, Callable[[Path, Path], Process]] = {
    "backend": backend,
    "training_host": training_host,
    "ib_host": ib_host,
}


@contextmanager
def running(name: str, home: Path) -> Iterator[grpc.Channel]:
    process = PROCESSES[name](home, tokens_file(home))
    address = process.server.bind()
    process.server.start()
    try:
        with open_channel(address) as channel:
            yield channel
    finally:
        stop(process.server, process.operations, process.pools, grace=0.0)


@pytest.fixture(scope="module", params=PROCESSES)
def process(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[grpc.Channel]:
    """One of the processes, which wants tokens."""
    with running(request.param, tmp_path_factory.mktemp("home")) as channel:
        yield channel


def served_by(channel: grpc.Channel) -> set[str]:
    """The services of a process, as it tells."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = stub.ServerReflectionInfo(asked, metadata=bearer(READ), timeout=5)
    return {service.name for service in answer.list_services_response.service}


def methods_of(channel: grpc.Channel) -> list[MethodDescriptor]:
    """Every method of the contract that a process serves."""
    served = served_by(channel)
    known = {service.full_name for service in (*SERVICES, STANDARD)}
    assert served <= known | OTHERS, "a service that no contract knows"
    methods = (*METHODS, *STANDARD.methods)
    return [method for method in methods if method.containing_service.full_name in served]


def call(channel: Any, method: MethodDescriptor, metadata: Any) -> None:
    """Call a method with a request that says nothing."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.server_streaming:
        list(channel.unary_stream(path)(NOTHING, metadata=metadata, timeout=5))
    else:
        channel.unary_unary(path)(NOTHING, metadata=metadata, timeout=5)


def outcomes(channel: grpc.Channel, metadata: Any) -> dict[str, str]:
    """How a call of every method ends, by its full name: the reason, or that it was let in."""
    found = {}
    for method in methods_of(channel):
        try:
            call(channel, method, metadata)
            found[method.full_name] = "let in"
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            kept_out = refusal.code.name in {"UNAUTHENTICATED", "PERMISSION_DENIED"}
            found[method.full_name] = refusal.reason if kept_out else "let in"
    assert found
    return found


def test_all_services_of_the_contract_are_served_by_some_process(tmp_path: Path) -> None:
    served = set()
    for name in PROCESSES:
        home = tmp_path / name
        home.mkdir()
        with running(name, home) as channel:
            served |= served_by(channel)
    assert {service.full_name for service in (*SERVICES, STANDARD)} == served - OTHERS


@pytest.mark.parametrize(
    ("metadata", "reason"), [((), "TOKEN_MISSING"), (bearer(STRANGE), "TOKEN_UNKNOWN")]
)
def test_nothing_is_done_for_who_is_not_known(
    process: grpc.Channel, metadata: Any, reason: str
) -> None:
    assert {reason} == set(outcomes(process, metadata).values())


def test_a_token_to_read_only_reads(process: grpc.Channel) -> None:
    found = outcomes(process, bearer(READ))
    expected = {
        name: "WRITE_SCOPE_NEEDED" if name.rpartition(".")[2] in WRITING else "let in"
        for name in found
    }
    assert expected == found
    assert f"{STANDARD.full_name}.CancelOperation" in found


def test_a_token_to_write_does_everything(process: grpc.Channel) -> None:
    assert {"let in"} == set(outcomes(process, bearer(WRITE)).values())
