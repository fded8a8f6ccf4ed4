from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest

from shared.operations.flights import FULL_TIMEOUT, PAGE
from shared.operations.live import LiveOperation
from shared.operations.refresh import Refreshed
from shared.operations.source import BridgeSource, PendingRead
from shared.operations.sweep import refresh_all
from shared.rpc.errors import (
    HostTimeoutError,
    HostUnreachableError,
    NotFoundError,
    RefreshBusyError,
)
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource, ReadCall
from tests.unit.operations.fakes import Background, Worker, metric, record, steps
from tests.unit.operations.refreshing import TTL, Refreshing

READ, HIT = Refreshed(cached=False), Refreshed(cached=True)


class Sweeping(Refreshing):
    """A refresher on a fake clock that refreshes many operations at once."""

    def sweep(
        self, lives: Sequence[LiveOperation], staleness: float = TTL, within: float = inf
    ) -> list[Refreshed]:
        return refresh_all(self.refresher, lives, staleness, self.clock.monotonic() + within)

    def sweeping(self, lives: Sequence[LiveOperation], within: float = inf) -> Background:
        return Background(lambda: self.sweep(lives, TTL, within))

    def many(self, count: int, target: str = "host:50052") -> list[FakeRemoteSource]:
        return [FakeRemoteSource(target=target) for _ in range(count)]

    def at_each(self, sources: Sequence[FakeRemoteSource]) -> list[LiveOperation]:
        return [self.at(source, f"{source.target}-{i}") for i, source in enumerate(sources)]


@pytest.fixture
def its() -> Sweeping:
    return Sweeping(max_waiters=2)


@pytest.fixture
def source() -> FakeRemoteSource:
    return FakeRemoteSource()


def log_of(live: LiveOperation) -> list[int]:
    return steps(live.state(0, 10**6).metrics)


def kinds(results: object) -> list[type | None]:
    """Which errors a sweep's results hold."""
    assert isinstance(results, list)
    return [None if result.error is None else type(result.error) for result in results]


def sent(sources: Sequence[FakeRemoteSource]) -> int:
    return sum(len(source.begun) for source in sources)


# --------------------------------------------------------------- without a host


def test_nothing_is_swept_in_no_time(its: Sweeping) -> None:
    assert [] == its.sweep([])


def test_what_is_young_enough_is_not_read(its: Sweeping, source: FakeRemoteSource) -> None:
    live = its.at(source)
    its.read(live)

    assert [HIT] == its.sweep([live])
    assert [] == source.begun


def test_work_of_this_process_is_read_at_once(its: Sweeping) -> None:
    worker, live = Worker(), LiveOperation(record(), 0.0)
    live.source = BridgeSource(worker.bridge)
    worker.measure(1, 2)

    assert [READ] == its.sweep([live], within=0.0)
    assert [1, 2] == log_of(live)


def test_what_has_no_source_yet_is_as_known(its: Sweeping) -> None:
    assert [HIT] == its.sweep([LiveOperation(record(), 0.0)])


# ------------------------------------------------------------------------ reads


def test_results_come_in_the_order_of_the_operations(its: Sweeping) -> None:
    sources = [*its.many(3, "a:1"), *its.many(3, "b:1")]
    sources[1].error = NotFoundError("gone")
    sources[5].error = NotFoundError("gone")
    worker, local = Worker(), LiveOperation(record("local"), 0.0)
    local.source = BridgeSource(worker.bridge)
    lives = its.at_each(sources)

    results = its.sweep([*lives[3:], local, *lives[:3]])

    assert [None, None, NotFoundError, None, None, NotFoundError, None] == kinds(results)
    assert [1] * 6 == [len(source.begun) for source in sources]


def test_a_read_asks_for_what_is_missing_within_the_sweeps_time(
    its: Sweeping, source: FakeRemoteSource
) -> None:
    source.log = [metric(1), metric(2)]
    live = its.at(source)
    its.read(live)
    its.clock.advance(2.0)
    source.log.append(metric(3))

    assert [READ] == its.sweep([live])
    assert [ReadCall(2, PAGE, 0.5, FULL_TIMEOUT)] == source.begun
    assert [1, 2, 3] == log_of(live)
    its.clock.advance(2.0)
    its.sweep([live], within=1.0)
    assert pytest.approx(0.9) == source.begun[-1].timeout


