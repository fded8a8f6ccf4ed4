from __future__ import annotations

import threading

import pytest

from shared.operations.endings import NEVER_STARTED
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import OperationRecord, OperationStatus
from shared.operations.registry import HOST_OPERATION_ID
from shared.operations.store import OperationFilter
from shared.operations.waiting import Waiter
from shared.rpc.errors import (
    OperationNotFoundError,
    ProcessStoppingError,
    RequestIdReusedError,
    ResourceExhaustedError,
    StoreUnavailableError,
    UnavailableError,
)
from tests.support.eventually import eventually
from tests.support.sources import FakeRemoteSource
from tests.unit.operations.fakes import (
    DAY,
    RESULT,
    Background,
    FakeLaunch,
    Setup,
    Worker,
    in_threads,
    new_operation,
    operation,
    record,
)
from tests.unit.operations.lives import HOST, Life

S = OperationStatus
FULL = ResourceExhaustedError("All workers are busy.")


@pytest.fixture
def setup() -> Setup:
    return Setup()


def assert_nothing_left(setup: Setup) -> None:
    with pytest.raises(OperationNotFoundError):
        setup.service.get_operation("op")
    assert (0, {}, {}) == (
        setup.store.count(OperationFilter()),
        setup.service._registry._live,
        setup.service._starts._running,
    )


class SlowLaunch(FakeLaunch):
    """A launch that stands still in `begin` until the test lets it go on."""

    def __init__(self, setup: Setup, **fields: object) -> None:
        super().__init__(setup.service, **fields)  # type: ignore[arg-type]  # tests name its fields
        self.beginning = threading.Event()
        self.go_on = threading.Event()
        self.on_begin = self._stand

    def _stand(self) -> None:
        self.beginning.set()
        assert self.go_on.wait(10)


def starting(setup: Setup, launch: SlowLaunch) -> Background:
    start = Background(lambda: setup.service.start_operation(new_operation(), launch))
    assert launch.beginning.wait(5)
    return start


def test_a_started_operation_is_pending_and_answered(setup: Setup) -> None:
    launch = FakeLaunch(setup.service, bridge=Worker().bridge)

    made = setup.service.start_operation(new_operation(), launch).operation

    assert ("op", S.PENDING) == (made.operation_id, made.status)
    assert (1, ["op"], 0) == (launch.reserved, launch.begun, launch.released)
    kept = setup.store.get("op")
    assert kept is not None
    assert ("request-op", "fingerprint", "me") == (
        kept.request_id,
        kept.fingerprint,
        kept.owner.instance_id,
    )


def test_the_same_request_again_finds_the_operation(setup: Setup) -> None:
    setup.running()
    again = FakeLaunch(setup.service)

    found = setup.service.start_operation(new_operation(), again).operation

    assert S.RUNNING is found.status
    assert (0, []) == (again.reserved, again.begun)


def test_the_same_request_finds_the_operation_also_when_it_has_ended(setup: Setup) -> None:
    setup.running()
    setup.service.complete_operation("op", RESULT)

    found = setup.service.start_operation(new_operation(), FakeLaunch(setup.service)).operation

    assert (S.COMPLETED, RESULT) == (found.status, found.result)


def test_a_different_request_under_the_same_id_is_refused(setup: Setup) -> None:
    setup.running()

    with pytest.raises(RequestIdReusedError, match="request-op"):
        setup.service.start_operation(new_operation(fingerprint="x"), FakeLaunch(setup.service))
    assert S.RUNNING is setup.status()


def test_concurrent_starts_begin_once(setup: Setup) -> None:
    launches = [FakeLaunch(setup.service, bridge=Worker().bridge) for _ in range(8)]
    views: list[object] = []

    assert [] == in_threads(
        8,
        lambda index: views.append(
            setup.service.start_operation(new_operation(), launches[index]).operation
        ),
    )

    assert 1 == sum(len(launch.begun) for launch in launches)
    assert [views[0]] * 8 == views


def test_concurrent_starts_share_a_refusal_and_the_id_is_free_again(setup: Setup) -> None:
    slow = SlowLaunch(setup, begin_error=FULL)
    first = starting(setup, slow)
    second_launch = FakeLaunch(setup.service)
    outcome = setup.service._starts._running["op"].outcome
    second = Background(lambda: setup.service.start_operation(new_operation(), second_launch))
    eventually(lambda: len(outcome._condition._waiters) == 1)  # type: ignore[attr-defined]  # no public way to see it
    slow.go_on.set()

    for each in (first, second):
        with pytest.raises(ResourceExhaustedError):
            each.result()
    assert 0 == second_launch.reserved
    assert_nothing_left(setup)

    different = FakeLaunch(setup.service, bridge=Worker().bridge)
    setup.service.start_operation(new_operation(fingerprint="other"), different)
    assert ["op"] == different.begun


def test_a_start_that_gets_no_place_leaves_nothing(setup: Setup) -> None:
    launch = FakeLaunch(setup.service, reserve_error=FULL)

    with pytest.raises(ResourceExhaustedError):
        setup.service.start_operation(new_operation(), launch)

    assert 0 == launch.released
    assert_nothing_left(setup)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), FULL])
def test_a_launch_that_raises_leaves_nothing(setup: Setup, error: BaseException) -> None:
    launch = FakeLaunch(setup.service, begin_error=error)

    with pytest.raises(type(error)):
        setup.service.start_operation(new_operation(), launch)

    assert (1, 1) == (launch.reserved, launch.released)
    assert_nothing_left(setup)


