from __future__ import annotations

import threading

import pytest

from shared.operations.model import OperationStatus
from shared.rpc.errors import (
    HostUnreachableError,
    OperationCancelledError,
    RefreshBusyError,
    UnavailableError,
)
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import (
    DAY,
    RESULT,
    Background,
    Setup,
    WantedLock,
    in_threads,
    operation,
)

S = OperationStatus


@pytest.fixture
def setup() -> Setup:
    return Setup()


# -------------------------------------------------------------------- cancelling


def test_a_running_operation_is_cancelling_until_its_worker_stops(setup: Setup) -> None:
    worker = setup.running()

    view = setup.service.cancel_operation("op", "too slow")

    assert (S.CANCELLING, "too slow") == (view.operation.status, view.operation.cancel_reason)
    assert view.operation.cancel_time is not None
    assert (True, "too slow") == (worker.bridge.cancel.requested, worker.bridge.cancel.reason)
    with pytest.raises(OperationCancelledError):
        worker.report(1, "")
    setup.service.fail_operation("op", OperationCancelledError("too slow"))
    assert S.CANCELLED is setup.status()


def test_a_pending_operation_is_cancelled_at_once(setup: Setup) -> None:
    worker = setup.pending()

    view = setup.service.cancel_operation("op", "changed my mind")

    assert (S.CANCELLED, "changed my mind") == (view.operation.status, view.operation.cancel_reason)
    assert worker.bridge.cancel.requested
    assert not setup.service.begin_operation("op")
    setup.service.run_operation("op", lambda: pytest.fail("it must not run"))


def test_an_operation_without_a_source_is_cancelled_at_once(setup: Setup) -> None:
    setup.unread()

    assert S.CANCELLED is setup.service.cancel_operation("op").operation.status


def test_a_second_cancellation_changes_nothing(setup: Setup) -> None:
    setup.running()
    first = setup.service.cancel_operation("op", "first")
    setup.clock.advance(0.5)
    second = setup.service.cancel_operation("op", "second")

    assert first.operation == second.operation


def test_cancelling_what_has_ended_changes_nothing(setup: Setup) -> None:
    setup.running()
    setup.service.complete_operation("op", RESULT)
    before = setup.service.get_operation("op")

    assert before == setup.service.cancel_operation("op", "late")


def test_a_result_while_cancelling_wins(setup: Setup) -> None:
    setup.running()
    setup.service.cancel_operation("op", "late")
    setup.service.complete_operation("op", RESULT)

    ended = setup.service.get_operation("op").operation
    assert (S.COMPLETED, RESULT, "late") == (ended.status, ended.result, ended.cancel_reason)


def test_any_exception_while_cancelling_ends_cancelled_with_its_cause(setup: Setup) -> None:
    setup.running()
    setup.service.cancel_operation("op")
    setup.service.fail_operation("op", ValueError("torn down"))

    ended = setup.service.get_operation("op").operation
    assert S.CANCELLED is ended.status
    assert ended.error is not None
    assert "WORKER_RAISED" == ended.error.metadata["cause_reason"]
    assert "torn down" in ended.error.metadata["cause_message"]


def test_a_cancellation_racing_with_begin_never_runs_what_it_ended() -> None:
    for _ in range(50):
        setup = Setup()
        setup.pending()
        began: list[bool] = []
        act = (
            lambda setup=setup: setup.service.cancel_operation("op"),
            lambda setup=setup, began=began: began.append(setup.service.begin_operation("op")),
        )
        assert [] == in_threads(2, lambda index, act=act: act[index]())  # type: ignore[misc]  # bound now
        assert setup.status() is (S.CANCELLING if began[0] else S.CANCELLED)


def test_a_cancellation_racing_with_an_end_leaves_one_end() -> None:
    for turn in range(50):
        setup = Setup()
        setup.running()
        error = ValueError("no") if turn % 2 else None

        def end(setup: Setup = setup, error: Exception | None = error) -> None:
            if error is None:
                setup.service.complete_operation("op", RESULT)
            else:
                setup.service.fail_operation("op", error)

        act = (end, lambda setup=setup: setup.service.cancel_operation("op"))
        assert [] == in_threads(2, lambda index, act=act: act[index]())  # type: ignore[misc]  # bound now
        assert setup.status() in ({S.COMPLETED} if error is None else {S.FAILED, S.CANCELLED})
        assert {} == setup.service._registry._live


