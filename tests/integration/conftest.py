"""One backend per module, behind pytest-grpc's fixtures; tests that need another start it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ktrdr.operations.v1 import operations_service_pb2_grpc
from ktrdr.training.v1 import models_service_pb2_grpc, training_service_pb2_grpc
from shared.rpc.server import RpcServer
from tests.integration.hosted import backend_on
from tests.integration.running import RunningBackend, running_backend
from tests.support.hosts import ScriptedHost, scripted_host


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """The module's backend, with room for several workers and many callers."""
    home = tmp_path_factory.mktemp("home")
    with running_backend(home, training_workers=4, training_queue=100) as running:
        yield running


@pytest.fixture(scope="module")
def grpc_addr(running: RunningBackend) -> str:
    """Where pytest-grpc's channel goes."""
    return running.address


@pytest.fixture(scope="module")
def grpc_server(running: RunningBackend) -> RpcServer:
    """The server behind it, in place of pytest-grpc's own."""
    return running.backend.server


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[operations_service_pb2_grpc.OperationsServiceStub]:
    """What `grpc_stub` is: the generated stub of the operations service."""
    return operations_service_pb2_grpc.OperationsServiceStub


@pytest.fixture(scope="module")
def training_stub(grpc_channel: grpc.Channel) -> training_service_pb2_grpc.TrainingServiceStub:
    """The generated stub of the training service, on the same channel."""
    return training_service_pb2_grpc.TrainingServiceStub(grpc_channel)


@pytest.fixture(scope="module")
def models_stub(grpc_channel: grpc.Channel) -> models_service_pb2_grpc.ModelsServiceStub:
    """The generated stub of the models service, on the same channel."""
    return models_service_pb2_grpc.ModelsServiceStub(grpc_channel)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ScriptedHost]:
    """A training host whose work the test does."""
    with scripted_host(tmp_path / "host") as host:
        yield host


@pytest.fixture
def front(tmp_path: Path, host: ScriptedHost) -> Iterator[RunningBackend]:
    """A backend that trains on `host`."""
    with backend_on(tmp_path / "backend", host.address) as front:
        yield front


@pytest.fixture
def at_host(host: ScriptedHost) -> Iterator[operations_service_pb2_grpc.OperationsServiceStub]:
    """The operations of `host`, as its own clients see them."""
    with grpc.insecure_channel(host.address) as channel:
        yield operations_service_pb2_grpc.OperationsServiceStub(channel)
