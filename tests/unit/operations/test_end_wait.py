from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.operations.end_wait import EndWait
from shared.operations.endings import Ending
from shared.operations.live import LiveOperation
from shared.operations.model import OperationStatus
from shared.operations.refresh import Refreshed
from shared.operations.waiting import Waiter
from shared.rpc.errors import HostUnreachableError
from tests.support.clock import FakeClock
from tests.support.sources import FakeRemoteSource, FakeWait
from tests.unit.operations.fakes import record

S = OperationStatus
UNTIL = 60.0


class PassingTime:
    """An event whose waiting moves a clock instead; what is due then happens."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._set = False
        self._due: list[tuple[float, Callable[[], object]]] = []
        self.waits: list[float] = []

    def at(self, instant: float, happens: Callable[[], object]) -> None:
        """Have something happen after so many seconds from the start."""
        self._due.append((1000.0 + instant, happens))
        self._due.sort(key=lambda due: due[0])

    def set(self) -> None:
        """Wake the waiter."""
        self._set = True

    def clear(self) -> None:
        """As events do."""
        self._set = False

    def wait(self, seconds: float) -> bool:
        """Let the time pass, until it is up or something wakes us."""
        self.waits.append(seconds)
        end = self._clock.monotonic() + seconds
        while not self._set and self._due and self._due[0][0] <= end:
            instant, happens = self._due.pop(0)
            self._clock.advance(max(0.0, instant - self._clock.monotonic()))
            happens()
        if not self._set:
            self._clock.advance(end - self._clock.monotonic())
        return self._set


class Waiting:
    """One who waits for work elsewhere, in a time that a test makes."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.time = PassingTime(self.clock)
        self.waiter = Waiter()
        self.waiter.event = self.time  # type: ignore[assignment]  # an event as far as it is used
        self.source = FakeRemoteSource()
        self.live = LiveOperation(record(status=S.RUNNING), 0.0)
        self.live.source = self.source
        self.refreshed = Refreshed(cached=False)
        self.refreshes = 0
        self.ended = True
        """Whether a read finds that it has."""
        self.stopping = False
        self.asked_at: list[float] = []
        self.answers: list[Callable[[FakeWait], object]] = []
        """What the owner does with each wait; it keeps the later ones open."""
        self.source.on_wait = self._ask

    def run(self) -> bool:
        return self._wait().run()

    def hold(self, seconds: float) -> None:
        self._wait().hold(seconds)

    def _wait(self) -> EndWait:
        return EndWait(
            self.live,
            self.waiter,
            1000.0 + UNTIL,
            self.clock,
            refresh=lambda _: self._refresh(),
            stopping=lambda: self.stopping,
        )

    def stop(self) -> None:
        """The process is about to end."""
        self.stopping = True
        self.live.wake_waiters()

    @property
    def passed(self) -> float:
        return self.clock.monotonic() - 1000.0

    def end(self) -> None:
        """The operation has ended, as whoever read it knows."""
        ended = Ending(S.COMPLETED, self.clock.now())
        self.live.claim_ending(lambda *_: ended)
        sealed = self.live.seal()
        assert sealed is not None
        self.live.publish(sealed[0])

    def _ask(self, wait: FakeWait) -> None:
        self.asked_at.append(self.passed)
        if self.answers:
            self.answers.pop(0)(wait)

    def _refresh(self) -> Refreshed:
        self.refreshes += 1
        if self.ended and self.refreshed.error is None:
            self.end()
        return self.refreshed


def later(seconds: float) -> Callable[[FakeWait], object]:
    """The owner has no place: come back later."""
    return lambda wait: wait.end(retry_after=seconds)


def test_the_owner_is_asked_for_all_the_time_there_is() -> None:
    its = Waiting()

    assert its.run()
    assert [UNTIL] == [wait.timeout for wait in its.source.waits]
    assert UNTIL == its.passed
    assert its.source.waits[0].cancelled


def test_an_end_at_the_owner_is_read_once() -> None:
    its = Waiting()
    its.answers = [lambda wait: its.time.at(5.0, wait.end)]

    assert its.run()
    assert (1, 5.0) == (its.refreshes, its.passed)


def test_a_wait_for_what_is_forgotten_meanwhile_is_over() -> None:
    its = Waiting()
    its.ended = False
    its.answers = [lambda _: its.time.at(5.0, its.live.forget)]

    assert its.run()
    assert (0, 5.0) == (its.refreshes, its.passed)


def test_an_owner_without_a_place_is_asked_again_when_it_wishes() -> None:
    its = Waiting()
    its.answers = [later(2.0), later(3.5), lambda wait: wait.end()]

    assert its.run()
    assert [0.0, 2.0, 5.5] == its.asked_at
    assert [60.0, 58.0, 54.5] == [wait.timeout for wait in its.source.waits]
    assert 1 == its.refreshes


