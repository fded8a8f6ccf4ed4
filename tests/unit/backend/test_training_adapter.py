from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import inf
from pathlib import Path

import pytest
from google.protobuf.message import Message

from backend.training_adapter import TrainingAdapter, TrainingHost
from backend.training_stub import TrainingStatus
from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as operations_pb
from ktrdr.training.v1 import training_host_service_pb2 as host_pb
from ktrdr.training.v1 import training_service_pb2 as pb
from shared.operations.conversion import view_to_proto
from shared.operations.id_prefixes import HOST_TRAINING
from shared.operations.model import (
    Freshness,
    FreshnessSource,
    Hop,
    OperationStatus,
    Owner,
)
from shared.operations.views import OperationView
from shared.rpc.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    HostUnreachableError,
    InvalidArgumentError,
    KtrdrError,
    NotFoundError,
    OperationNotFoundError,
    ProcessStoppingError,
    ResourceExhaustedError,
    StoreUnavailableError,
    UnavailableError,
)
from shared.training.launcher import TrainingOrder
from shared.training.request import TrainingRequest
from shared.training.strategy import load_strategy
from tests.support.answering import Answer, Answering, answering, channel_to
from tests.support.rpc import TIMEOUT
from tests.unit.operations.fakes import Setup, new_operation, operation

S = OperationStatus
SMALL = (Path(__file__).parents[3] / "strategies" / "small.yaml").read_text("utf-8")
ORDER = TrainingOrder("op", load_strategy(SMALL), TrainingRequest())
HOST_ID = f"{HOST_TRAINING}op"
FULL = ResourceExhaustedError("All workers are busy.", retry_after=7.0, reason="WORKERS_BUSY")
LOOP = FailedPreconditionError("It leads back to this process.", reason="PROXY_LOOP")
STARTED = pb.StartTrainingResponse(
    operation=operation_pb2.Operation(operation_id=HOST_ID), session_id="op"
)


class Host:
    """A training host that says how busy it is and takes what it is told."""

    def __init__(self, server: Answering, name: str) -> None:
        self.server, self.name, self.target = server, name, server.address
        self.busy_with(0)
        self.on_start(STARTED)
        hop = Hop(name, FreshnessSource.BRIDGE, cached=False, age=0.0)
        fresh = Freshness(0.0, FreshnessSource.BRIDGE, cached=False, path=(hop,))
        view = OperationView(operation(HOST_ID, status=S.RUNNING), fresh, None)
        self.running = operations_pb.GetOperationResponse(operation=view_to_proto(view))
        server.answer("GetOperation", self.running)

    def busy_with(self, count: int) -> None:
        self.server.answer("ListOperations", self.listing(count))

    def listing(self, count: int = 0) -> Message:
        return operations_pb.ListOperationsResponse(
            instance=self.name, incarnation="first", active_count=count
        )

    def on_look(self, *answers: Answer) -> None:
        self.server.answer("ListOperations", *answers)

    def on_start(self, *answers: Answer) -> None:
        self.server.answer("StartTraining", *answers)

    @property
    def starts(self) -> int:
        return len(self.server.calls("StartTraining"))

    @property
    def unknown(self) -> KtrdrError:
        return OperationNotFoundError(HOST_ID, instance=self.name, incarnation="first")


class Routing:
    """An adapter to some hosts, and the service that starts operations with it."""

    def __init__(self, resources: ExitStack, count: int) -> None:
        self.setup = Setup()
        names = [f"host-{number}" for number in range(count)]
        self.hosts = [Host(resources.enter_context(answering()), name) for name in names]
        self.channels = [
            resources.enter_context(channel_to(host.target, "backend")) for host in self.hosts
        ]
        self.adapter = TrainingAdapter(
            self.setup.service, [TrainingHost(each) for each in self.channels], self.setup.clock
        )

    def start(self, within: float = inf) -> OperationView:
        deadline = self.setup.clock.monotonic() + within
        return self.setup.service.start_operation(
            new_operation(), self.adapter.launch(ORDER, deadline)
        )

    def refusal(self, within: float = inf) -> KtrdrError:
        """What a start is refused with; it leaves nothing behind."""
        error = error_of(lambda: self.start(within))
        assert self.setup.store.get("op") is None
        assert {} == self.setup.service._registry._live
        return error

    @property
    def owner(self) -> Owner:
        record = self.setup.store.get("op")
        assert record is not None
        return record.owner

    @property
    def starts(self) -> list[int]:
        return [host.starts for host in self.hosts]