def test_a_store_that_is_away_refuses_the_start(setup: Setup) -> None:
    launch = FakeLaunch(setup.service)
    setup.store.away = True

    with pytest.raises(StoreUnavailableError):
        setup.service.start_operation(new_operation(), launch)

    setup.store.away = False
    assert (1, [], 1) == (launch.reserved, launch.begun, launch.released)
    assert_nothing_left(setup)


def test_why_a_start_was_refused_is_not_hidden_by_a_store_that_is_away(setup: Setup) -> None:
    launch = FakeLaunch(setup.service, begin_error=FULL)
    launch.on_begin = lambda: setattr(setup.store, "away", True)

    with pytest.raises(ResourceExhaustedError):
        setup.service.start_operation(new_operation(), launch)
    assert 1 == launch.released


def test_a_start_that_is_refused_leaves_what_another_process_has_started(setup: Setup) -> None:
    others = record()
    setup.clock.advance(1)
    launch = FakeLaunch(setup.service)
    launch.reserve = lambda: setup.store.create(others)  # type: ignore[method-assign,assignment]  # just then
    setup.service.refuse_starts()

    with pytest.raises(ProcessStoppingError):
        setup.service.start_operation(new_operation(), launch)

    assert others == setup.store.get("op")


def test_nobody_takes_up_what_a_host_has_just_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life()
    life.source.operation = operation(status=S.FAILED, end_time=DAY, error=NEVER_STARTED)

    def refuse() -> None:
        life.service.assign_owner("op", HOST, {HOST_OPERATION_ID: "host_training_op"})
        raise FULL

    def look_and_discard(kept: OperationRecord) -> None:
        life.service.list_operations(OperationFilter(), None, 10)
        MemoryOperationStore.discard(life.store, kept)
        life.service.list_operations(OperationFilter(), None, 10)

    monkeypatch.setattr(life.store, "discard", look_and_discard)

    with pytest.raises(ResourceExhaustedError):
        life.service.start_operation(new_operation(), FakeLaunch(life.service, on_begin=refuse))
    assert 0 == life.store.count(OperationFilter())
    with pytest.raises(OperationNotFoundError):
        life.look()


def test_an_owner_is_not_told_of_what_another_process_has_ended(setup: Setup) -> None:
    setup.pending()
    now = setup.clock.now()
    setup.store.finish(record(status=S.FAILED, create_time=now, end_time=now))

    with pytest.raises(OperationNotFoundError):
        setup.service.assign_owner("op", HOST, {})
    assert S.FAILED is setup.status()


def test_an_owner_is_not_told_of_what_another_process_has_deleted(setup: Setup) -> None:
    setup.pending()
    now = setup.clock.now()
    setup.store.finish(record(status=S.FAILED, create_time=now, end_time=now))
    setup.store.delete("op")

    with pytest.raises(OperationNotFoundError):
        setup.service.assign_owner("op", HOST, {})
    assert setup.store.get("op") is None


def test_a_stopping_process_starts_nothing_but_finds_what_there_is(setup: Setup) -> None:
    setup.running()
    setup.service.refuse_starts()
    launch = FakeLaunch(setup.service)

    with pytest.raises(ProcessStoppingError):
        setup.service.start_operation(new_operation("other"), launch)

    assert (1, 1) == (launch.reserved, launch.released)
    assert S.RUNNING is setup.status()
    found = setup.service.start_operation(new_operation(), FakeLaunch(setup.service))
    assert "op" == found.operation.operation_id


def test_a_cancellation_during_a_start_takes_effect_after_it(setup: Setup) -> None:
    worker = Worker()
    slow = SlowLaunch(setup, bridge=worker.bridge)
    start = starting(setup, slow)
    cancel = Background(lambda: setup.service.cancel_operation("op", "too soon"))
    slow.go_on.set()

    start.result()
    cancel.result()
    assert S.CANCELLED is setup.status()
    assert worker.bridge.cancel.requested


def test_a_cancellation_during_a_start_that_is_refused_finds_nothing(setup: Setup) -> None:
    slow = SlowLaunch(setup, begin_error=FULL)
    start = starting(setup, slow)
    cancel = Background(lambda: setup.service.cancel_operation("op"))
    slow.go_on.set()

    with pytest.raises(ResourceExhaustedError):
        start.result()
    with pytest.raises(OperationNotFoundError):
        cancel.result()
    assert_nothing_left(setup)


def test_a_cancellation_does_not_outwait_its_caller(setup: Setup) -> None:
    slow = SlowLaunch(setup, bridge=Worker().bridge)
    start = starting(setup, slow)

    with pytest.raises(UnavailableError, match="still being started"):
        setup.service.cancel_operation("op", deadline=setup.clock.monotonic())

    slow.go_on.set()
    start.result()
    assert S.PENDING is setup.status()


def test_one_who_waits_for_a_start_that_is_refused_is_told_at_once(setup: Setup) -> None:
    slow = SlowLaunch(setup, begin_error=FULL)
    start = starting(setup, slow)
    wait = Background(lambda: setup.service.wait_operation("op", 60.0, Waiter()))
    slow.go_on.set()

    with pytest.raises(ResourceExhaustedError):
        start.result()
    with pytest.raises(OperationNotFoundError):
        wait.result()


def test_an_operation_that_is_being_started_can_be_read(setup: Setup) -> None:
    slow = SlowLaunch(setup, source=FakeRemoteSource())
    start = starting(setup, slow)

    view = setup.service.get_operation("op", max_staleness=0.0)
    assert (S.PENDING, DAY.year) == (view.operation.status, view.operation.create_time.year)

    slow.go_on.set()
    start.result()
