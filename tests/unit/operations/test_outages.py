from __future__ import annotations

import threading
from math import inf

import pytest

from shared.operations.live import LiveOperation
from shared.operations.outages import Outages
from shared.rpc.errors import (
    HostTimeoutError,
    HostUnreachableError,
    KtrdrError,
    RefreshBusyError,
    WrongHostError,
)
from tests.support.clock import FakeClock
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import in_threads, record

MEMORY = 2.0
DOWN = HostUnreachableError("down")
ODD = WrongHostError("host:50052", expected="host", found="another")


class Remembering:
    """Outages on a clock, of operations at sources."""

    def __init__(self, max_waiters: int = 2) -> None:
        self.clock = FakeClock()
        self.outages = Outages(self.clock, memory=MEMORY, max_waiters_per_target=max_waiters)

    def at(
        self, operation_id: str = "op", target: str | None = "host:50052"
    ) -> tuple[LiveOperation, FakeRemoteSource]:
        return LiveOperation(record(operation_id), 0.0), FakeRemoteSource(target=target)

    def fail(self, error: KtrdrError, operation_id: str = "op") -> None:
        self.outages.remember(*self.at(operation_id), self.clock.monotonic(), error)

    def recall(
        self, operation_id: str = "op", target: str | None = "host:50052", since: float = -inf
    ) -> KtrdrError | None:
        return self.outages.recall(*self.at(operation_id, target), since)


@pytest.fixture
def its() -> Remembering:
    return Remembering()


# -------------------------------------------------------------------- failures


def test_nothing_has_failed_at_first(its: Remembering) -> None:
    assert its.recall() is None


@pytest.mark.parametrize("error", [DOWN, HostTimeoutError("silent")])
def test_a_target_that_cannot_be_reached_is_so_for_all_its_operations(
    its: Remembering, error: KtrdrError
) -> None:
    its.fail(error)

    assert (error, error) == (its.recall(), its.recall("other"))
    assert its.recall(target="other:1") is not error


def test_an_error_of_another_kind_is_of_the_operation_alone(its: Remembering) -> None:
    its.fail(ODD)

    assert (ODD, None) == (its.recall(), its.recall("other"))


def test_an_operation_without_a_target_fails_for_itself(its: Remembering) -> None:
    live, source = its.at(target=None)
    its.outages.remember(live, source, its.clock.monotonic(), DOWN)

    assert (DOWN, None) == (its.recall(target=None), its.recall("other"))


def test_the_target_is_looked_at_first(its: Remembering) -> None:
    its.fail(ODD)
    its.fail(DOWN)

    assert DOWN is its.recall()


def test_a_failure_stands_for_its_time(its: Remembering) -> None:
    its.fail(DOWN)
    its.clock.advance(MEMORY - 0.01)
    assert DOWN is its.recall()
    its.clock.advance(0.01)

    assert its.recall() is None


def test_a_failure_counts_from_when_it_is_known_not_from_when_the_read_began(
    its: Remembering,
) -> None:
    began_at = its.clock.monotonic()
    its.clock.advance(5.0)
    its.outages.remember(*its.at(), began_at, DOWN)

    assert DOWN is its.recall()


@pytest.mark.parametrize(("since", "stands"), [(-0.1, True), (0.0, False), (0.1, False)])
def test_a_failure_that_began_before_one_asked_does_not_count_for_a_forced_read(
    its: Remembering, since: float, stands: bool
) -> None:
    its.fail(DOWN)

    assert (DOWN if stands else None) is its.recall(since=its.clock.monotonic() + since)


def test_a_later_failure_takes_the_place_of_an_earlier_one(its: Remembering) -> None:
    its.fail(DOWN)
    its.clock.advance(1.5)
    later = HostUnreachableError("still down")
    its.fail(later)
    its.clock.advance(1.5)

    assert later is its.recall()


def test_what_answers_is_forgiven_with_its_target(its: Remembering) -> None:
    its.fail(DOWN)
    its.fail(ODD, "other")
    its.fail(ODD)
    its.outages.forget(*its.at())

    assert (None, ODD) == (its.recall(), its.recall("other"))


def test_forgiving_what_has_not_failed_changes_nothing(its: Remembering) -> None:
    its.outages.forget(*its.at(target=None))
    its.fail(ODD, "other")
    its.outages.forget(*its.at(target=None))

    assert ODD is its.recall("other")


def test_failures_that_are_over_are_not_kept(its: Remembering) -> None:
    for index in range(50):
        its.fail(ODD, f"op-{index}")
        its.clock.advance(1.0)

    assert len(its.outages._failures) <= MEMORY + 1