Route = Callable[[int], Routing]


@pytest.fixture
def route() -> Iterator[Route]:
    """Makes an adapter to so many hosts."""
    with ExitStack() as resources:
        yield lambda count: Routing(resources, count)


def error_of(call: Callable[[], object]) -> KtrdrError:
    with pytest.raises(KtrdrError) as raised:
        call()
    return raised.value


# --------------------------------------------------------------------- who gets it


def test_a_training_is_started_under_the_backends_id_and_read_where_it_runs(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    its = route(1)
    (host,) = its.hosts
    with caplog.at_level(logging.INFO, "ktrdr.operations"):
        view = its.start()

    (asked,) = host.server.calls("StartTraining")
    assert ("op", S.RUNNING) == (asked.request_id, view.operation.status)
    assert ["me", "host-0"] == [hop.instance for hop in view.freshness.path]
    assert {
        "session_id": "op",
        "host_operation_id": HOST_ID,
        "host_service_url": host.target,
    } == view.operation.metadata
    assert Owner("host-0", "first", host.target) == its.owner
    assert f"Registered remote stub for operation op → host {HOST_ID}" in caplog.messages


def test_the_least_busy_host_gets_the_training(route: Route) -> None:
    its = route(3)
    for host, count in zip(its.hosts, (2, 0, 1), strict=True):
        host.busy_with(count)
    its.start()

    assert [0, 1, 0] == its.starts
    assert "host-1" == its.owner.instance_id


def test_of_hosts_as_busy_the_first_named_gets_it(route: Route) -> None:
    its = route(3)
    its.hosts[0].busy_with(1)
    its.start()

    assert [0, 1, 0] == its.starts


def test_hosts_are_asked_at_the_same_time_and_for_what_is_active_alone(route: Route) -> None:
    its = route(2)
    all_asked = threading.Barrier(2)

    def with_the_other(host: Host) -> Callable[[object], Message]:
        def answer(_: object) -> Message:
            all_asked.wait(TIMEOUT)
            return host.listing()

        return answer

    for host in its.hosts:
        host.on_look(with_the_other(host))
    found = its.adapter.candidates(inf)

    assert ["host-0", "host-1"] == [candidate.owner.instance_id for candidate in found]
    (asked,) = its.hosts[0].server.calls("ListOperations")
    assert (1, "") == (asked.page_size, asked.page_token)
    active = {status.name for status in S if not status.terminal}
    names = {operation_pb2.OperationStatus.Name(number) for number in asked.statuses}
    assert {f"OPERATION_STATUS_{name}" for name in active} == names


@pytest.mark.parametrize(
    "answer",
    [UnavailableError("busy", reason="REFRESH_BUSY"), FULL, ZeroDivisionError(), LOOP],
)
def test_a_host_that_does_not_say_how_busy_it_is_is_passed_over(
    route: Route, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    its = route(2)
    its.hosts[0].on_look(answer)
    its.start()

    assert [0, 1] == its.starts
    assert any(
        message.startswith(f"Training host {its.hosts[0].target} is passed over: ")
        for message in caplog.messages
    )


def test_a_host_that_answers_nonsense_is_passed_over(route: Route) -> None:
    its = route(2)
    its.hosts[0].on_look(operations_pb.ListOperationsResponse(active_count=-1))
    its.start()

    assert [0, 1] == its.starts


def test_a_host_that_is_down_is_passed_over(route: Route) -> None:
    its = route(2)
    its.hosts[0].server.close()
    its.start()

    assert 1 == its.hosts[1].starts


def test_a_host_that_is_silent_is_passed_over_in_time(route: Route) -> None:
    its = route(2)
    gate = threading.Event()

    def when_open(_: object) -> Message:
        assert gate.wait(TIMEOUT)
        return its.hosts[0].listing()

    its.hosts[0].on_look(when_open)
    its.start(within=0.5)

    assert [0, 1] == its.starts
    gate.set()


# ------------------------------------------------------------------- nobody does


def test_if_no_host_answers_all_are_named_and_nothing_is_left(route: Route) -> None:
    its = route(2)
    for host in its.hosts:
        host.server.close()

    error = its.refusal()

    assert isinstance(error, HostUnreachableError)
    assert "No training host takes trainings now" in error.message
    assert {"targets": ",".join(host.target for host in its.hosts)} == error.metadata
    assert error.retry_after > 0


def test_if_every_address_leads_back_here_that_is_said(route: Route) -> None:
    its = route(2)
    for host in its.hosts:
        host.on_look(LOOP)

    error = its.refusal()

    assert (FailedPreconditionError, "PROXY_LOOP") == (type(error), error.reason)
    assert LOOP.message == error.message


def test_if_one_address_leads_back_here_and_the_others_are_down_trying_again_may_help(
    route: Route,
) -> None:
    its = route(2)
    its.hosts[0].on_look(LOOP)
    its.hosts[1].server.close()

    error = its.refusal()

    assert isinstance(error, HostUnreachableError)
    assert LOOP.message in error.message


def test_if_hosts_have_too_much_to_do_to_say_how_busy_they_are_they_are_full(
    route: Route,
) -> None:
    its = route(1)
    its.hosts[0].on_look(ResourceExhaustedError("Too many.", reason="TOO_MANY_CALLS"))

    error = its.refusal()

    assert (ResourceExhaustedError, "TOO_MANY_CALLS") == (type(error), error.reason)


def test_without_hosts_nothing_is_started(route: Route) -> None:
    its = route(0)

    assert isinstance(its.refusal(), HostUnreachableError)


def test_if_all_hosts_are_full_the_first_to_have_room_says_when_to_return(route: Route) -> None:
    its = route(2)
    its.hosts[0].on_start(FULL)
    its.hosts[1].on_start(ResourceExhaustedError("Full.", retry_after=3.0, reason="WORKERS_BUSY"))

    error = its.refusal()

    assert isinstance(error, ResourceExhaustedError)
    assert ("WORKERS_BUSY", 3.0) == (error.reason, error.retry_after)
    assert {"targets": ",".join(host.target for host in its.hosts)} == error.metadata
    assert [1, 1] == its.starts


def test_if_one_is_full_and_one_is_stopping_they_are_full(route: Route) -> None:
    its = route(2)
    its.hosts[0].on_start(ProcessStoppingError("It is stopping."))
    its.hosts[1].on_start(FULL)

    error = its.refusal()

    assert isinstance(error, ResourceExhaustedError)
    assert "It is stopping." in error.message


def test_if_all_are_stopping_no_host_takes_trainings(route: Route) -> None:
    its = route(1)
    its.hosts[0].on_start(ProcessStoppingError("It is stopping."))

    assert isinstance(its.refusal(), HostUnreachableError)


# ---------------------------------------------------------------------- starting


@pytest.mark.parametrize("refusal", [FULL, ProcessStoppingError("It is stopping.")])
def test_a_host_that_certainly_has_not_begun_is_passed_over(
    route: Route, caplog: pytest.LogCaptureFixture, refusal: KtrdrError
) -> None:
    its = route(2)
    its.hosts[1].busy_with(1)
    its.hosts[0].on_start(refusal)
    its.start()

    assert [1, 1] == its.starts
    assert Owner("host-1", "first", its.hosts[1].target) == its.owner
    metadata = its.setup.service.get_operation("op").operation.metadata
    assert its.hosts[1].target == metadata["host_service_url"]
    passed = f"{its.hosts[0].target} did not take op: {refusal.message}"
    assert passed in caplog.messages


def test_a_host_that_goes_down_before_it_is_told_is_passed_over(route: Route) -> None:
    its = route(2)
    first, second = its.hosts
    second.busy_with(1)
    launch = its.adapter.launch(ORDER)

    class GoneThen:
        """The host goes down between saying how busy it is and being told."""

        elsewhere, reserve, release = launch.elsewhere, launch.reserve, launch.release

        def begin(self, operation_id: str) -> None:
            first.server.close()
            its.channels[0]._connection.failed = True  # as if it had been seen
            launch.begin(operation_id)

    its.setup.service.start_operation(new_operation(), GoneThen())

    assert [0, 1] == its.starts


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidArgumentError.of("symbols[0]", "is not known"),
        AlreadyExistsError("Another training has this id.", reason="REQUEST_ID_REUSED"),
        FailedPreconditionError("No.", reason="PROXY_LOOP"),
    ],
)
def test_a_refusal_for_good_is_the_clients_and_no_other_host_is_asked(
    route: Route, refusal: KtrdrError
) -> None:
    its = route(2)
    its.hosts[0].on_start(refusal)

    error = its.refusal()

    assert (type(refusal), refusal.reason) == (type(error), error.reason)
    assert [1, 0] == its.starts
    its.hosts[0].on_start(STARTED)
    assert S.RUNNING == its.start().operation.status  # its id is free again