def test_a_log_longer_than_a_page_is_read_on(its: Sweeping, source: FakeRemoteSource) -> None:
    source.log, source.page = [metric(number) for number in range(1, 6)], 2
    live = its.at(source)

    assert [READ] == its.sweep([live])
    assert ([1, 2, 3, 4, 5], 2) == (log_of(live), len(source.calls))


def test_so_many_reads_of_a_target_are_on_their_way_and_each_answer_makes_room(
    its: Sweeping,
) -> None:
    sources = its.many(5)
    for source in sources:
        source.gate.clear()
    results = its.sweeping(its.at_each(sources))
    eventually(lambda: sent(sources) == 2)
    sources[1].gate.set()
    eventually(lambda: sent(sources) == 3)
    sources[0].gate.set()
    eventually(lambda: sent(sources) == 4)

    assert [1, 1, 1, 1, 0] == [len(source.begun) for source in sources]
    for source in sources:
        source.gate.set()
    assert [READ] * 5 == results.result()


def test_a_frozen_target_delays_no_other(its: Sweeping) -> None:
    frozen, healthy = its.many(3, "frozen:1"), its.many(3, "healthy:1")
    for source in frozen:
        source.gate.clear()
    results = its.sweeping(its.at_each([*frozen, *healthy]))

    eventually(lambda: sent(healthy) == 3)
    assert 2 == sent(frozen)
    for source in frozen:
        source.gate.set()
    assert [READ] * 6 == results.result()


def test_a_sweep_counts_as_one_who_waits_for_each_target(its: Sweeping) -> None:
    sources = [*its.many(2, "a:1"), *its.many(2, "b:1")]
    for source in sources:
        source.gate.clear()
    results = its.sweeping(its.at_each(sources))
    eventually(lambda: sent(sources) == 4)

    assert {"a:1": 1, "b:1": 1} == its.refresher.outages._waiting
    for source in sources:
        source.gate.set()
    results.result()
    assert not its.refresher.outages._waiting


def test_a_crowded_target_is_left_out_and_the_others_are_read(its: Sweeping) -> None:
    crowded, quiet = its.many(2, "crowded:1"), its.many(1, "quiet:1")
    lives = its.at_each([*crowded, *quiet])
    outages = its.refresher.outages
    with outages.waiting_for("crowded:1"), outages.waiting_for("crowded:1"):
        results = its.sweep(lives)

    assert [RefreshBusyError, RefreshBusyError, None] == kinds(results)
    assert [True, True, False] == [result.cached for result in results]
    assert (0, 1) == (sent(crowded), sent(quiet))


# --------------------------------------------------------------------- failures


def test_a_dead_target_costs_as_many_tries_as_were_on_their_way(its: Sweeping) -> None:
    sources = its.many(6)
    for source in sources:
        source.error = HostUnreachableError("down")

    results = its.sweep(its.at_each(sources))

    assert [HostUnreachableError] * 6 == kinds(results)
    assert sent(sources) <= 2


def test_an_error_of_one_operation_is_its_own(its: Sweeping) -> None:
    sources = its.many(4)
    sources[0].error = NotFoundError("gone")

    assert [NotFoundError, None, None, None] == kinds(its.sweep(its.at_each(sources)))


def test_what_failed_lately_is_not_asked(its: Sweeping, source: FakeRemoteSource) -> None:
    source.error = HostUnreachableError("down")
    live = its.at(source)
    its.read(live)

    assert [Refreshed(cached=True, error=source.error)] == its.sweep([live])
    assert [] == source.begun


@pytest.mark.parametrize("within", [0.05, 0.0, -1.0])
def test_without_time_nobody_is_asked(
    its: Sweeping, source: FakeRemoteSource, within: float
) -> None:
    assert [HostTimeoutError] == kinds(its.sweep([its.at(source)], within=within))
    assert [] == source.begun


