from __future__ import annotations

import threading
from math import inf
from time import monotonic

import pytest

from shared.operations.model import OperationStatus
from shared.operations.views import OperationView
from shared.operations.waiting import Waiter
from shared.rpc.errors import (
    HostUnreachableError,
    OperationCancelledError,
    OperationNotFoundError,
    ProcessStoppingError,
    WaitLimitError,
)
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource, FakeWait
from tests.unit.operations.fakes import RESULT, Background, Setup, operation

S = OperationStatus
DONE = operation(status=S.COMPLETED, result=RESULT)


@pytest.fixture
def setup() -> Setup:
    return Setup()


class Waiting:
    """One caller of WaitOperation, on a thread of its own."""

    def __init__(
        self,
        setup: Setup,
        timeout: float = 60.0,
        deadline: float = inf,
        waiter: Waiter | None = None,
    ) -> None:
        self.waiter = waiter or Waiter()
        self._call = Background(lambda: self._wait(setup, timeout, deadline))

    def _wait(self, setup: Setup, timeout: float, deadline: float) -> object:
        return setup.service.wait_operation("op", timeout, self.waiter, deadline=deadline)

    @property
    def running(self) -> bool:
        return self._call.running

    def answer(self) -> tuple[OperationStatus, float | None]:
        """The state and the time to return, once the call is back."""
        answered = self._call.result()
        assert isinstance(answered, tuple)
        view, retry_after = answered
        assert isinstance(view, OperationView)
        return view.operation.status, retry_after


def waiters(setup: Setup) -> int:
    live = setup.service._registry._live.get("op")
    return 0 if live is None else len(live._waiters)


def free_slots(setup: Setup) -> int:
    return setup.service._room._free


def waiting(setup: Setup, count: int = 1, timeout: float = 60.0) -> list[Waiting]:
    calls = [Waiting(setup, timeout) for _ in range(count)]
    eventually(lambda: waiters(setup) == count)
    return calls


def waiting_at(setup: Setup, source: FakeRemoteSource, count: int = 1) -> list[Waiting]:
    setup.remote(source)
    calls = waiting(setup, count)
    eventually(lambda: len(source.waits) == 1)
    return calls


# ------------------------------------------------------------------ work in here


@pytest.mark.parametrize("ending", ["complete", "fail", "cancel", "process"])
def test_every_end_wakes_all_who_wait(setup: Setup, ending: str) -> None:
    setup.running()
    calls = waiting(setup, 4)
    expected = {
        "complete": S.COMPLETED,
        "fail": S.FAILED,
        "cancel": S.CANCELLED,
        "process": S.FAILED,
    }
    if ending == "complete":
        setup.service.complete_operation("op", RESULT)
    elif ending == "fail":
        setup.service.fail_operation("op", ValueError("no"))
    elif ending == "cancel":
        setup.service.cancel_operation("op")
        setup.service.fail_operation("op", OperationCancelledError("asked"))
    else:
        setup.service.end_unfinished()

    assert [(expected[ending], None)] * 4 == [call.answer() for call in calls]
    assert 16 == free_slots(setup)


def test_a_pending_operation_that_is_cancelled_wakes_those_who_wait(setup: Setup) -> None:
    setup.pending()
    (call,) = waiting(setup)
    setup.service.cancel_operation("op")

    assert (S.CANCELLED, None) == call.answer()


def test_what_has_ended_is_answered_at_once(setup: Setup) -> None:
    setup.running()
    setup.service.complete_operation("op", RESULT)

    assert (S.COMPLETED, None) == Waiting(setup).answer()
    assert 16 == free_slots(setup)


def test_an_unknown_operation_is_not_found(setup: Setup) -> None:
    with pytest.raises(OperationNotFoundError):
        Waiting(setup).answer()


@pytest.mark.parametrize("timeout", [0.0, 0.02])
def test_at_the_timeout_the_latest_state_is_answered_without_a_time_to_return(
    timeout: float,
) -> None:
    setup = Setup(real_time=True)
    setup.running()

    assert (S.RUNNING, None) == Waiting(setup, timeout).answer()
    assert (0, 16) == (waiters(setup), free_slots(setup))


def test_the_callers_deadline_ends_the_wait(setup: Setup) -> None:
    setup.running()

    assert (S.RUNNING, None) == Waiting(setup, 60.0, setup.clock.monotonic()).answer()


def test_a_caller_that_goes_away_frees_its_slot(setup: Setup) -> None:
    setup.running()
    gone, stays = waiting(setup, 2)
    gone.waiter.leave()

    gone.answer()
    eventually(lambda: waiters(setup) == 1)
    assert 15 == free_slots(setup)
    assert stays.running
    setup.service.complete_operation("op", RESULT)
    assert (S.COMPLETED, None) == stays.answer()


