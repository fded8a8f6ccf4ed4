from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations.conversion import view_to_proto
from shared.operations.model import (
    Freshness,
    FreshnessSource,
    Hop,
    OperationStatus,
    OperationType,
)
from shared.operations.remote import WAIT_MARGIN, RemoteOperationStub
from shared.operations.servicer import OperationsServicer, operations_service
from shared.operations.store import ACTIVE, OperationFilter
from shared.operations.views import OperationView
from shared.rpc.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    HostNotConnectedError,
    HostTimeoutError,
    HostUnreachableError,
    InvalidArgumentError,
    KtrdrError,
    MalformedAnswerError,
    NotFoundError,
    OperationNotFoundError,
    OutOfRangeError,
    ProcessStoppingError,
    RefreshBusyError,
    ResourceExhaustedError,
    StoreUnavailableError,
    UnavailableError,
)
from shared.rpc.host_channel import HostChannel
from tests.support.answering import Answering, answering, channel_to
from tests.support.eventually import eventually
from tests.support.rpc import TIMEOUT, served
from tests.unit.operations.fakes import RESULT, Setup, operation, steps

S = OperationStatus
ANY = OperationFilter()
PATH = (Hop("host", FreshnessSource.BRIDGE, cached=False, age=0.0),)
FRESH = Freshness(0.0, FreshnessSource.BRIDGE, cached=False, path=PATH)
Call = Callable[[RemoteOperationStub, float], object]


def view_of(operation_id: str = "op", **fields: object) -> OperationView:
    return OperationView(operation(operation_id, **fields), FRESH, None)


def message_of(operation_id: str = "op", **fields: object) -> operation_pb2.Operation:
    return view_to_proto(view_of(operation_id, **fields))


CALLS: dict[str, Call] = {
    "GetOperation": lambda stub, timeout: stub.get_operation("op", timeout=timeout),
    "GetMetrics": lambda stub, timeout: stub.get_metrics("op", 0, 10, timeout=timeout),
    "ListOperations": lambda stub, timeout: stub.list_operations(ANY, "", 10, timeout=timeout),
    "CancelOperation": lambda stub, timeout: stub.cancel_operation("op", timeout=timeout),
    "WaitOperation": lambda stub, timeout: stub.wait_operation("op", timeout=timeout),
}
BEGUN: dict[str, Call] = {
    "GetOperation": lambda stub, timeout: stub.begin_get_operation("op", timeout=timeout).result(),
    "ListOperations": lambda stub, timeout: stub.begin_list_operations(
        ANY, "", 10, timeout=timeout
    ).result(),
    "WaitOperation": lambda stub, timeout: stub.begin_wait_operation(
        "op", timeout=timeout
    ).result(),
}
EVERY = pytest.mark.parametrize(("method", "call"), [*CALLS.items(), *BEGUN.items()])


@pytest.fixture
def setup() -> Setup:
    return Setup(wait_slots=1)


@pytest.fixture
def stub(setup: Setup) -> Iterator[RemoteOperationStub]:
    """A stub of the operations of `setup`, served in earnest."""
    service = operations_service(OperationsServicer(setup.service, setup.clock))
    with served([service]) as wire, channel_to(wire.address, "asking") as channel:
        yield RemoteOperationStub(channel)


@pytest.fixture
def other() -> Iterator[Answering]:
    with answering() as server:
        yield server


@pytest.fixture
def scripted(other: Answering) -> Iterator[RemoteOperationStub]:
    """A stub of a process that answers what the test says."""
    with channel_to(other.address) as channel:
        yield RemoteOperationStub(channel)


def error_of(call: Callable[[], object]) -> KtrdrError:
    with pytest.raises(KtrdrError) as raised:
        call()
    return raised.value


def held(gate: threading.Event) -> Message:
    """An answer that comes when the gate opens."""
    assert gate.wait(TIMEOUT)
    return pb.GetOperationResponse()


# ------------------------------------------------------------- what is there


