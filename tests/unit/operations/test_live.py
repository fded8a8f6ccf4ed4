from __future__ import annotations

import threading
from datetime import timedelta
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from shared.operations import endings
from shared.operations.endings import Ending
from shared.operations.flight import Flight
from shared.operations.latch import Latch
from shared.operations.live import LiveOperation
from shared.operations.model import (
    TRANSITIONS,
    FreshnessSource,
    Hop,
    Liveness,
    Operation,
    OperationError,
    OperationStatus,
    Progress,
)
from shared.operations.source import BridgeSource, SourceReading
from shared.rpc.errors import Code, FailedPreconditionError
from tests.support.sources import FakeRemoteSource, state_of
from tests.unit.operations.fakes import (
    DAY,
    RESULT,
    Worker,
    in_threads,
    metric,
    operation,
    record,
    steps,
)

S = OperationStatus
LATER = DAY + timedelta(minutes=1)


@pytest.fixture
def live() -> LiveOperation:
    return LiveOperation(record(), 0.0)


def begun() -> LiveOperation:
    live = LiveOperation(record(), 0.0)
    assert live.begin(threading.current_thread(), DAY)
    return live


def reading(
    cursor: int = 0,
    *numbers: int,
    count: int | None = None,
    operation: Operation | None = None,
    **fields: object,
) -> SourceReading:
    """A reading with the metrics of these steps, of an owner's operation if there is one."""
    state = None if operation is None else state_of(operation)
    metrics = tuple(metric(number) for number in numbers)
    made = SourceReading(
        cursor,
        metrics,
        cursor + len(metrics) if count is None else count,
        progress=None,
        operation=state,
    )
    return made._replace(**fields)  # type: ignore[arg-type]  # tests name its fields


def log_of(live: LiveOperation) -> list[int]:
    return steps(live.state(0, 10**6).metrics)


def end(live: LiveOperation, decision: endings.Decision) -> None:
    assert live.claim_ending(decision)
    sealed = live.seal()
    assert sealed is not None
    live.publish(sealed[0])


# ------------------------------------------------------------------ transitions


def test_beginning_is_running_with_a_start_time(live: LiveOperation) -> None:
    assert live.begin(threading.current_thread(), LATER)

    assert (S.RUNNING, LATER) == (live.status, live.record.operation.start_time)
    assert not live.begin(threading.current_thread(), LATER)


def test_an_ended_operation_cannot_begin(live: LiveOperation) -> None:
    live.claim_ending(endings.stopped(DAY, process_stopping=False))

    assert not live.begin(threading.current_thread(), DAY)


def test_an_ending_is_claimed_once() -> None:
    live = begun()

    assert live.claim_ending(endings.completed(RESULT, DAY))
    assert not live.claim_ending(endings.failed(endings.PROCESS_STOPPED, DAY))
    assert live.ending is not None
    assert S.COMPLETED is live.ending.status


def test_one_of_many_concurrent_endings_is_claimed() -> None:
    for _ in range(20):
        live = begun()
        claims: list[bool] = []
        decisions = (
            endings.completed(RESULT, DAY),
            endings.failed(endings.PROCESS_STOPPED, DAY),
            endings.stopped(DAY, process_stopping=False),
        )

        def claim(
            index: int,
            live: LiveOperation = live,
            claims: list[bool] = claims,
            decisions: tuple[endings.Decision, ...] = decisions,
        ) -> None:
            claims.append(live.claim_ending(decisions[index]))

        assert [] == in_threads(3, claim)
        assert [False, False, True] == sorted(claims)


def test_a_transition_that_is_not_in_the_table_is_refused(live: LiveOperation) -> None:
    with pytest.raises(FailedPreconditionError, match="op is PENDING and cannot become COMPLETED"):
        live.claim_ending(endings.completed(RESULT, DAY))
    assert live.ending is None


def test_an_ending_only_from_a_state_leaves_others_alone() -> None:
    live = begun()

    assert not live.claim_ending(endings.stopped(DAY, process_stopping=False), S.PENDING)
    assert live.ending is None


def test_nothing_is_visible_of_an_ending_before_it_is_published() -> None:
    live = begun()
    live.claim_ending(endings.completed(RESULT, LATER))
    sealed = live.seal()

    assert S.RUNNING is live.status
    assert sealed is not None
    live.publish(sealed[0])
    ended = live.record.operation
    assert (S.COMPLETED, LATER, LATER, RESULT) == (
        ended.status,
        ended.end_time,
        ended.update_time,
        ended.result,
    )
    assert live.source is None
    assert live.seal() is None