def test_a_caller_that_has_gone_before_does_not_wait(setup: Setup) -> None:
    setup.running()
    waiter = Waiter()
    waiter.leave()

    setup.service.wait_operation("op", 60.0, waiter)

    assert 16 == free_slots(setup)


def test_without_a_slot_the_state_and_a_time_to_return_are_answered_at_once() -> None:
    setup = Setup(wait_slots=2)
    setup.running()
    calls = waiting(setup, 2)

    status, retry_after = Waiting(setup).answer()

    assert S.RUNNING is status
    assert retry_after is not None
    assert retry_after > 0
    setup.service.complete_operation("op", RESULT)
    assert [(S.COMPLETED, None)] * 2 == [call.answer() for call in calls]
    assert 2 == free_slots(setup)


def test_one_who_waits_when_the_process_stops_gets_the_latest_state(setup: Setup) -> None:
    setup.running()
    calls = waiting(setup, 3)
    setup.service.refuse_starts()

    for call in calls:
        status, retry_after = call.answer()
        assert S.RUNNING is status
        assert retry_after is not None
    status, retry_after = Waiting(setup).answer()
    assert retry_after is not None
    assert 16 == free_slots(setup)


def test_one_who_waits_is_sent_home_when_the_end_cannot_be_stored(setup: Setup) -> None:
    setup.running()
    (call,) = waiting(setup)
    setup.store.away = True
    setup.service.complete_operation("op", RESULT)

    status, retry_after = call.answer()
    assert S.RUNNING is status
    assert retry_after is not None

    setup.store.away = False
    assert (S.COMPLETED, None) == Waiting(setup).answer()


def test_no_wake_up_is_lost_between_looking_and_waiting() -> None:
    for _ in range(100):
        setup = Setup()
        setup.running()
        call = Waiting(setup)
        setup.service.complete_operation("op", RESULT)
        assert (S.COMPLETED, None) == call.answer()


