from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.rpc.health import OVERALL, HealthServicer
from shared.rpc.server import ServerLimits
from tests.support.eventually import eventually
from tests.support.rpc import (
    PROBE,
    TIMEOUT,
    Wire,
    failure_of,
    probe,
    required,
    served,
    status_in,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def stub(wire: Wire) -> Any:
    return health_pb2_grpc.HealthStub(wire.channel)


def asked(service: str = OVERALL) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


class Call:
    """A call of a client that leaves when the test says so."""

    def __init__(self) -> None:
        self.leave: list[Callable[[], None]] = []
        self.gone = False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Keep the callback, unless the client has left."""
        if not self.gone:
            self.leave.append(callback)
        return not self.gone


def test_an_unknown_service_is_not_found_by_name() -> None:
    with served([]) as wire:
        failure = failure_of(lambda: stub(wire).Check(asked("no.such"), timeout=TIMEOUT))
    assert failure.code() is grpc.StatusCode.NOT_FOUND
    info = required(status_in(failure), error_details_pb2.ErrorInfo)
    assert (info.reason, info.metadata["service"]) == ("SERVICE_NOT_FOUND", "no.such")


def test_watchers_that_come_and_go_do_not_stop_the_server() -> None:
    with served([]) as wire:

        def come_and_go(number: int) -> None:
            for index in range(60):
                call = stub(wire).Watch(asked(), timeout=TIMEOUT)
                if index % 2:
                    next(call)
                call.cancel()

        with ThreadPoolExecutor(8) as clients:
            list(clients.map(come_and_go, range(8)))
        assert stub(wire).Check(asked(), timeout=TIMEOUT).status == SERVING
        eventually(lambda: not wire.server._health._watchers)


@pytest.mark.parametrize("first", [True, False])
def test_a_watcher_that_takes_nothing_holds_up_nobody(first: bool) -> None:
    health = HealthServicer([PROBE])
    stuck, released = threading.Event(), threading.Event()

    def never_taken(response: Any) -> None:
        if first or response.status == NOT_SERVING:
            stuck.set()
            released.wait(TIMEOUT)

    slow, quick = Call(), Call()
    told: list[int] = []
    watching = threading.Thread(target=health.Watch, args=(asked(), slow, never_taken))
    watching.start()
    if first:
        stuck.wait(TIMEOUT)
    context: Any = quick
    health.Watch(asked(PROBE), context, lambda response: told.append(response.status))
    assert told == [SERVING]
    health.stop_serving()
    assert stuck.wait(TIMEOUT)
    slow.leave[0]()
    quick.leave[0]()
    assert health.Check(asked(PROBE), context).status == NOT_SERVING
    assert health._watchers == set()
    released.set()
    watching.join(TIMEOUT)


def test_every_service_is_listed_with_its_status() -> None:
    everything = health_pb2.HealthListRequest()  # type: ignore[attr-defined]  # missing in the stubs
    with served([probe({})]) as wire:
        listed = stub(wire).List(everything, timeout=TIMEOUT).statuses
        assert {OVERALL: SERVING, PROBE: SERVING} == {n: s.status for n, s in listed.items()}
        wire.server.announce_stopping()
        listed = stub(wire).List(everything, timeout=TIMEOUT).statuses
        assert {NOT_SERVING} == {status.status for status in listed.values()}


def test_only_so_many_may_watch() -> None:
    limits = ServerLimits(watchers=2)
    with served([], limits) as wire:
        watchers = [stub(wire).Watch(asked(), timeout=TIMEOUT) for _ in range(2)]
        assert {next(watcher).status for watcher in watchers} == {SERVING}
        failure = failure_of(lambda: next(stub(wire).Watch(asked(), timeout=TIMEOUT)))
        info = required(status_in(failure), error_details_pb2.ErrorInfo)
        assert ("TOO_MANY_WATCHERS", "2") == (info.reason, info.metadata["limit"])
        watchers[0].cancel()
        eventually(lambda: len(wire.server._health._watchers) == 1)
        assert next(stub(wire).Watch(asked(), timeout=TIMEOUT)).status == SERVING


def test_a_change_is_told_once_and_in_order() -> None:
    health = HealthServicer([])
    context: Any = Call()
    told: list[int] = []
    health.Watch(asked(), context, lambda response: told.append(response.status))
    health.stop_serving()
    eventually(lambda: told == [SERVING, NOT_SERVING])
    health.stop_serving()
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "rpc-health"])
    assert told == [SERVING, NOT_SERVING]


def test_a_watcher_that_left_before_it_was_served_is_forgotten() -> None:
    health = HealthServicer([])
    call = Call()
    call.gone = True
    context: Any = call
    health.Watch(asked(), context, lambda response: None)
    assert health._watchers == set()