def test_an_operation_arrives_with_its_metrics(setup: Setup, stub: RemoteOperationStub) -> None:
    worker = setup.running()
    worker.report(40.0, "half of it", phase="training", total_steps=5)
    worker.measure(1, 2, 3)

    got = stub.get_operation("op", max_staleness=0.0, metrics_cursor=1, timeout=TIMEOUT)

    known = setup.service.get_operation("op", metrics_cursor=1, metrics_limit=9)
    assert (known.operation, known.metrics) == (got.operation, got.metrics)
    assert [2, 3] == steps(got.metrics)
    assert ["me"] == [hop.instance for hop in got.freshness.path]


def test_an_operation_that_was_asked_for_without_waiting_arrives(
    setup: Setup, stub: RemoteOperationStub
) -> None:
    setup.running().measure(1, 2)
    answered = threading.Event()

    pending = stub.begin_get_operation("op", metrics_cursor=0, timeout=TIMEOUT)
    pending.add_done_callback(lambda _: answered.set())

    assert [1, 2] == steps(pending.result().metrics)
    assert answered.wait(TIMEOUT)
    assert pending.done()


def test_a_finished_operation_arrives_with_its_result(
    setup: Setup, stub: RemoteOperationStub
) -> None:
    setup.running()
    setup.service.complete_operation("op", RESULT)

    got = stub.get_operation("op", timeout=TIMEOUT)

    assert (S.COMPLETED, RESULT) == (got.operation.status, got.operation.result)
    assert got.liveness is None


def test_metrics_arrive_page_by_page(setup: Setup, stub: RemoteOperationStub) -> None:
    setup.running().measure(1, 2, 3)

    first = stub.get_metrics("op", 0, 2, timeout=TIMEOUT)
    last = stub.get_metrics("op", first.new_cursor, 2, timeout=TIMEOUT)

    assert ([1, 2], 2, True) == (steps(first.metrics), first.new_cursor, first.has_more)
    assert ([3], 3, False) == (steps(last.metrics), last.new_cursor, last.has_more)


def test_a_cursor_past_the_end_is_out_of_range(setup: Setup, stub: RemoteOperationStub) -> None:
    setup.running().measure(1)

    error = error_of(lambda: stub.get_metrics("op", 2, 10, timeout=TIMEOUT))

    assert isinstance(error, OutOfRangeError)
    assert ("CURSOR_OUT_OF_RANGE", "1") == (error.reason, error.metadata["metrics_count"])


def test_a_listing_arrives_page_by_page_and_says_whose_it_is(
    setup: Setup, stub: RemoteOperationStub
) -> None:
    for name in ("a", "b", "c"):
        setup.running(name)
    setup.service.complete_operation("b", RESULT)

    first = stub.list_operations(ACTIVE, "", 1, timeout=TIMEOUT)
    last = stub.begin_list_operations(ACTIVE, first.next_page_token, 1, timeout=TIMEOUT).result()
    done = stub.list_operations(
        OperationFilter(frozenset({S.COMPLETED}), frozenset({OperationType.TRAINING})),
        "",
        10,
        timeout=TIMEOUT,
    )

    pages = (first, last, done)
    assert [["c"], ["a"], ["b"]] == [[v.operation.operation_id for v in p.views] for p in pages]
    assert [2, 2, 2] == [page.active_count for page in pages]
    assert [2, 2, 1] == [page.total_count for page in pages]
    assert {("me", "first")} == {(page.instance, page.incarnation) for page in pages}
    assert "" == last.next_page_token


def test_a_cancellation_travels(setup: Setup, stub: RemoteOperationStub) -> None:
    worker = setup.running()

    got = stub.cancel_operation("op", "too slow", timeout=TIMEOUT)

    assert (S.CANCELLING, "too slow") == (got.operation.status, got.operation.cancel_reason)
    assert worker.bridge.cancel.requested


