from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations.conversion import metric_to_proto, view_to_proto
from shared.operations.endings import OPERATION_LOST
from shared.operations.model import (
    Freshness,
    FreshnessSource,
    Hop,
    Liveness,
    OperationStatus,
    Owner,
    Progress,
)
from shared.operations.remote import RemoteOperationStub
from shared.operations.remote_source import RemoteSource, StartAgain
from shared.operations.source import OwnerState, SourceReading
from shared.operations.views import OperationView
from shared.rpc.errors import (
    AlreadyExistsError,
    HostTimeoutError,
    HostUnreachableError,
    InvalidArgumentError,
    KtrdrError,
    NotFoundError,
    OperationNotFoundError,
    ResourceExhaustedError,
    StartUnknownError,
    UnavailableError,
    WrongHostError,
)
from shared.rpc.host_channel import HostChannel
from tests.support.answering import Answering, answering, channel_to
from tests.support.clock import FakeClock
from tests.support.rpc import TIMEOUT
from tests.unit.operations.fakes import metric, operation, steps

S = OperationStatus
OWNER = Owner("host", "first", "host:50052")
ID = "host_training_op"
UNKNOWN_TO_OWNER = OperationNotFoundError(ID, instance="host", incarnation="first")
UNKNOWN_TO_SUCCESSOR = OperationNotFoundError(ID, instance="host", incarnation="second")
UNKNOWN_TO_ANOTHER = OperationNotFoundError(ID, instance="another", incarnation="first")
UNKNOWN_TO_WHOEVER = NotFoundError("There is none.")
READS = pytest.mark.parametrize("begun", [False, True])
"""A read that waits for its answer, and one that has been begun."""