def test_a_host_is_told_only_after_it_is_recorded_that_it_is(route: Route) -> None:
    its = route(1)

    def recorded(_: object) -> Message:
        assert "host-0" == its.owner.instance_id
        return STARTED

    its.hosts[0].on_start(recorded)
    its.start()

    its.setup = Setup()
    adapter = TrainingAdapter(
        its.setup.service, [TrainingHost(each) for each in its.channels], its.setup.clock
    )
    found = adapter.candidates(inf)
    its.setup.unread()
    its.setup.store.away = True
    with pytest.raises(StoreUnavailableError):
        adapter.begin(ORDER, "op", found, inf)
    assert [1] == its.starts


# ------------------------------------------------------------------- lost answers


LOST = UnavailableError("The line broke.", reason="HOST_FAILED")


def test_a_host_whose_answer_is_lost_is_asked_again_and_no_other(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    its = route(2)
    its.hosts[0].on_start(LOST, STARTED)
    view = its.start()

    assert [2, 0] == its.starts
    assert (S.RUNNING, None) == (view.operation.status, view.freshness.refresh_error)
    first, second = its.hosts[0].server.calls("StartTraining")
    assert first == second
    assert f"{its.hosts[0].target} is asked again, its answer is lost" in caplog.text


@pytest.mark.parametrize("again", [LOST, FULL, ProcessStoppingError("It is stopping.")])
def test_a_host_that_may_have_begun_keeps_the_training_and_the_next_read_asks_again(
    route: Route, again: KtrdrError
) -> None:
    its = route(2)
    host, other = its.hosts
    host.on_start(LOST, again)
    host.server.answer("GetOperation", host.unknown)
    other.server.answer("GetOperation", other.unknown)

    view = its.start()

    assert S.PENDING == view.operation.status
    assert view.freshness.refresh_error is not None
    assert again.reason == view.freshness.refresh_error.reason
    assert (3, 0) == (host.starts, other.starts)  # twice at the start, once at the read
    host.on_start(STARTED)
    host.server.answer("GetOperation", host.unknown, host.running)

    view = its.setup.service.get_operation("op", max_staleness=0.0)
    assert S.RUNNING == view.operation.status
    assert (4, 0) == (host.starts, other.starts)


def test_a_host_that_goes_down_after_it_was_told_keeps_the_training(route: Route) -> None:
    """Not even that it cannot be connected to then says that it has not begun."""
    its = route(2)
    host, other = its.hosts

    def told(_: object) -> Message:
        threading.Thread(target=host.server.close).start()
        its.channels[0]._connection.failed = True
        raise LOST

    host.on_start(told)
    view = its.start()

    assert S.PENDING == view.operation.status
    assert view.freshness.refresh_error is not None
    assert ("host-0", 0) == (its.owner.instance_id, other.starts)


def test_a_refusal_for_good_after_a_lost_answer_is_the_clients(route: Route) -> None:
    its = route(2)
    refusal = InvalidArgumentError.of("symbols[0]", "is not known")
    its.hosts[0].on_start(LOST, refusal)

    assert isinstance(its.refusal(), InvalidArgumentError)
    assert [2, 0] == its.starts


def test_a_silent_host_is_asked_twice_within_the_callers_time(route: Route) -> None:
    its = route(2)
    gate = threading.Event()

    def when_open(_: object) -> Message:
        assert gate.wait(TIMEOUT)
        return STARTED

    its.hosts[0].on_start(when_open)
    its.start(within=0.5)  # the clock stands still, so it comes back late

    assert [2, 0] == its.starts
    gate.set()


def test_what_is_no_training_host_is_named_and_not_taken_for_one(route: Route) -> None:
    """A backend, say, by mistake: it starts the training under an id of its own."""
    its = route(1)
    started = pb.StartTrainingResponse(
        operation=operation_pb2.Operation(operation_id="op_training_op"), session_id="op"
    )
    its.hosts[0].on_start(started)

    with pytest.raises(FailedPreconditionError, match="is no training host") as raised:
        its.start()

    assert "NOT_A_HOST" == raised.value.reason
    assert "op_training_op" in raised.value.message


# -------------------------------------------------------------------- the old way


TOLD = host_pb.GetTrainingStatusResponse(session_id="op", status="running")


def status(its: Routing) -> TrainingStatus:
    with pytest.warns(DeprecationWarning, match=r"RemoteOperationStub\.get_operation"):
        return its.adapter.get_training_status("op")


def status_error(its: Routing) -> KtrdrError:
    with pytest.raises(KtrdrError) as raised:
        status(its)
    return raised.value


def test_the_host_that_knows_a_training_tells_how_it_is(route: Route) -> None:
    its = route(3)
    its.hosts[0].server.answer("GetTrainingStatus", NotFoundError("unknown"))
    its.hosts[1].server.answer("GetTrainingStatus", TOLD)

    assert TrainingStatus("op", "running", 0.0, "", "", "") == status(its)
    assert [] == its.hosts[2].server.calls("GetTrainingStatus")


def test_a_host_that_is_down_does_not_hide_one_that_knows(route: Route) -> None:
    its = route(2)
    its.hosts[0].server.close()
    its.hosts[1].server.answer("GetTrainingStatus", TOLD)

    assert "running" == status(its).status


def test_a_training_that_no_host_knows_is_not_found(route: Route) -> None:
    its = route(2)
    for host in its.hosts:
        host.server.answer("GetTrainingStatus", NotFoundError(f"unknown to {host.name}"))

    assert isinstance(status_error(its), NotFoundError)


@pytest.mark.parametrize("silent", [0, 1])
def test_that_one_could_not_be_asked_says_more_than_that_others_do_not_know(
    route: Route, silent: int
) -> None:
    its = route(2)
    its.hosts[silent].server.close()
    its.hosts[1 - silent].server.answer("GetTrainingStatus", NotFoundError("unknown"))

    assert isinstance(status_error(its), HostUnreachableError)


def test_without_hosts_no_training_is_found(route: Route) -> None:
    assert "There are no training hosts." == status_error(route(0)).message