def test_what_has_had_no_turn_when_the_time_is_up_is_not_asked(its: Sweeping) -> None:
    sources = its.many(4)
    for source in sources[:2]:
        source.gate.clear()
    results = its.sweeping(its.at_each(sources), within=1.0)
    eventually(lambda: sent(sources) == 2)
    its.clock.advance(0.95)
    for source in sources[:2]:
        source.gate.set()

    assert [HostTimeoutError, HostTimeoutError] == kinds(results.result())[2:]
    assert [1, 1, 0, 0] == [len(source.begun) for source in sources]


def test_an_answer_that_came_late_says_so(its: Sweeping, source: FakeRemoteSource) -> None:
    source.after_read = lambda: its.clock.advance(1.5)

    (result,) = its.sweep([its.at(source)])

    assert isinstance(result.error, HostTimeoutError)
    assert not result.cached


# ----------------------------------------------------------- with other readers


def test_a_read_that_another_has_sent_is_shared(its: Sweeping, source: FakeRemoteSource) -> None:
    live = its.at(source)
    reader = its.in_flight(live, source)
    results = its.sweeping([live])
    eventually(lambda: its.sharing(live) == 1)
    source.gate.set()

    assert (READ, [READ]) == (reader.result(), results.result())
    assert (1, 0) == (len(source.calls), len(source.begun))


def test_others_share_the_reads_of_a_sweep(its: Sweeping, source: FakeRemoteSource) -> None:
    source.gate.clear()
    live = its.at(source)
    results = its.sweeping([live])
    eventually(lambda: len(source.begun) == 1)
    reader = its.background(live)
    eventually(lambda: its.sharing(live) == 1)
    source.gate.set()

    assert (READ, [READ]) == (reader.result(), results.result())
    assert 0 == len(source.calls)


def test_sweeps_that_meet_share_their_reads(its: Sweeping) -> None:
    sources = its.many(2)
    for source in sources:
        source.gate.clear()
    first, second = its.at_each(sources)
    one = its.sweeping([first, second])
    eventually(lambda: sent(sources) == 2)
    other = its.sweeping([second, first])
    eventually(lambda: its.sharing(first) + its.sharing(second) >= 1)
    for source in sources:
        source.gate.set()

    assert [READ, READ] == one.result()
    assert [READ, READ] == other.result()
    assert 2 == sent(sources)


def test_what_another_reads_while_it_is_queued_is_not_read_again(its: Sweeping) -> None:
    sources = its.many(3)
    for source in sources[:2]:
        source.gate.clear()
    lives = its.at_each(sources)
    results = its.sweeping(lives)
    eventually(lambda: sent(sources) == 2)
    assert READ == its.read(lives[2])
    for source in sources[:2]:
        source.gate.set()

    assert [READ] * 3 == results.result()
    assert (1, 0) == (len(sources[2].calls), len(sources[2].begun))


# -------------------------------------------------------------- what goes wrong


class Unsendable(FakeRemoteSource):
    """A source whose reads cannot even be sent."""

    def begin_read(self, *_: float) -> PendingRead:  # type: ignore[override]  # it raises anyway
        raise ZeroDivisionError


def test_no_flight_is_left_when_a_read_cannot_be_sent(its: Sweeping) -> None:
    sources = [FakeRemoteSource(), Unsendable()]
    sources[0].gate.clear()
    lives = its.at_each(sources)

    with pytest.raises(ZeroDivisionError):
        its.sweep(lives)

    assert [None, None] == [live.flight for live in lives]
    assert not its.refresher.outages._waiting
    sources[0].gate.set()


def test_no_flight_is_left_when_an_answer_is_a_defect(its: Sweeping) -> None:
    sources = its.many(3)
    sources[0].error = ZeroDivisionError()
    sources[1].gate.clear()
    lives = its.at_each(sources)

    with pytest.raises(ZeroDivisionError):
        its.sweep(lives)

    assert [None, None, None] == [live.flight for live in lives]
    assert not its.refresher.outages._waiting
    sources[1].gate.set()