def test_a_wait_is_over_when_the_operation_ends(setup: Setup, stub: RemoteOperationStub) -> None:
    setup.running()
    pending = stub.begin_wait_operation("op", timeout=60.0)
    eventually(lambda: setup.service._room._free == 0)
    assert not pending.done()

    setup.service.complete_operation("op", RESULT)

    view, retry_after = pending.result()
    assert (S.COMPLETED, None) == (view.operation.status, retry_after)


def test_a_wait_without_a_place_is_answered_with_a_time_to_return(
    setup: Setup, stub: RemoteOperationStub
) -> None:
    setup.running()
    begun = stub.begin_wait_operation("op", timeout=60.0)
    eventually(lambda: setup.service._room._free == 0)

    view, retry_after = stub.wait_operation("op", timeout=60.0)

    assert S.RUNNING == view.operation.status
    assert retry_after is not None
    assert retry_after > 0
    begun.cancel()


def test_a_wait_that_is_given_up_frees_its_place(setup: Setup, stub: RemoteOperationStub) -> None:
    setup.running()
    pending = stub.begin_wait_operation("op", timeout=60.0)
    eventually(lambda: setup.service._room._free == 0)

    assert pending.cancel()

    eventually(lambda: setup.service._room._free == 1)
    assert isinstance(error_of(pending.result), HostUnreachableError)


@pytest.mark.parametrize(
    "method", ["GetOperation", "GetMetrics", "CancelOperation", "WaitOperation"]
)
def test_an_unknown_operation_is_not_found_by_a_named_process(
    stub: RemoteOperationStub, method: str
) -> None:
    error = error_of(lambda: CALLS[method](stub, TIMEOUT))

    assert isinstance(error, NotFoundError)
    assert OperationNotFoundError.reason == error.reason
    assert ("me", "first") == (error.metadata["instance"], error.metadata["incarnation"])


# ------------------------------------------------------------- what is sent


@pytest.mark.parametrize("bound", [None, 0.0, 1.5])
def test_a_bound_is_sent_only_if_there_is_one(
    other: Answering, scripted: RemoteOperationStub, bound: float | None
) -> None:
    operation_ = message_of(metrics_count=7)
    other.answer("GetOperation", pb.GetOperationResponse(operation=operation_, new_cursor=7))
    scripted.get_operation("op", max_staleness=bound, metrics_cursor=7, timeout=TIMEOUT)
    scripted.begin_get_operation(
        "op", max_staleness=bound, metrics_cursor=7, timeout=TIMEOUT
    ).result()

    expected = pb.GetOperationRequest(operation_id="op", metrics_cursor=7)
    if bound is not None:
        expected.max_staleness.FromNanoseconds(int(bound * 1e9))
    assert [expected, expected] == other.calls("GetOperation")


def test_a_wait_asks_for_its_time(other: Answering, scripted: RemoteOperationStub) -> None:
    other.answer(
        "WaitOperation",
        pb.WaitOperationResponse(operation=message_of(), retry_after=Duration(seconds=2)),
    )

    assert (view_of(), 2.0) == scripted.wait_operation("op", timeout=30.0)
    expected = pb.WaitOperationRequest(operation_id="op", timeout=Duration(seconds=30))
    assert [expected] == other.calls("WaitOperation")


# ------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (NotFoundError("none", reason="OPERATION_NOT_FOUND"), NotFoundError),
        (InvalidArgumentError.of("operation_id", "is required"), InvalidArgumentError),
        (AlreadyExistsError("taken", reason="REQUEST_ID_REUSED"), AlreadyExistsError),
        (ResourceExhaustedError("full", reason="WORKERS_BUSY"), ResourceExhaustedError),
        (FailedPreconditionError("no", reason="PROXY_LOOP"), FailedPreconditionError),
        (OutOfRangeError("past", reason="CURSOR_OUT_OF_RANGE"), OutOfRangeError),
        (RefreshBusyError("busy"), UnavailableError),
        (StoreUnavailableError("away"), UnavailableError),
        (ProcessStoppingError("stopping"), UnavailableError),
        (HostUnreachableError("further on"), UnavailableError),
    ],
)
def test_what_the_other_process_refuses_with_is_raised(
    other: Answering, scripted: RemoteOperationStub, raised: KtrdrError, kind: type[KtrdrError]
) -> None:
    for method, call in [*CALLS.items(), *BEGUN.items()]:
        other.answer(method, raised)
        error = error_of(lambda call=call: call(scripted, TIMEOUT))  # type: ignore[misc]  # bound now
        assert kind is type(error)
        assert (raised.reason, raised.message) == (error.reason, error.message)
        assert scripted.target == error.metadata["target"]