def test_an_owner_that_cannot_be_told_changes_nothing(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    setup.remote(source)
    setup.service.get_operation("op")
    source.cancel_error = HostUnreachableError("down")

    with pytest.raises(HostUnreachableError):
        setup.service.cancel_operation("op", "try")

    assert S.RUNNING is setup.status()
    source.cancel_error = None
    assert S.CANCELLING is setup.service.cancel_operation("op", "again").operation.status
    assert "again" == source.cancels[0][0]


class SlowToHear(FakeRemoteSource):
    """An owner that the first caller tells for as long as the test wants."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(operation=operation(status=S.RUNNING))
        self.telling = threading.Event()
        self.heard = threading.Event()
        self.error_of_first = error

    def cancel(self, reason: str, timeout: float) -> None:
        if self.telling.is_set():
            super().cancel(reason, timeout)
            return
        self.telling.set()
        assert self.heard.wait(10)
        if self.error_of_first is not None:
            raise self.error_of_first
        super().cancel(reason, timeout)


def two_cancel(setup: Setup, source: SlowToHear) -> tuple[Background, Background]:
    """Begin two cancellations; the second waits for what becomes of the first."""
    live = setup.remote(source)
    setup.service.get_operation("op")
    first = Background(lambda: setup.service.cancel_operation("op", "first"))
    assert source.telling.wait(10)
    second = Background(lambda: setup.service.cancel_operation("op", "second"))
    eventually(lambda: live._cancel_telling is not None and live._cancel_telling.waiting == 1)
    return first, second


def test_of_two_who_cancel_one_tells_the_owner_and_both_are_answered_then(setup: Setup) -> None:
    source = SlowToHear()
    first, second = two_cancel(setup, source)
    assert second.running
    source.heard.set()

    for each in (first, second):
        each.result()
    assert ["first"] == [reason for reason, _ in source.cancels]
    cancelling = setup.service.get_operation("op").operation
    assert (S.CANCELLING, "first") == (cancelling.status, cancelling.cancel_reason)


def test_of_two_who_cancel_the_second_takes_over_if_the_first_fails(setup: Setup) -> None:
    source = SlowToHear(HostUnreachableError("down"))
    first, second = two_cancel(setup, source)
    source.heard.set()

    with pytest.raises(HostUnreachableError):
        first.result()
    second.result()
    assert ["second"] == [reason for reason, _ in source.cancels]
    cancelling = setup.service.get_operation("op").operation
    assert (S.CANCELLING, "second") == (cancelling.status, cancelling.cancel_reason)


def test_of_two_who_cancel_in_vain_neither_is_promised_anything(setup: Setup) -> None:
    source = SlowToHear(HostUnreachableError("down"))
    source.cancel_error = HostUnreachableError("down")
    first, second = two_cancel(setup, source)
    source.heard.set()

    for each in (first, second):
        with pytest.raises(HostUnreachableError):
            each.result()
    assert S.RUNNING is setup.status()


def test_who_has_no_time_to_wait_for_another_to_tell_the_owner_is_promised_nothing(
    setup: Setup,
) -> None:
    source = SlowToHear()
    first, second = two_cancel(setup, source)

    with pytest.raises(UnavailableError, match="still telling"):
        setup.service.cancel_operation("op", "third", deadline=setup.clock.monotonic())
    source.heard.set()
    for each in (first, second):
        each.result()


def test_only_so_many_wait_for_one_who_tells_an_owner_that_is_slow() -> None:
    setup = Setup(refresh_waiters=2)
    source = SlowToHear()
    first, second = two_cancel(setup, source)

    with pytest.raises(RefreshBusyError):
        setup.service.cancel_operation("op", "third")
    source.heard.set()
    for each in (first, second):
        each.result()


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_whatever_keeps_an_owner_from_being_told_it_can_be_told_again(
    setup: Setup, error: BaseException
) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING), cancel_error=error)
    setup.remote(source)
    setup.service.get_operation("op")
    with pytest.raises(type(error)):
        setup.service.cancel_operation("op", "try")
    source.cancel_error = None

    assert S.CANCELLING is setup.service.cancel_operation("op", "again").operation.status
    assert ["again"] == [reason for reason, _ in source.cancels]


def test_cancelling_what_another_caller_is_storing_tells_how_it_ended(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.CANCELLED, end_time=DAY))
    lock = WantedLock.of(setup.remote(source))
    setup.store.finish_gate.clear()
    reading = Background(lambda: setup.service.get_operation("op"))
    assert setup.store.finishing.wait(10)

    told: list[OperationStatus] = []
    cancelling = Background(
        lambda: told.append(setup.service.cancel_operation("op").operation.status)
    )
    eventually(lambda: lock.wanted.is_set() or not cancelling.running)
    setup.store.finish_gate.set()
    reading.result()
    cancelling.result()

    assert [S.CANCELLED] == told


def test_an_owner_is_told_within_the_callers_time(setup: Setup) -> None:
    source = FakeRemoteSource()
    setup.remote(source)
    setup.service.cancel_operation("op", deadline=setup.clock.monotonic() + 2)
    assert [("", 2.0)] == source.cancels

    late = FakeRemoteSource()
    setup.remote(late, "late")
    setup.service.cancel_operation("late", deadline=setup.clock.monotonic() - 1)
    assert [("", 0.0)] == late.cancels


def test_pending_work_elsewhere_is_cancelled_by_its_owner(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation())
    setup.remote(source)

    assert S.PENDING is setup.service.cancel_operation("op").operation.status
    source.operation = operation(status=S.CANCELLED)
    setup.clock.advance(2)
    assert S.CANCELLED is setup.status()