def test_there_is_nothing_to_seal_without_an_ending() -> None:
    assert begun().seal() is None


def test_cancelling_is_wanted_once_and_recorded(live: LiveOperation) -> None:
    assert live.want_cancel("first", DAY)
    live.note_cancel_told()
    assert not live.want_cancel("second", LATER)
    live.begin(threading.current_thread(), DAY)

    assert live.mark_cancelling(LATER)
    assert (S.CANCELLING, DAY, "first", LATER) == (
        live.status,
        live.record.operation.cancel_time,
        live.record.operation.cancel_reason,
        live.record.operation.update_time,
    )
    assert not live.mark_cancelling(LATER)


def test_a_cancellation_taken_back_can_be_wanted_again(live: LiveOperation) -> None:
    live.want_cancel("first", DAY)
    live.unwant_cancel()

    assert live.want_cancel("second", DAY)


def test_who_cancels_while_another_tells_the_worker_waits_for_that(live: LiveOperation) -> None:
    live.want_cancel("first", DAY)
    telling = live.want_cancel("second", LATER)
    assert isinstance(telling, Latch)
    assert not telling.is_set()
    live.note_cancel_told()

    assert telling.is_set()
    assert live.want_cancel("second", LATER) is False


def test_one_who_waits_takes_over_from_one_who_could_not_tell(live: LiveOperation) -> None:
    live.want_cancel("first", DAY)
    telling = live.want_cancel("second", LATER)
    live.unwant_cancel()
    assert isinstance(telling, Latch)
    assert telling.is_set()

    assert live.want_cancel("second", LATER) is True
    live.note_cancel_told()
    live.begin(threading.current_thread(), DAY)
    live.mark_cancelling(LATER)
    assert (LATER, "second") == (
        live.record.operation.cancel_time,
        live.record.operation.cancel_reason,
    )


def test_what_is_recorded_as_cancelling_has_been_told() -> None:
    recorded = record(status=S.CANCELLING, cancel_time=DAY, cancel_reason="first")

    assert not LiveOperation(recorded, 0.0).want_cancel("second", LATER)


def test_what_has_ended_cannot_be_cancelled() -> None:
    live = begun()
    live.claim_ending(endings.completed(RESULT, DAY))
    assert not live.want_cancel("late", DAY)
    assert not live.mark_cancelling(DAY)

    published = begun()
    end(published, endings.completed(RESULT, DAY))
    assert not published.want_cancel("late", DAY)


def test_a_result_after_a_cancellation_keeps_that_it_was_asked_for() -> None:
    live = begun()
    live.want_cancel("too slow", LATER)
    live.mark_cancelling(LATER)
    end(live, endings.completed(RESULT, LATER))

    ended = live.record.operation
    assert (S.COMPLETED, LATER, "too slow") == (
        ended.status,
        ended.cancel_time,
        ended.cancel_reason,
    )


# --------------------------------------------------------------------- adoption


def test_a_delta_is_adopted_where_the_log_ends(live: LiveOperation) -> None:
    assert live.adopt(reading(0, 1, 2), 1.0)
    assert live.adopt(reading(2, 3), 2.0)

    assert [1, 2, 3] == log_of(live)
    assert 3 == live.record.operation.metrics_count


@pytest.mark.parametrize("cursor", [0, 1, 3])
def test_a_delta_from_elsewhere_is_not_adopted(live: LiveOperation, cursor: int) -> None:
    live.adopt(reading(0, 1, 2), 1.0)

    assert not live.adopt(reading(cursor, 8, 9), 2.0)
    assert [1, 2] == log_of(live)


def test_a_reading_sent_before_the_one_adopted_is_dropped(live: LiveOperation) -> None:
    live.adopt(reading(progress=Progress(50, "new")), 2.0)

    assert not live.adopt(reading(progress=Progress(50, "old")), 1.0)
    assert live.record.operation.progress is not None
    assert "new" == live.record.operation.progress.message


def test_nothing_is_adopted_after_the_last_drain() -> None:
    live = begun()
    live.claim_ending(endings.completed(RESULT, DAY))
    sealed = live.seal()

    assert not live.adopt(reading(0, 1), 1.0)
    assert sealed is not None
    assert [] == sealed[1]