@EVERY
def test_a_defect_of_the_other_process_is_its_own(
    other: Answering, scripted: RemoteOperationStub, method: str, call: Call
) -> None:
    other.answer(method, ZeroDivisionError())

    error = error_of(lambda: call(scripted, TIMEOUT))

    assert (UnavailableError, "HOST_FAILED") == (type(error), error.reason)
    assert scripted.target in error.message


@EVERY
def test_an_answer_that_takes_too_long_is_a_timeout(
    other: Answering, scripted: RemoteOperationStub, method: str, call: Call
) -> None:
    gate = threading.Event()
    other.answer(method, lambda _: held(gate))
    margin = WAIT_MARGIN if method == "WaitOperation" else 0.0

    error = error_of(lambda: call(scripted, 0.1 - margin))

    assert isinstance(error, HostTimeoutError)
    gate.set()


@EVERY
def test_nobody_there_is_not_connected(method: str, call: Call) -> None:
    with answering() as gone:
        target = gone.address
    with channel_to(target) as channel:
        error = error_of(lambda: call(RemoteOperationStub(channel), TIMEOUT))

    assert isinstance(error, HostNotConnectedError)
    assert target in error.message


IMPOSSIBLE: dict[str, Message] = {
    "GetOperation": pb.GetOperationResponse(operation=message_of("another")),
    "GetMetrics": pb.GetMetricsResponse(new_cursor=3),
    "ListOperations": pb.ListOperationsResponse(),
    "CancelOperation": pb.CancelOperationResponse(operation=message_of("another")),
    "WaitOperation": pb.WaitOperationResponse(operation=message_of("another")),
}


@EVERY
def test_an_answer_that_makes_no_sense_is_refused_and_says_whose_it_is(
    other: Answering, scripted: RemoteOperationStub, method: str, call: Call
) -> None:
    other.answer(method, IMPOSSIBLE[method])

    error = error_of(lambda: call(scripted, TIMEOUT))

    assert isinstance(error, MalformedAnswerError)
    assert error.message.startswith(f"{scripted.target} answered what no ktrdr process")
    assert {"target": scripted.target} == error.metadata


@pytest.mark.parametrize("seconds", [-1, 10**15])
def test_a_time_to_return_that_cannot_be_is_refused(
    other: Answering, scripted: RemoteOperationStub, seconds: int
) -> None:
    other.answer(
        "WaitOperation",
        pb.WaitOperationResponse(operation=message_of(), retry_after=Duration(seconds=seconds)),
    )

    error = error_of(lambda: scripted.wait_operation("op", timeout=TIMEOUT))

    assert isinstance(error, MalformedAnswerError)
    assert "retry_after" in error.message


# --------------------------------------------------------------------- closing


def test_closing_ends_what_is_on_its_way_and_later_calls_ask_nobody(
    other: Answering,
) -> None:
    stub = RemoteOperationStub(HostChannel(other.address, "me"))
    gate = threading.Event()
    other.answer("GetOperation", lambda _: held(gate))
    pending = stub.begin_get_operation("op", timeout=TIMEOUT)
    eventually(lambda: len(other.calls("GetOperation")) == 1)

    stub.close()

    assert isinstance(error_of(pending.result), HostUnreachableError)
    for call in (*CALLS.values(), *BEGUN.values()):
        error = error_of(lambda call=call: call(stub, TIMEOUT))  # type: ignore[misc]  # bound now
        assert isinstance(error, HostUnreachableError)
    assert 1 == len(other.calls("GetOperation"))
    gate.set()
