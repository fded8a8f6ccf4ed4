"""Metrics are neither lost nor doubled, whoever reads when: with threads and against a model."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.operations.model import TRANSITIONS, OperationStatus, Progress
from shared.operations.source import SourceReading
from shared.rpc.errors import KtrdrError, StoreUnavailableError, UnavailableError
from tests.support.sources import FakeRemoteSource, state_of
from tests.unit.operations.fakes import (
    RESULT,
    FakeLaunch,
    Setup,
    Worker,
    in_threads,
    metric,
    new_operation,
    operation,
    steps,
)

S = OperationStatus


def reachable(status: OperationStatus) -> set[OperationStatus]:
    """The states that may be seen after `status`, itself included."""
    found, new = {status}, {status}
    while new:
        new = {after for each in new for after in TRANSITIONS[each]} - found
        found |= new
    return found


class Reader:
    """Holds a cursor and what it was told."""

    def __init__(self) -> None:
        self.cursor = 0
        self.seen: list[int] = []
        self.status = S.PENDING
        self.percentage = 0.0

    def read(
        self,
        setup: Setup,
        staleness: float | None,
        limit: int,
        *,
        at_once: bool = False,
    ) -> bool:
        """Take one look; True if the operation has ended and nothing is left to read.

        With `at_once` in the way that waits for nothing, if that is open.
        """
        ways = [setup.service.get_at_once] if at_once else []
        looks = (
            way("op", max_staleness=staleness, metrics_cursor=self.cursor, metrics_limit=limit)
            for way in (*ways, setup.service.get_operation)
        )
        view = next(look for look in looks if look is not None)
        self.seen.extend(steps(view.metrics))
        self.cursor += len(view.metrics)
        shown = view.operation
        assert shown.metrics_count >= self.cursor
        assert shown.status in reachable(self.status)
        self.status = shown.status
        if shown.progress is not None:
            assert (shown.progress.percentage or 0.0) >= self.percentage
            self.percentage = shown.progress.percentage or 0.0
        return shown.status.terminal and self.cursor == shown.metrics_count


@pytest.mark.parametrize("ending", ["complete", "fail", "cancel"])
@pytest.mark.parametrize("remote", [False, True], ids=["here", "elsewhere"])
def test_every_reader_gets_every_metric_once(ending: str, remote: bool) -> None:
    total, readers = 3000, 5
    host, front = Setup(real_time=True), Setup(cache_ttl=0.001, real_time=True)
    worker = host.pending()
    if remote:
        front.service.start_operation(
            new_operation(), FakeLaunch(front.service, source=OtherProcess(host))
        )
    else:
        front = host
    seen = [Reader() for _ in range(readers)]

    def work() -> None:
        assert host.service.begin_operation("op")
        for step in range(1, total + 1):
            worker.measure(step)
            worker.report(100 * step / total, "")
        if ending == "complete":
            host.service.complete_operation("op", RESULT)
        elif ending == "fail":
            host.service.fail_operation("op", ValueError("no"))
        else:
            host.service.cancel_operation("op")
            host.service.fail_operation("op", KtrdrError("torn down"))

    def run(index: int) -> None:
        if index == readers:
            work()
            return
        staleness = (None, 0.0, 0.05, None, 0.0)[index]
        limit = (1, 7, 100, 1000, 5000)[index]
        over = False
        while not over:
            # A bound that a busy machine cannot meet is no loss: the reader asks again.
            with suppress(UnavailableError):
                over = seen[index].read(front, staleness, limit, at_once=index % 2 == 0)

    assert [] == in_threads(readers + 1, run)

    assert all(list(range(1, total + 1)) == reader.seen for reader in seen)
    ended = {"complete": S.COMPLETED, "fail": S.FAILED, "cancel": S.CANCELLED}[ending]
    assert {ended} == {reader.status for reader in seen}
    assert 1 == front.store.finishes
    assert {} == front.service._registry._live
    assert not front.service._refresher.outages._waiting


class OtherProcess(FakeRemoteSource):
    """The same service in another process, without the wire."""

    def __init__(self, host: Setup) -> None:
        super().__init__()
        self._host = host
        self._staleness = threading.local()

    def read(self, cursor: int, limit: int, max_staleness: float, timeout: float) -> SourceReading:
        """Note how old the answer may be."""
        self._staleness.value = max_staleness
        return super().read(cursor, limit, max_staleness, timeout)

    def _answer(self, cursor: int, limit: int) -> SourceReading:
        view = self._host.service.get_operation(
            "op", max_staleness=self._staleness.value, metrics_cursor=cursor, metrics_limit=limit
        )
        return SourceReading(
            cursor=cursor,
            metrics=view.metrics,
            metrics_count=view.operation.metrics_count,
            progress=view.operation.progress,
            age=view.freshness.age,
            operation=state_of(view.operation),
            liveness=view.liveness,
            path=view.freshness.path,
        )


def test_readers_leave_no_thread_and_a_quiet_service_has_none() -> None:
    before = set(threading.enumerate())
    setup = Setup()
    worker = setup.running()
    worker.measure(1)
    in_threads(4, lambda _: setup.service.get_operation("op", max_staleness=0.0))
    setup.service.complete_operation("op", RESULT)

    assert before == set(threading.enumerate())


class ServiceMachine(RuleBasedStateMachine):
    """A worker, a store that comes and goes, and readers, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.setup = Setup()
        self.worker = Worker()
        self.readers = [Reader() for _ in range(3)]
        self.written = 0
        self.working = False
        self.over = False
        self.final: object = None

    @initialize()
    def start(self) -> None:
        self.setup.service.start_operation(
            new_operation(), FakeLaunch(self.setup.service, bridge=self.worker.bridge)
        )

    @precondition(lambda self: not (self.working or self.over))
    @rule()
    def begin(self) -> None:
        self.working = self.setup.service.begin_operation("op")
        self.over = not self.working

    @precondition(lambda self: self.working)
    @rule(number=st.integers(1, 4), percentage=st.floats(0, 100))
    def work(self, number: int, percentage: float) -> None:
        self.worker.measure(*range(self.written + 1, self.written + number + 1))
        self.written += number
        if not self.worker.bridge.cancel.requested:
            self.worker.report(percentage, "")

    @precondition(lambda self: self.working)
    @rule(raises=st.booleans())
    def end(self, raises: bool) -> None:
        self.working, self.over = False, True
        if raises:
            self.setup.service.fail_operation("op", ValueError("no"))
        else:
            self.setup.service.complete_operation("op", RESULT)

    @rule()
    def cancel(self) -> None:
        self.setup.service.cancel_operation("op", "machine")

    @rule(away=st.booleans())
    def store(self, away: bool) -> None:
        self.setup.store.away = away

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.setup.clock.advance(seconds)

    @rule(
        index=st.integers(0, 2),
        staleness=st.sampled_from([None, 0.0, 0.5]),
        limit=st.integers(1, 5),
        at_once=st.booleans(),
    )
    def read(self, index: int, staleness: float | None, limit: int, at_once: bool) -> None:
        try:
            over = self.readers[index].read(self.setup, staleness, limit, at_once=at_once)
        except StoreUnavailableError:
            # Only a strict read fails, and only while an end cannot be stored.
            assert staleness is not None
            assert self.setup.store.away
            return
        if over:
            assert self.written == self.readers[index].cursor

    @rule()
    def repeat_the_start(self) -> None:
        again = FakeLaunch(self.setup.service)
        self.setup.service.start_operation(new_operation(), again)
        assert [] == again.begun

    @invariant()
    def readers_have_the_log_so_far(self) -> None:
        for reader in self.readers:
            assert list(range(1, reader.cursor + 1)) == reader.seen
            assert reader.cursor <= self.written

    @invariant()
    def what_is_stored_as_ended_stays_and_is_whole(self) -> None:
        kept = self.setup.store.get("op")
        if kept is None or not kept.operation.status.terminal:
            return
        assert self.written == kept.operation.metrics_count
        assert self.final in (None, kept)
        assert kept.operation.status is S.CANCELLED or self.over
        self.final = kept

    def teardown(self) -> None:
        """Once the store is back and the worker done, one look ends it for all."""
        if not hasattr(self, "setup") or self.setup.store.get("op") is None:
            return
        self.setup.store.away = False
        if not self.over and self.setup.service.begin_operation("op"):
            self.working = True
        if self.working:
            self.setup.service.complete_operation("op", RESULT)
        for reader in self.readers:
            while not reader.read(self.setup, None, 50):
                pass
            assert list(range(1, self.written + 1)) == reader.seen
        assert {} == self.setup.service._registry._live