def test_a_shorter_log_keeps_ours_and_brings_the_owners_state(live: LiveOperation) -> None:
    live.adopt(reading(0, 1, 2, 3, progress=Progress(60, "far")), 1.0)
    restarted = operation(
        status=S.FAILED, end_time=LATER, error=OperationError(Code.UNAVAILABLE, "X", "restarted")
    )

    assert live.adopt(reading(3, count=1, progress=Progress(10, "lost"), operation=restarted), 2.0)

    assert [1, 2, 3] == log_of(live)
    assert live.record.operation.progress == Progress(60, "far")
    assert live.ending == Ending(S.FAILED, LATER, None, restarted.error)


def test_progress_that_falls_is_not_adopted(live: LiveOperation) -> None:
    live.adopt(reading(progress=Progress(60, "far")), 1.0)
    live.adopt(reading(progress=Progress(59, "back")), 2.0)
    live.adopt(reading(progress=None), 3.0)

    assert live.record.operation.progress == Progress(60, "far")


def test_a_reading_without_news_leaves_the_very_record(live: LiveOperation) -> None:
    known = operation(status=S.RUNNING, start_time=LATER)
    live.adopt(reading(0, 1, progress=Progress(60, "far"), operation=known), 1.0)
    record = live.record

    assert live.adopt(reading(1, progress=Progress(60, "far"), operation=known), 2.0)

    assert record is live.record


def test_the_update_time_follows_the_workers_reports(live: LiveOperation) -> None:
    live.adopt(reading(progress=Progress(1, update_time=LATER)), 1.0)
    assert LATER == live.record.operation.update_time

    live.adopt(reading(progress=Progress(2, update_time=DAY)), 2.0)
    assert LATER == live.record.operation.update_time


def test_a_start_that_is_heard_of_is_news_before_the_first_report(live: LiveOperation) -> None:
    live.adopt(reading(operation=operation(status=S.RUNNING, start_time=LATER)), 1.0)

    known = live.record.operation
    assert (S.RUNNING, LATER, LATER) == (known.status, known.start_time, known.update_time)


def test_nothing_changes_before_the_start_whatever_the_clocks_say(live: LiveOperation) -> None:
    live.adopt(reading(operation=operation(status=S.RUNNING, start_time=LATER)), 1.0)
    live.want_cancel("", DAY)
    assert live.mark_cancelling(DAY)
    assert LATER == live.record.operation.update_time

    end(live, endings.stopped(DAY, process_stopping=False))

    ended = live.record.operation
    assert (DAY, LATER) == (ended.end_time, ended.update_time)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (S.PENDING, S.RUNNING, S.RUNNING),
        (S.PENDING, S.CANCELLING, S.CANCELLING),
        (S.RUNNING, S.PENDING, S.RUNNING),
        (S.CANCELLING, S.RUNNING, S.CANCELLING),
        (S.CANCELLING, S.PENDING, S.CANCELLING),
    ],
)
def test_an_owners_state_may_skip_but_never_goes_back(
    ours: OperationStatus, theirs: OperationStatus, expected: OperationStatus
) -> None:
    live = LiveOperation(record(status=ours), 0.0)
    live.adopt(reading(operation=operation(status=theirs, start_time=LATER)), 1.0)

    assert expected is live.status
    assert LATER == live.record.operation.start_time


@pytest.mark.parametrize("ours", [S.PENDING, S.RUNNING, S.CANCELLING])
@pytest.mark.parametrize("theirs", [S.COMPLETED, S.FAILED, S.CANCELLED])
def test_an_owners_ending_is_taken_from_any_open_state(
    ours: OperationStatus, theirs: OperationStatus
) -> None:
    live = LiveOperation(record(status=ours), 0.0)
    live.adopt(
        reading(0, 1, operation=operation(status=theirs, end_time=LATER, result=RESULT)), 1.0
    )

    assert ours is live.status
    assert live.ending == Ending(theirs, LATER, RESULT)


def test_an_owners_ending_comes_only_with_its_last_metrics(live: LiveOperation) -> None:
    done = operation(status=S.COMPLETED, end_time=LATER, result=RESULT)
    live.adopt(reading(0, 1, 2, count=3, operation=done), 1.0)
    assert (S.PENDING, None) == (live.status, live.ending)

    live.adopt(reading(2, 3, count=3, operation=done), 2.0)
    assert live.ending == Ending(S.COMPLETED, LATER, RESULT)