class Starting:
    """Repeats a start; counts how often, with how much time, and does what the test says."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []
        self.error: KtrdrError | None = None
        self.then: Callable[[], None] = lambda: None

    def __call__(self, timeout: float) -> None:
        self.timeouts.append(timeout)
        if self.error is not None:
            raise self.error
        self.then()


class TimedStub(RemoteOperationStub):
    """Notes how long reads may take."""

    def __init__(self, channel: HostChannel) -> None:
        super().__init__(channel)
        self.timeouts: list[float] = []

    def read_operation(
        self, operation_id: str, metrics_cursor: int, max_staleness: float, *, timeout: float
    ) -> SourceReading:
        self.timeouts.append(timeout)
        return super().read_operation(operation_id, metrics_cursor, max_staleness, timeout=timeout)


class Remote:
    """Sources at a process that answers what the test says."""

    def __init__(self, host: Answering, stub: TimedStub) -> None:
        self.host = host
        self.stub = stub
        self.clock = FakeClock()
        self.starting = Starting()

    def source(self, start_again: StartAgain | None = None) -> RemoteSource:
        return RemoteSource(self.stub, ID, OWNER, self.clock, start_again)

    def unstarted(self) -> RemoteSource:
        """Nobody knows whether its owner was told to start."""
        return self.source(self.starting)

    def answers(self, *answers: Message | KtrdrError) -> None:
        """Have the next reads answered so, and the later ones as the last."""
        self.host.answer("GetOperation", *answers)

    @property
    def reads(self) -> int:
        return len(self.host.calls("GetOperation"))

    @property
    def cancels(self) -> list[str]:
        return [request.reason for request in self.host.calls("CancelOperation")]


@pytest.fixture
def remote() -> Iterator[Remote]:
    with answering() as host, channel_to(host.address) as channel:
        host.answer(
            "ListOperations", pb.ListOperationsResponse(instance="host", incarnation="first")
        )
        yield Remote(host, TimedStub(channel))


def view(instance: str = "host", **fields: object) -> OperationView:
    path = (
        Hop(instance, FreshnessSource.REMOTE, cached=True, age=0.5),
        Hop("further", FreshnessSource.BRIDGE, cached=False, age=0.25),
    )
    freshness = Freshness(0.5, FreshnessSource.REMOTE, cached=True, path=path)
    return OperationView(operation(ID, **fields), freshness, Liveness(worker_alive=True))


def answer(of: OperationView, *numbers: int, cursor: int = 0) -> pb.GetOperationResponse:
    return pb.GetOperationResponse(
        operation=view_to_proto(of),
        metrics=[metric_to_proto(metric(number)) for number in numbers],
        new_cursor=min(cursor + len(numbers), of.operation.metrics_count),
    )


RUNNING = answer(view(status=S.RUNNING))
ANOTHERS = answer(view("another", status=S.COMPLETED, end_time=operation().create_time))
ANOTHERS.operation.result.SetInParent()


def read(source: RemoteSource, cursor: int = 0, *, begun: bool = False) -> SourceReading:
    if begun:
        return source.begin_read(cursor, 1000, 0.5, TIMEOUT).result()
    return source.read(cursor, 1000, 0.5, TIMEOUT)


def error_of(call: Callable[[], object]) -> KtrdrError:
    with pytest.raises(KtrdrError) as raised:
        call()
    return raised.value


def ending(reading: SourceReading) -> tuple[OperationStatus, str]:
    """How a reading says the operation has ended, and why."""
    assert reading.operation is not None
    assert reading.operation.error is not None
    assert reading.operation.end_time is not None
    return reading.operation.status, reading.operation.error.reason


# --------------------------------------------------------------------- readings


@READS
def test_a_reading_is_what_the_owner_answers(remote: Remote, begun: bool) -> None:
    progress = Progress(40.0, "half")
    known = view(status=S.RUNNING, metrics_count=5, progress=progress)
    remote.answers(answer(known, 3, 4, cursor=2))

    got = read(remote.source(), 2, begun=begun)

    assert (2, [3, 4], 5) == (got.cursor, steps(got.metrics), got.metrics_count)
    assert (progress, OwnerState(S.RUNNING), 0.5) == (got.progress, got.operation, got.age)
    assert (known.liveness, None) == (got.liveness, got.last_report_age)
    assert known.freshness.path == got.path
    assert got.has_more
    expected = pb.GetOperationRequest(
        operation_id=ID, max_staleness=Duration(nanos=500_000_000), metrics_cursor=2
    )
    assert [expected] == remote.host.calls("GetOperation")


def test_the_age_of_the_last_report_is_the_owners(remote: Remote) -> None:
    message = answer(view())
    message.operation.liveness.last_report_age.FromMilliseconds(1500)
    remote.answers(message)

    assert 1.5 == read(remote.source()).last_report_age


def test_an_answer_without_liveness_has_none(remote: Remote) -> None:
    message = answer(view())
    message.operation.ClearField("liveness")
    remote.answers(message)

    got = read(remote.source())
    assert (None, None) == (got.liveness, got.last_report_age)


def test_whoever_waits_for_a_read_is_called_when_it_is_here(remote: Remote) -> None:
    remote.answers(RUNNING)
    answered = threading.Event()
    pending = remote.source().begin_read(0, 1000, 0.5, TIMEOUT)
    pending.add_done_callback(lambda _: answered.set())

    assert answered.wait(TIMEOUT)
    assert S.RUNNING == view_status(pending.result())


def view_status(reading: SourceReading) -> OperationStatus:
    assert reading.operation is not None
    return reading.operation.status


# ------------------------------------------------------------------- the owner


@READS
@pytest.mark.parametrize(
    ("answered", "found"),
    [(ANOTHERS, "another"), (UNKNOWN_TO_ANOTHER, "another"), (UNKNOWN_TO_WHOEVER, "")],
)
def test_what_another_instance_says_is_not_taken(
    remote: Remote, begun: bool, answered: Message | KtrdrError, found: str
) -> None:
    remote.answers(answered)
    source = remote.unstarted()

    error = error_of(lambda: read(source, begun=begun))

    assert isinstance(error, WrongHostError)
    facts = {"target": remote.stub.target, "expected": "host", "found": found}
    assert facts == error.metadata
    assert [] == remote.starting.timeouts


@READS
def test_the_owner_back_at_its_address_is_read_again(remote: Remote, begun: bool) -> None:
    remote.answers(ANOTHERS, RUNNING)
    source = remote.source()
    error_of(lambda: read(source, begun=begun))

    assert S.RUNNING == view_status(read(source, begun=begun))


@READS
@pytest.mark.parametrize("unknown", [UNKNOWN_TO_OWNER, UNKNOWN_TO_SUCCESSOR])
def test_what_its_owner_does_not_know_any_more_is_lost_and_its_metrics_stay(
    remote: Remote, begun: bool, unknown: KtrdrError
) -> None:
    remote.answers(unknown)

    got = read(remote.source(), 7, begun=begun)

    assert (S.FAILED, "OPERATION_LOST") == ending(got)
    assert (7, (), 7, None) == (got.cursor, got.metrics, got.metrics_count, got.progress)
    assert not got.has_more
    assert got.operation is not None
    assert OPERATION_LOST == got.operation.error
    assert remote.clock.now() == got.operation.end_time


@READS
def test_a_start_that_was_perhaps_never_told_is_lost_with_the_process(
    remote: Remote, begun: bool
) -> None:
    """The training may have run in the life before: it is not begun twice."""
    remote.answers(UNKNOWN_TO_SUCCESSOR)

    assert (S.FAILED, "OPERATION_LOST") == ending(read(remote.unstarted(), begun=begun))
    assert [] == remote.starting.timeouts


@READS
@pytest.mark.parametrize("unknown", [UNKNOWN_TO_OWNER, UNKNOWN_TO_SUCCESSOR])
def test_while_another_process_may_be_telling_the_owner_nothing_is_lost(
    remote: Remote, begun: bool, unknown: KtrdrError
) -> None:
    remote.answers(unknown)
    told_until = remote.clock.monotonic() + 20.0
    source = RemoteSource(remote.stub, ID, OWNER, remote.clock, None, told_until=told_until)

    assert isinstance(error_of(lambda: read(source, begun=begun)), StartUnknownError)
    remote.clock.advance(20.0)
    assert (S.FAILED, "OPERATION_LOST") == ending(read(source, begun=begun))


@READS
@pytest.mark.parametrize(
    "error", [HostUnreachableError("x"), UnavailableError("busy", reason="REFRESH_BUSY")]
)
def test_what_keeps_the_owner_from_answering_is_raised(
    remote: Remote, begun: bool, error: KtrdrError
) -> None:
    remote.answers(error)

    got = error_of(lambda: read(remote.source(), begun=begun))

    assert (UnavailableError, error.reason) == (type(got), got.reason)


def test_an_owner_that_is_silent_is_a_timeout(remote: Remote) -> None:
    gate = threading.Event()

    def when_open(_: object) -> Message:
        assert gate.wait(TIMEOUT)
        return RUNNING

    remote.host.answer("GetOperation", when_open)

    assert isinstance(error_of(lambda: remote.source().read(0, 1, 0.0, 0.05)), HostTimeoutError)
    gate.set()


# -------------------------------------------------------------- unknown starts


def test_a_start_that_was_never_told_is_repeated_once_and_read(remote: Remote) -> None:
    remote.answers(UNKNOWN_TO_OWNER, RUNNING)
    source = remote.unstarted()

    assert S.RUNNING == view_status(read(source))
    assert S.RUNNING == view_status(read(source))

    assert 1 == len(remote.starting.timeouts)
    assert 3 == remote.reads


def test_a_start_that_was_told_after_all_is_not_repeated(remote: Remote) -> None:
    remote.answers(RUNNING, UNKNOWN_TO_OWNER)
    source = remote.unstarted()

    assert S.RUNNING == view_status(read(source))
    assert (S.FAILED, "OPERATION_LOST") == ending(read(source))
    assert [] == remote.starting.timeouts


def test_a_repeated_start_that_is_forgotten_is_lost(remote: Remote) -> None:
    remote.answers(UNKNOWN_TO_OWNER, RUNNING, UNKNOWN_TO_OWNER)
    source = remote.unstarted()
    read(source)

    assert (S.FAILED, "OPERATION_LOST") == ending(read(source))
    assert 1 == len(remote.starting.timeouts)


def test_the_repeated_start_and_the_read_after_it_share_the_time_given(remote: Remote) -> None:
    remote.starting.then = lambda: remote.clock.advance(1.5)
    source = remote.unstarted()
    remote.answers(UNKNOWN_TO_OWNER, RUNNING)
    source.read(0, 1000, 0.0, 4.0)

    assert [4.0] == remote.starting.timeouts
    assert [4.0, 2.5] == remote.stub.timeouts


def test_what_is_read_after_a_repeated_start_was_asked_for_after_it(remote: Remote) -> None:
    remote.starting.then = lambda: remote.clock.advance(1.5)
    source = remote.unstarted()
    remote.answers(UNKNOWN_TO_OWNER, RUNNING)

    assert [1.5, 0.0] == [source.read(0, 1000, 0.0, 4.0).asked_after for _ in range(2)]


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidArgumentError.of("symbols[0]", "is not known"),
        AlreadyExistsError("taken", reason="REQUEST_ID_REUSED"),
    ],
)
def test_a_repeated_start_that_is_refused_for_good_has_failed(
    remote: Remote, refusal: KtrdrError
) -> None:
    remote.answers(UNKNOWN_TO_OWNER)
    remote.starting.error = refusal

    assert (S.FAILED, refusal.reason) == ending(read(remote.unstarted(), 3))
    assert 1 == remote.reads


@pytest.mark.parametrize(
    "refusal", [ResourceExhaustedError("full"), HostTimeoutError("silent"), UnavailableError("x")]
)
def test_a_repeated_start_that_cannot_be_made_now_is_repeated_by_the_next_read(
    remote: Remote, refusal: KtrdrError
) -> None:
    remote.answers(UNKNOWN_TO_OWNER)
    remote.starting.error = refusal
    source = remote.unstarted()

    for _ in range(2):
        assert refusal is error_of(lambda: read(source))
    remote.starting.error = None
    remote.answers(UNKNOWN_TO_OWNER, RUNNING)

    assert S.RUNNING == view_status(read(source))
    assert 3 == len(remote.starting.timeouts)


def test_a_start_that_another_caller_has_repeated_meanwhile_is_not_repeated(
    remote: Remote,
) -> None:
    source = remote.unstarted()
    remote.answers(RUNNING)
    read(source)

    assert source._repeat_start(remote.clock.monotonic() + 1.0, 0) is None
    assert [] == remote.starting.timeouts


def test_a_read_that_was_begun_leaves_an_unknown_start_alone(remote: Remote) -> None:
    remote.answers(UNKNOWN_TO_OWNER)
    source = remote.unstarted()

    error = error_of(lambda: read(source, begun=True))

    assert isinstance(error, UnavailableError)
    assert ("START_UNKNOWN", {"target": remote.stub.target}) == (error.reason, error.metadata)
    assert [] == remote.starting.timeouts


# ------------------------------------------------------------------ cancelling


CANCELLING = pb.CancelOperationResponse(operation=view_to_proto(view(status=S.CANCELLING)))


def test_the_owner_is_told_to_cancel_and_why(remote: Remote) -> None:
    remote.host.answer("CancelOperation", CANCELLING)

    remote.source().cancel("too slow", TIMEOUT)

    assert ["too slow"] == remote.cancels


def test_another_instance_is_not_told_to_cancel(remote: Remote) -> None:
    remote.host.answer(
        "ListOperations", pb.ListOperationsResponse(instance="another", incarnation="first")
    )
    remote.host.answer("CancelOperation", CANCELLING)

    assert isinstance(error_of(lambda: remote.source().cancel("", TIMEOUT)), WrongHostError)
    assert [] == remote.cancels


@pytest.mark.parametrize("unknown", [UNKNOWN_TO_ANOTHER, UNKNOWN_TO_WHOEVER])
def test_a_cancellation_that_reached_another_instance_is_not_taken_for_done(
    remote: Remote, unknown: KtrdrError
) -> None:
    remote.host.answer("CancelOperation", unknown)

    assert isinstance(error_of(lambda: remote.unstarted().cancel("", TIMEOUT)), WrongHostError)


def test_a_cancellation_whose_answer_is_anothers_is_not_taken_for_done(remote: Remote) -> None:
    message = pb.CancelOperationResponse(operation=view_to_proto(view("another")))
    remote.host.answer("CancelOperation", message)

    assert isinstance(error_of(lambda: remote.source().cancel("", TIMEOUT)), WrongHostError)


@pytest.mark.parametrize("unknown", [UNKNOWN_TO_OWNER, UNKNOWN_TO_SUCCESSOR])
def test_what_is_lost_needs_no_cancelling(remote: Remote, unknown: KtrdrError) -> None:
    remote.host.answer("CancelOperation", unknown)
    remote.source().cancel("", TIMEOUT)

    remote.answers(unknown)
    assert (S.FAILED, "OPERATION_LOST") == ending(read(remote.source()))


def test_an_owner_that_was_never_told_is_told_to_start_and_to_cancel(remote: Remote) -> None:
    """Else a start that is still on its way would begin after the cancellation."""
    remote.host.answer("CancelOperation", UNKNOWN_TO_OWNER, CANCELLING)

    remote.unstarted().cancel("no more", TIMEOUT)

    assert 1 == len(remote.starting.timeouts)
    assert ["no more", "no more"] == remote.cancels


def test_a_cancelled_start_that_is_refused_for_good_is_told_by_the_next_read(
    remote: Remote,
) -> None:
    remote.host.answer("CancelOperation", UNKNOWN_TO_OWNER)
    remote.starting.error = InvalidArgumentError.of("symbols", "are not known")
    source = remote.unstarted()

    source.cancel("no more", TIMEOUT)

    remote.answers(UNKNOWN_TO_OWNER)
    assert (S.FAILED, "INVALID_ARGUMENT") == ending(read(source))
    assert ["no more"] == remote.cancels


def test_a_cancellation_fails_if_the_owner_cannot_be_told_to_start(remote: Remote) -> None:
    remote.host.answer("CancelOperation", UNKNOWN_TO_OWNER)
    remote.starting.error = ResourceExhaustedError("full")

    assert remote.starting.error is error_of(lambda: remote.unstarted().cancel("", TIMEOUT))


def test_a_cancellation_confirms_the_start(remote: Remote) -> None:
    remote.host.answer("CancelOperation", CANCELLING)
    source = remote.unstarted()
    source.cancel("", TIMEOUT)
    remote.answers(UNKNOWN_TO_OWNER)

    assert (S.FAILED, "OPERATION_LOST") == ending(read(source))


# --------------------------------------------------------------------- waiting


def test_a_wait_is_one_call_at_the_owner(remote: Remote) -> None:
    gate, ended = threading.Event(), threading.Event()

    def when_open(_: object) -> Message:
        assert gate.wait(TIMEOUT)
        return pb.WaitOperationResponse(operation=RUNNING.operation)

    remote.host.answer("WaitOperation", when_open)
    pending = remote.source().begin_wait(30.0)
    pending.add_done_callback(lambda _: ended.set())
    assert not pending.done()
    gate.set()

    assert pending.result() is None
    assert ended.wait(TIMEOUT)
    assert pending.done()
    assert [30] == [call.timeout.seconds for call in remote.host.calls("WaitOperation")]


def test_a_wait_without_a_place_says_when_to_return(remote: Remote) -> None:
    remote.host.answer(
        "WaitOperation",
        pb.WaitOperationResponse(operation=RUNNING.operation, retry_after=Duration(seconds=3)),
    )

    assert 3.0 == remote.source().begin_wait(30.0).result()


def test_a_wait_can_be_given_up(remote: Remote) -> None:
    gate = threading.Event()

    def when_open(_: object) -> Message:
        assert gate.wait(TIMEOUT)
        return pb.WaitOperationResponse()

    remote.host.answer("WaitOperation", when_open)
    pending = remote.source().begin_wait(30.0)

    assert pending.cancel()
    assert isinstance(error_of(pending.result), HostUnreachableError)
    gate.set()