# -------------------------------------------------------------------- crowding


def test_so_many_wait_for_a_target_and_no_more(its: Remembering) -> None:
    with its.outages.waiting_for("a:1"), its.outages.waiting_for("a:1"):
        with pytest.raises(RefreshBusyError, match="a:1") as raised, its.outages.waiting_for("a:1"):
            raise AssertionError
        with its.outages.waiting_for("b:1"):
            assert {"a:1": 2, "b:1": 1} == its.outages._waiting
    assert {"target": "a:1"} == raised.value.metadata
    assert not its.outages._waiting


def test_those_who_cancel_are_not_kept_away_by_those_who_read(its: Remembering) -> None:
    with its.outages.waiting_for("a:1"), its.outages.waiting_for("a:1"):
        with its.outages.waiting_for("a:1", to_cancel=True):
            assert 3 == its.outages._waiting.total()
        assert 2 == its.outages._waiting.total()


def test_so_many_cancel_at_a_target_and_no_more(its: Remembering) -> None:
    cancelling = [its.outages.waiting_for("a:1", to_cancel=True) for _ in range(3)]
    with cancelling[0], cancelling[1]:
        with pytest.raises(RefreshBusyError) as raised, cancelling[2]:
            raise AssertionError
        with its.outages.waiting_for("a:1"):
            assert 3 == its.outages._waiting.total()
    assert {"target": "a:1"} == raised.value.metadata
    assert not its.outages._waiting


def test_whoever_leaves_makes_room_however_it_leaves(its: Remembering) -> None:
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), its.outages.waiting_for("a:1"):
            raise ZeroDivisionError

    with its.outages.waiting_for("a:1"), its.outages.waiting_for("a:1"):
        assert {"a:1": 2} == its.outages._waiting


def test_places_are_counted_right_whoever_comes_at_the_same_time() -> None:
    its = Remembering(max_waiters=3)
    inside, most, lock = 0, 0, threading.Lock()

    def come_and_go(_: int) -> None:
        nonlocal inside, most
        for _ in range(200):
            try:
                with its.outages.waiting_for("a:1"):
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    with lock:
                        inside -= 1
            except RefreshBusyError:
                continue

    assert [] == in_threads(8, come_and_go)
    assert most <= 3
    assert not its.outages._waiting


# ------------------------------------------------------------------------- the log


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "ktrdr.operations")
    return caplog


def test_an_outage_is_logged_once_whatever_asks_for_it(
    its: Remembering, log: pytest.LogCaptureFixture
) -> None:
    for operation_id in ("op", "op", "other"):
        its.fail(DOWN, operation_id)
        its.clock.advance(MEMORY + 1)
    assert ["host:50052 does not answer: down"] == log.messages
    assert ["ERROR"] == [each.levelname for each in log.records]
    assert ("host:50052",) == its.outages.unreachable()


def test_the_end_of_an_outage_is_logged_once_with_its_length(
    its: Remembering, log: pytest.LogCaptureFixture
) -> None:
    its.fail(DOWN)
    its.clock.advance(MEMORY + 1)
    for operation_id in ("other", "op"):
        its.outages.forget(*its.at(operation_id))
    assert ["host:50052 answers again, after 3.0 s"] == log.messages[1:]
    assert () == its.outages.unreachable()


def test_the_next_outage_is_logged_again(its: Remembering, log: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        its.fail(DOWN)
        its.outages.forget(*its.at())
    assert 4 == len(log.messages)


def test_an_operation_that_cannot_be_read_is_logged_once_and_when_it_can(
    its: Remembering, log: pytest.LogCaptureFixture
) -> None:
    live, source = its.at()
    for _ in range(2):
        its.outages.remember(live, source, its.clock.monotonic(), ODD)
    its.outages.forget(live, source)
    assert [f"host:50052 cannot tell of op: {ODD.message}", "host:50052 tells of op again"] == (
        log.messages
    )
    assert () == its.outages.unreachable()


def test_a_bridge_that_cannot_be_read_is_no_outage(
    its: Remembering, log: pytest.LogCaptureFixture
) -> None:
    live, source = its.at(target=None)
    its.outages.remember(live, source, its.clock.monotonic(), DOWN)
    assert [] == log.messages
    assert () == its.outages.unreachable()


def test_a_target_that_answers_wrongly_is_no_longer_away(
    its: Remembering, log: pytest.LogCaptureFixture
) -> None:
    its.fail(DOWN)
    its.fail(ODD)
    assert [
        "host:50052 does not answer: down",
        "host:50052 answers again, after 0.0 s",
        f"host:50052 cannot tell of op: {ODD.message}",
    ] == log.messages