def test_an_owners_cancellation_is_recorded(live: LiveOperation) -> None:
    theirs = operation(status=S.CANCELLING, cancel_time=LATER, cancel_reason="by another")
    live.adopt(reading(operation=theirs), 1.0)

    ours = live.record.operation
    assert (LATER, "by another") == (ours.cancel_time, ours.cancel_reason)


# ---------------------------------------------------------------------- reading


def test_a_state_is_a_copy(live: LiveOperation) -> None:
    live.adopt(reading(0, 1, 2), 1.0)
    state = live.state(1, 5)
    live.adopt(reading(2, 3), 2.0)

    assert ([2], 2) == (steps(state.metrics), state.operation.metrics_count)


def test_what_was_never_read_is_known_since_it_was_recorded() -> None:
    live = LiveOperation(record(), 7.0)
    live.source = FakeRemoteSource()

    state = live.state(0, 0)

    assert (7.0, FreshnessSource.RECORD) == (state.observed_at, state.source)
    assert -inf == live.observed_at


def test_what_was_read_is_known_since_the_read_was_sent(live: LiveOperation) -> None:
    live.source = FakeRemoteSource()
    hop = Hop("host", FreshnessSource.BRIDGE, cached=False, age=0.0)
    live.adopt(reading(path=(hop,)), 5.0)
    live.land(Flight(1, 5.0, 0.0), 5.0)
    live.land(Flight(2, 4.0, 0.0), 4.0)

    state = live.state(0, 0)

    assert (5.0, FreshnessSource.REMOTE, (hop,)) == (state.observed_at, state.source, state.path)


def test_the_worker_is_alive_as_long_as_its_thread(live: LiveOperation) -> None:
    assert live.state(0, 0).liveness == Liveness(worker_alive=False)

    worker = threading.Thread(target=lambda: None)
    worker.start()
    worker.join()
    live.begin(worker, DAY)
    assert live.state(0, 0).liveness == Liveness(worker_alive=False)

    assert begun().state(0, 0).liveness == Liveness(worker_alive=True)


def test_the_age_of_the_last_report_is_that_of_the_observed_instant(live: LiveOperation) -> None:
    live.adopt(reading(last_report_age=2.0), 10.0)
    before = live.state(0, 0).liveness
    live.adopt(reading(last_report_age=0.5), 11.0)
    after = live.state(0, 0).liveness

    assert (2.0, 0.5) == (
        before and before.last_report_age,
        after and after.last_report_age,
    )


def test_liveness_of_work_elsewhere_is_the_owners(live: LiveOperation) -> None:
    theirs = Liveness(worker_alive=True, last_report_age=0.5)
    live.adopt(reading(liveness=theirs), 1.0)

    assert theirs == live.state(0, 0).liveness


def test_what_has_ended_has_no_liveness() -> None:
    live = begun()
    end(live, endings.completed(RESULT, DAY))

    assert live.state(0, 0).liveness is None


# ---------------------------------------------------------------------- waiting


def test_publishing_wakes_every_waiter_and_none_that_left() -> None:
    live = begun()
    stays, left = threading.Event(), threading.Event()
    live.add_waiter(stays)
    live.add_waiter(left)
    live.remove_waiter(left)
    end(live, endings.completed(RESULT, DAY))

    assert (True, False) == (stays.is_set(), left.is_set())


def test_one_waiter_leads_upstream_until_it_is_done(live: LiveOperation) -> None:
    source = FakeRemoteSource()
    live.source = source

    assert source is live.lead_upstream_wait()
    assert live.lead_upstream_wait() is None
    live.end_upstream_wait()
    assert source is live.lead_upstream_wait()


def test_nobody_waits_upstream_for_a_bridge_or_nothing(live: LiveOperation) -> None:
    assert live.lead_upstream_wait() is None

    live.source = BridgeSource(Worker().bridge)
    assert live.lead_upstream_wait() is None


def test_nobody_waits_upstream_once_the_end_is_known(live: LiveOperation) -> None:
    live.source = FakeRemoteSource()
    live.adopt(reading(operation=operation(status=S.FAILED)), 1.0)

    assert live.lead_upstream_wait() is None