TestServiceInAnyOrder = ServiceMachine.TestCase
TestServiceInAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class HostMachine(RuleBasedStateMachine):
    """An owner elsewhere that works, fails, restarts and ends, and readers of it."""

    def __init__(self) -> None:
        super().__init__()
        self.setup = Setup()
        self.source = FakeRemoteSource(operation=operation(), page=3)
        self.readers = [Reader() for _ in range(3)]
        self.written = 0
        self.back_at = 0.0
        self.setup.remote(self.source)

    @property
    def ended(self) -> bool:
        assert self.source.operation is not None
        return self.source.operation.status.terminal

    @precondition(lambda self: not self.ended)
    @rule(number=st.integers(1, 5), percentage=st.floats(0, 100))
    def work(self, number: int, percentage: float) -> None:
        self.source.log.extend([metric(self.written + 1 + index) for index in range(number)])
        self.written += number
        self.source.progress = Progress(percentage)

    @precondition(lambda self: not self.ended)
    @rule(data=st.data())
    def move_on(self, data: st.DataObject) -> None:
        assert self.source.operation is not None
        after = sorted(TRANSITIONS[self.source.operation.status], key=str)
        self.source.operation = operation(status=data.draw(st.sampled_from(after)))

    @rule(down=st.booleans())
    def connect(self, down: bool) -> None:
        if self.source.error is not None and not down:
            self.back_at = self.setup.clock.monotonic()
        self.source.error = UnavailableError("down") if down else None

    @precondition(lambda self: not self.ended)
    @rule(lost=st.integers(1, 4))
    def restart(self, lost: int) -> None:
        """The owner comes back without its last metrics, and its work is over."""
        del self.source.log[-lost:]
        self.source.operation = operation(status=S.FAILED)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.setup.clock.advance(seconds)

    @rule(
        index=st.integers(0, 2),
        staleness=st.sampled_from([None, 0.0, 0.5]),
        limit=st.integers(1, 5),
        at_once=st.booleans(),
    )
    def read(self, index: int, staleness: float | None, limit: int, at_once: bool) -> None:
        try:
            over = self.readers[index].read(self.setup, staleness, limit, at_once=at_once)
        except UnavailableError:
            # Only a strict read fails, and a forced one only while the owner is away.
            remembered = self.setup.clock.monotonic() < self.back_at + 1.0 and staleness != 0.0
            assert self.source.error is not None or remembered
            assert staleness is not None
            return
        if over:
            assert self.ended
            assert self.readers[index].cursor >= len(self.source.log)

    @invariant()
    def readers_have_the_log_so_far(self) -> None:
        for reader in self.readers:
            assert list(range(1, reader.cursor + 1)) == reader.seen


TestHostInAnyOrder = HostMachine.TestCase
TestHostInAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