class EndsWhenCleared(threading.Event):
    """An event at whose clearing the operation ends: the worst moment there is."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._setup = setup

    def clear(self) -> None:
        """End the operation, and forget the wake-up."""
        self._setup.service.complete_operation("op", RESULT)
        super().clear()


def test_a_wake_up_that_is_cleared_is_seen_all_the_same(setup: Setup) -> None:
    setup.running()
    waiter = Waiter()
    waiter.event = EndsWhenCleared(setup)
    waiter.event.set()

    assert (S.COMPLETED, None) == Waiting(setup, waiter=waiter).answer()


# ------------------------------------------------------------------ work elsewhere


def test_all_who_wait_for_work_elsewhere_share_one_wait_at_its_owner(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    calls = waiting_at(setup, source, 4)
    source.operation = DONE
    source.waits[0].end()

    assert [(S.COMPLETED, None)] * 4 == [call.answer() for call in calls]
    assert 1 == len(source.waits)
    assert (16, 60.0) == (free_slots(setup), source.waits[0].timeout)


def test_a_leader_that_goes_away_frees_its_slot_and_another_leads(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    setup.remote(source)
    (leader,) = waiting(setup)
    eventually(lambda: len(source.waits) == 1)
    other = Waiting(setup)
    eventually(lambda: waiters(setup) == 2)

    leader.waiter.leave()

    leader.answer()
    eventually(lambda: len(source.waits) == 2)
    assert source.waits[0].cancelled
    assert 15 == free_slots(setup)
    source.operation = DONE
    source.waits[1].end()
    assert (S.COMPLETED, None) == other.answer()


def test_a_stopping_process_also_wakes_those_who_wait_for_work_elsewhere(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    calls = waiting_at(setup, source, 3)
    setup.service.refuse_starts()

    for call in calls:
        status, retry_after = call.answer()
        assert S.RUNNING is status
        assert retry_after is not None
    assert source.waits[0].cancelled


def test_a_wait_elsewhere_that_is_over_in_time_is_answered_without_a_time_to_return(
    setup: Setup,
) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))

    def run_out(wait: FakeWait) -> None:
        setup.clock.advance(wait.timeout)
        wait.end()

    source.on_wait = run_out
    setup.remote(source)

    assert (S.RUNNING, None) == Waiting(setup, 5.0).answer()
    assert 1 == len(source.waits)


def test_an_owner_that_cannot_be_reached_sends_its_waiters_home(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    source.on_wait = lambda wait: wait.end(HostUnreachableError("down"))
    setup.remote(source)

    status, retry_after = Waiting(setup).answer()

    assert S.RUNNING is status
    assert retry_after is not None
    assert 1 == len(source.waits)


def test_an_owner_lost_after_the_wait_sends_its_waiters_home(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    (call,) = waiting_at(setup, source)
    source.error = HostUnreachableError("down")
    source.waits[0].end()

    status, retry_after = call.answer()
    assert S.RUNNING is status
    assert retry_after is not None


def test_an_end_that_another_reader_brings_ends_the_wait_at_the_owner(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    calls = waiting_at(setup, source, 2)
    source.operation = DONE
    setup.service.get_operation("op", max_staleness=0.0)

    assert [(S.COMPLETED, None)] * 2 == [call.answer() for call in calls]
    assert source.waits[0].cancelled


def test_an_end_that_cannot_be_stored_does_not_turn_waiting_into_polling(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    source.on_wait = lambda wait: wait.end() if len(source.waits) > 1 else None
    (call,) = waiting_at(setup, source)
    source.operation = DONE
    setup.store.away = True
    source.waits[0].end()

    status, retry_after = call.answer()
    assert S.RUNNING is status
    assert retry_after is not None
    assert 1 == len(source.waits)


def test_an_end_that_is_being_stored_is_waited_for(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    source.on_wait = lambda wait: wait.end() if len(source.waits) > 1 else None
    (call,) = waiting_at(setup, source)
    source.operation = DONE
    setup.store.finish_gate.clear()
    reader = Background(setup.status)
    setup.clock.advance(2)
    reader.result()
    storing = Background(lambda: setup.service.get_operation("op", max_staleness=0.0))
    assert setup.store.finishing.wait(5)
    source.waits[0].end()
    eventually(lambda: not setup.service._registry._live["op"]._upstream_wait)
    assert call.running
    setup.store.finish_gate.set()

    storing.result()
    assert (S.COMPLETED, None) == call.answer()
    assert 1 == len(source.waits)


# ------------------------------------------------ callers that cannot be told when


class InPlace(Waiting):
    """One caller who cannot be told when to come back."""

    def _wait(self, setup: Setup, timeout: float, deadline: float) -> object:
        return setup.service.wait_in_place("op", timeout, self.waiter, deadline=deadline), None


def test_who_cannot_be_told_when_to_come_back_is_answered_at_the_end(setup: Setup) -> None:
    setup.running()
    call = InPlace(setup)
    eventually(lambda: waiters(setup) == 1)
    setup.service.complete_operation("op", RESULT)

    assert (S.COMPLETED, None) == call.answer()
    assert (S.COMPLETED, None) == InPlace(setup).answer()
    assert 16 == free_slots(setup)


def test_who_cannot_be_told_and_finds_no_slot_is_refused_with_a_time_to_come_back() -> None:
    setup = Setup(wait_slots=2)
    setup.running()
    waiting(setup, 2)

    with pytest.raises(WaitLimitError, match="2 callers wait already") as raised:
        InPlace(setup).answer()

    assert 0.25 <= raised.value.retry_after <= 30
    setup.service.complete_operation("op", RESULT)
    assert (S.COMPLETED, None) == InPlace(setup).answer()


def test_who_cannot_be_told_keeps_its_slot_while_the_owner_cannot_be_reached() -> None:
    setup = Setup(real_time=True)
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    source.on_wait = lambda wait: wait.end(HostUnreachableError("down"))
    setup.remote(source)
    began = monotonic()

    assert (S.RUNNING, None) == InPlace(setup).answer()
    assert 0.25 <= monotonic() - began < 5
    assert 1 == len(source.waits)
    assert (0, 16) == (waiters(setup), free_slots(setup))


def test_who_is_kept_is_answered_at_once_if_the_end_comes(setup: Setup) -> None:
    source = FakeRemoteSource(operation=operation(status=S.RUNNING))
    source.on_wait = lambda wait: wait.end(HostUnreachableError("down"))
    setup.remote(source)
    call = InPlace(setup)
    eventually(lambda: len(source.waits) == 1 and waiters(setup) == 1)
    assert call.running
    source.operation = DONE
    setup.service.get_operation("op", max_staleness=0.0)

    assert (S.COMPLETED, None) == call.answer()


def test_who_cannot_be_told_is_kept_while_the_end_cannot_be_stored() -> None:
    setup = Setup(real_time=True)
    setup.running()
    setup.store.away = True
    setup.service.complete_operation("op", RESULT)
    began = monotonic()

    assert (S.RUNNING, None) == InPlace(setup).answer()
    assert 0.25 <= monotonic() - began < 5


def test_a_stopping_process_sends_them_home_and_refuses_further_ones(setup: Setup) -> None:
    setup.running()
    call = InPlace(setup)
    eventually(lambda: waiters(setup) == 1)
    setup.service.refuse_starts()

    assert (S.RUNNING, None) == call.answer()
    with pytest.raises(ProcessStoppingError, match="nobody can wait here any more"):
        InPlace(setup).answer()
    assert 16 == free_slots(setup)


def test_nothing_is_left_of_those_who_waited() -> None:
    before = set(threading.enumerate())
    setup = Setup(wait_slots=4)
    setup.running()
    calls = waiting(setup, 4)
    setup.service.complete_operation("op", RESULT)
    for call in calls:
        call.answer()

    assert 4 == free_slots(setup)
    eventually(lambda: set(threading.enumerate()) <= before)