# ---------------------------------------------------- against a model, any order


STARTS = (DAY - timedelta(minutes=1), DAY, LATER, LATER + timedelta(minutes=1))
"""By the owner's clock, which may be ahead."""
_RANK = {S.PENDING: 0, S.RUNNING: 1, S.CANCELLING: 2}


class AdoptionMachine(RuleBasedStateMachine):
    """An owner works and restarts; readings arrive late, twice or never."""

    readings = Bundle("readings")

    def __init__(self) -> None:
        super().__init__()
        self.live = LiveOperation(record(), 0.0)
        self.owner = FakeRemoteSource(operation=operation())
        self.clock = 0.0
        self.percentage = 0.0
        self.status = S.PENDING
        self.count = 0
        self.terminal: object = None
        self.ended_with = 0
        self.written = 0

    @precondition(lambda self: not self.owner.operation.status.terminal)
    @rule(number=st.integers(1, 5), percentage=st.floats(0, 100))
    def work(self, number: int, percentage: float) -> None:
        self.owner.log.extend([metric(self.written + 1 + index) for index in range(number)])
        self.owner.progress = Progress(percentage)
        self.written += number

    @precondition(lambda self: not self.owner.operation.status.terminal)
    @rule(data=st.data())
    def move_on(self, data: st.DataObject) -> None:
        assert self.owner.operation is not None
        status = data.draw(
            st.sampled_from(sorted(TRANSITIONS[self.owner.operation.status], key=str))
        )
        self.owner.operation = operation(
            status=status,
            start_time=self.owner.operation.start_time or data.draw(st.sampled_from(STARTS)),
            end_time=LATER if status.terminal else None,
        )

    @rule(target=readings, behind=st.integers(0, 2), page=st.integers(1, 4))
    def read(self, behind: int, page: int) -> tuple[SourceReading, float]:
        self.clock += 1
        cursor = max(0, self.live.metrics_count - behind)
        return self.owner.reading(cursor, page), self.clock

    @rule(sent=consumes(readings))
    def arrive(self, sent: tuple[SourceReading, float]) -> None:
        self._arrive(*sent)

    @rule(sent=readings)
    def arrive_twice(self, sent: tuple[SourceReading, float]) -> None:
        self._arrive(*sent)
        assert not self._arrive(*sent) or sent[0].cursor == self.live.metrics_count

    def _arrive(self, news: SourceReading, sent_at: float) -> bool:
        known = self.live.ending
        adopted = self.live.adopt(news, sent_at)
        if self.live.ending is not known:
            self.ended_with = news.metrics_count
        return adopted

    @rule()
    def want_cancel(self) -> None:
        self.live.want_cancel("", DAY)

    @rule()
    def mark_cancelling(self) -> None:
        self.live.mark_cancelling(DAY)

    @rule(failing=st.booleans())
    def publish(self, failing: bool) -> None:
        """Store the end; the first time may fail."""
        sealed = self.live.seal()
        if sealed is not None and not failing:
            self.live.publish(sealed[0])
            self.terminal = self.live.record

    @invariant()
    def the_log_is_the_owners_without_gap_or_repeat(self) -> None:
        count = self.live.metrics_count
        assert count >= self.count
        assert list(range(1, count + 1)) == log_of(self.live)
        assert count <= self.written
        assert count == self.live.record.operation.metrics_count
        self.count = count

    @invariant()
    def the_state_never_goes_back(self) -> None:
        status = self.live.status
        if not status.terminal:
            assert _RANK[status] >= _RANK[self.status]
            self.status = status

    @invariant()
    def the_percentage_never_falls(self) -> None:
        progress = self.live.record.operation.progress
        percentage = 0.0 if progress is None else progress.percentage or 0.0
        assert percentage >= self.percentage
        self.percentage = percentage

    @invariant()
    def nothing_changes_before_the_start(self) -> None:
        operation = self.live.record.operation
        assert operation.update_time >= (operation.start_time or operation.create_time)

    @invariant()
    def an_end_has_all_metrics_and_stays(self) -> None:
        if self.live.ending is not None:
            assert self.live.metrics_count >= self.ended_with
        if self.terminal is not None:
            assert self.terminal == self.live.record


TestAdoptionInAnyOrder = AdoptionMachine.TestCase
TestAdoptionInAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