def test_one_who_is_woken_early_still_leaves_the_owner_alone() -> None:
    its = Waiting()
    for instant in (0.5, 1.0, 1.5):
        its.time.at(instant, its.time.set)
    its.answers = [later(2.0), lambda wait: wait.end()]

    assert its.run()
    assert [0.0, 2.0] == its.asked_at


def test_an_owner_that_wishes_longer_than_there_is_time_is_asked_no_more() -> None:
    its = Waiting()
    its.answers = [later(100.0)]

    assert its.run()
    assert ([0.0], UNTIL, 0) == (its.asked_at, its.passed, its.refreshes)


def test_an_end_that_another_brings_ends_the_pause() -> None:
    its = Waiting()
    its.answers = [later(10.0)]
    its.time.at(1.0, its.end)

    assert its.run()
    assert ([0.0], 1.0) == (its.asked_at, its.passed)


@pytest.mark.parametrize("retry_after", [None, 0.0])
def test_an_owner_that_ends_waits_at_once_is_not_asked_without_a_pause(
    retry_after: float | None,
) -> None:
    its = Waiting()
    its.ended = False
    its.answers = [lambda wait: wait.end(retry_after=retry_after)] * 1000

    assert its.run()
    assert UNTIL == pytest.approx(its.passed)
    assert len(its.asked_at) <= 10 * UNTIL + 1


def test_one_who_leaves_ends_the_pause() -> None:
    its = Waiting()
    its.answers = [later(10.0)]
    its.time.at(1.0, its.waiter.leave)

    assert its.run()
    assert ([0.0], 1.0) == (its.asked_at, its.passed)


def test_a_process_that_stops_ends_the_pause() -> None:
    its = Waiting()
    its.answers = [later(10.0)]
    its.time.at(1.0, its.stop)

    assert not its.run()
    assert ([0.0], 1.0) == (its.asked_at, its.passed)


def test_a_process_that_stops_calls_the_wait_at_the_owner_off() -> None:
    its = Waiting()
    its.time.at(1.0, its.stop)

    assert not its.run()
    assert its.source.waits[0].cancelled


def test_an_owner_that_cannot_be_reached_ends_the_wait_and_lets_another_lead() -> None:
    its = Waiting()
    its.answers = [lambda wait: wait.end(HostUnreachableError("down"))]

    assert not its.run()
    assert its.source is its.live.lead_upstream_wait()


def test_an_end_that_cannot_be_read_ends_the_wait() -> None:
    its = Waiting()
    its.refreshed = Refreshed(cached=True, error=HostUnreachableError("down"))
    its.answers = [lambda wait: wait.end()]

    assert not its.run()
    assert 1 == its.refreshes


def test_who_does_not_lead_sleeps_until_it_is_over() -> None:
    its = Waiting()
    assert its.live.lead_upstream_wait() is its.source  # another leads
    its.time.at(3.0, its.end)

    assert its.run()
    assert ([], 3.0) == (its.asked_at, its.passed)


def test_who_takes_over_the_lead_asks_for_what_is_left() -> None:
    its = Waiting()
    its.live.lead_upstream_wait()

    def leave() -> None:
        its.live.end_upstream_wait()
        its.live.wake_waiters()

    its.time.at(20.0, leave)
    its.answers = [lambda wait: wait.end()]

    assert its.run()
    assert [40.0] == [wait.timeout for wait in its.source.waits]


def test_nothing_is_left_of_a_wait() -> None:
    its = Waiting()
    its.answers = [later(1.0), lambda wait: wait.end()]
    its.run()

    assert not its.live._waiters


def test_who_is_held_is_held_that_long_however_often_woken() -> None:
    its = Waiting()
    for instant in (0.5, 1.0, 1.5):
        its.time.at(instant, its.live.wake_waiters)
    its.hold(2.0)

    assert ([], 2.0) == (its.asked_at, its.passed)
    assert not its.live._waiters


def test_who_is_held_is_not_held_beyond_its_time() -> None:
    its = Waiting()
    its.hold(UNTIL + 10)

    assert UNTIL == its.passed


@pytest.mark.parametrize("happens", ["end", "stop", "leave"])
def test_nobody_is_held_when_there_is_no_point_in_it_any_more(happens: str) -> None:
    its = Waiting()
    its.time.at(1.0, its.waiter.leave if happens == "leave" else getattr(its, happens))
    its.hold(10.0)
    its.hold(10.0)

    assert 1.0 == its.passed
