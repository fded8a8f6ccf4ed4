"""What live processes expose for Prometheus, compared with what the documents say."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub
from tests.support.eventually import eventually
from tests.support.processes import KtrdrProcess
from tests.support.programs import ROOT, SMALL
from tests.support.scraping import Exposed, documented, scrape, url_in

GET = "ktrdr.operations.v1.OperationsService/GetOperation"
DOCUMENTED = documented()
pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Watched:
    """A process whose metrics can be read."""

    process: KtrdrProcess

    def scrape(self) -> Exposed:
        return scrape(url_in(self.process.log.read_text()))


@dataclass(frozen=True, slots=True)
class Pair:
    """A training host and the backend that stands in for a training there, which has ended."""

    backend: Watched
    host: Watched
    operation_id: str


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        home = tmp_path_factory.mktemp("metrics")
        host = stack.enter_context(
            KtrdrProcess("training_host", home / "host", KTRDR_METRICS_PORT="0")
        )
        backend = stack.enter_context(
            KtrdrProcess(
                "backend",
                home / "backend",
                KTRDR_TRAINING_MODE="host",
                TRAINING_HOST_SERVICE_URL=host.address,
                KTRDR_METRICS_PORT="0",
            )
        )
        request = training_service_pb2.StartTrainingRequest(strategy_yaml=SMALL.read_text("utf-8"))
        training = TrainingServiceStub(backend.channel).StartTraining(request, timeout=10)
        operation_id = training.operation.operation_id
        assert backend.look(operation_id).operation.operation_id == operation_id
        backend.ended(operation_id)
        with suppress(grpc.RpcError):
            backend.look("nobody's")
        yield Pair(Watched(backend), Watched(host), operation_id)


@pytest.fixture(params=["backend", "host"])
def exposed(request: pytest.FixtureRequest, pair: Pair) -> Exposed:
    watched: Watched = getattr(pair, request.param)
    return watched.scrape()


def test_the_documents_name_what_a_process_exposes_and_no_more(exposed: Exposed) -> None:
    ours = {name: kind for name, kind in exposed.kinds.items() if name.startswith("ktrdr_")}
    assert {name: row.kind for name, row in DOCUMENTED.items()} == ours


def test_the_labels_are_those_that_the_documents_name(exposed: Exposed) -> None:
    for name, labels in exposed.labels.items():
        if name in DOCUMENTED:
            assert DOCUMENTED[name].labels == labels, name


def test_the_process_itself_is_exposed_as_well(exposed: Exposed) -> None:
    assert exposed.value("process_resident_memory_bytes") > 0


def test_no_label_holds_an_id_an_address_or_a_symbol(pair: Pair, exposed: Exposed) -> None:
    values = {value for _, labels in exposed.samples for _, value in labels}
    secrets = [pair.operation_id, pair.host.process.address, "IBM", "127.0.0.1"]
    assert [] == [value for value in values for secret in secrets if secret in value]


def test_an_operation_is_counted_where_it_runs_and_where_it_is_stood_in_for(
    exposed: Exposed,
) -> None:
    assert 1 == exposed.value("ktrdr_operations_created_total", type="TRAINING")
    ended = "ktrdr_operations_ended_total"
    assert 1 == exposed.value(ended, type="TRAINING", status="COMPLETED")
    assert 0 == exposed.value(ended, type="TRAINING", status="FAILED")
    assert 0 == exposed.value("ktrdr_operations_active", type="TRAINING", status="RUNNING")


def test_a_backend_reads_another_process_and_a_host_its_bridges(pair: Pair) -> None:
    count = "ktrdr_refresh_duration_seconds_count"
    backend, host = pair.backend.scrape(), pair.host.scrape()
    assert backend.value(count, source="remote") > 0
    assert 0 == backend.value(count, source="local")
    assert host.value(count, source="local") > 0
    assert 0 == host.value(count, source="remote")


def test_the_hit_ratio_is_that_of_hits_and_misses(exposed: Exposed) -> None:
    hits = exposed.value("ktrdr_cache_hits_total", type="TRAINING")
    misses = exposed.value("ktrdr_cache_misses_total", type="TRAINING")
    assert hits / (hits + misses) == exposed.value("ktrdr_cache_hit_ratio", type="TRAINING")


def test_calls_are_counted_by_method_and_status(pair: Pair) -> None:
    exposed = pair.backend.scrape()
    assert 1 == exposed.value("ktrdr_rpc_calls_total", method=GET, code="NOT_FOUND")
    assert 1 == exposed.value("ktrdr_rpc_calls_total", method=GET, code="OK")
    assert 2 == exposed.value("ktrdr_rpc_duration_seconds_count", method=GET)


def test_the_size_of_metrics_is_counted_in_bytes(pair: Pair) -> None:
    before = pair.backend.scrape()
    answer = pair.backend.process.look(pair.operation_id)
    after = pair.backend.scrape()
    name = "ktrdr_metrics_pull_bytes_sum"
    size = sum(metric.ByteSize() for metric in answer.metrics)
    assert size > 0
    assert size == after.value(name) - before.value(name)


def test_workers_and_their_queue_are_exposed(pair: Pair) -> None:
    host = pair.host.scrape()
    assert 1 == host.value("ktrdr_workers", pool="training")
    assert 0 == host.value("ktrdr_workers_busy", pool="training")
    assert 0 == host.value("ktrdr_worker_queue_length", pool="training")


def test_a_process_exposes_nothing_unless_told_to(tmp_path: Path) -> None:
    with KtrdrProcess("backend", tmp_path) as backend:
        assert "Metrics on" not in backend.log.read_text()


def test_a_port_that_is_taken_stops_the_start_with_the_mend(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "backend"],
            cwd=ROOT,
            env={
                "KTRDR_HOME": str(tmp_path),
                "KTRDR_BACKEND_ADDRESS": "127.0.0.1:0",
                "KTRDR_METRICS_PORT": str(port),
                "PYTHONPATH": ":".join(path for path in sys.path if path),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert 2 == done.returncode
    assert f"KTRDR_METRICS_PORT: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_away_is_told_until_it_is_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        host = stack.enter_context(KtrdrProcess("training_host", tmp_path / "host"))
        backend = stack.enter_context(
            KtrdrProcess(
                "backend",
                tmp_path / "backend",
                KTRDR_TRAINING_MODE="host",
                TRAINING_HOST_SERVICE_URL=host.address,
                OPERATIONS_CACHE_TTL="0",
                KTRDR_METRICS_PORT="0",
            )
        )
        strategy = SMALL.read_text("utf-8")
        request = training_service_pb2.StartTrainingRequest(
            strategy_yaml=strategy, overrides={"model.training.epochs": "10000"}
        )
        training = TrainingServiceStub(backend.channel).StartTraining(request, timeout=10)
        host.kill()
        ask = pb.GetOperationRequest(operation_id=training.operation.operation_id)
        for _ in range(5):
            backend.operations.GetOperation(ask, timeout=10)
        assert 1 == Watched(backend).scrape().value("ktrdr_targets_unreachable")
        assert 1 == backend.log.read_text().count(f"{host.address} does not answer: ")
        again = stack.enter_context(
            KtrdrProcess(
                "training_host", tmp_path / "host", KTRDR_TRAINING_HOST_ADDRESS=host.address
            )
        )
        assert host.address == again.address

        def is_back() -> bool:
            backend.operations.GetOperation(ask, timeout=10)
            return f"{host.address} answers again, after " in backend.log.read_text()

        eventually(is_back, within=20)
        assert 0 == Watched(backend).scrape().value("ktrdr_targets_unreachable")
