"""A backend that trains on one host, with a network in between that a test can break."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.instance import Instance
from shared.operations.id_prefixes import HOST_TRAINING
from tests.integration.running import RunningBackend, running_backend
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost, new_instance, scripted_host
from tests.support.relay import Relay
from tests.support.scripted_work import ScriptedWork

TIMEOUT = 20.0
"""Seconds a call has that is not about its deadline; reads of a host take 5 of them at most."""


@dataclass(slots=True)
class Hosted:
    """The two processes and what lies between them."""

    host: ScriptedHost
    relay: Relay
    running: RunningBackend

    def training(self, epochs: int = 3, **fields: Any) -> tuple[str, ScriptedWork]:
        """Start a training that has reported some epochs, read once; its id here and its work."""
        operation_id = self.running.train(**fields)
        work = self.host.work(operation_id)
        work.report_epochs(epochs)
        assert len(self.epochs(operation_id)) == epochs
        return operation_id, work

    def look(
        self, operation_id: str, *, timeout: float = TIMEOUT, **fields: Any
    ) -> pb.GetOperationResponse:
        """GetOperation within `timeout` seconds; the backend is content with what can be had."""
        request = pb.GetOperationRequest(operation_id=operation_id, **fields)
        answer: pb.GetOperationResponse = self.running.operations.GetOperation(
            request, timeout=timeout
        )
        return answer

    def refresh_error(self, operation_id: str) -> operation_pb2.OperationError:
        """Why a look brings nothing new; its reason is empty if it does."""
        return self.look(operation_id).operation.freshness.refresh_error

    def epochs(self, operation_id: str) -> list[int]:
        """The steps of all metrics, read now."""
        return self.running.epochs(operation_id)

    def known_epochs(self, operation_id: str) -> list[int]:
        """The steps of all metrics the backend knows, whether or not it can ask for more."""
        return [metric.step for metric in self.look(operation_id, metrics_cursor=0).metrics]

    def lead_to(self, target: str) -> None:
        """Let another process be at the host's address, as the backend sees it."""
        self.relay.lead_to(target)


@contextmanager
def hosted(home: Path, *, cache_ttl: float = 0.0, **options: Any) -> Iterator[Hosted]:
    """Serve the two; options as ScriptedHost's. Unless told otherwise, every look asks the host."""
    with (
        scripted_host(home / "host", **options) as host,
        closing(Relay(host.address)) as relay,
        backend_on(home, relay.address, cache_ttl=cache_ttl) as running,
    ):
        yield Hosted(host, relay, running)
        let_end(host)


@contextmanager
def backend_on(home: Path, *targets: str, **settings: Any) -> Iterator[RunningBackend]:
    """Serve a backend that trains on the hosts at these addresses."""
    with running_backend(
        home, training_mode="host", TRAINING_HOST_SERVICE_URL=targets, **settings
    ) as running:
        yield running


def let_end(*hosts: ScriptedHost) -> None:
    """Let the work of hosts end, so that stopping them takes no time."""
    for host in hosts:
        for work in list(host.works.values()):
            work.finish()
    eventually(lambda: not any(host.operations._local() for host in hosts))


@contextmanager
def restarted(host: ScriptedHost, home: Path) -> Iterator[ScriptedHost]:
    """Kill a host and serve it anew at its address: the same instance, knowing nothing."""
    host.vanish()
    instance = Instance(host.instance.id, new_instance().incarnation)
    with scripted_host(home / "again", address=host.address, instance=instance) as again:
        yield again
        let_end(again)


def host_id(operation_id: str) -> str:
    """What a host calls the operation that a backend calls so."""
    return HOST_TRAINING + operation_id
