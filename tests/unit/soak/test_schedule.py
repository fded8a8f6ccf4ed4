from __future__ import annotations

from itertools import pairwise

import pytest

from tests.soak.schedule import (
    BACKENDS,
    HOSTS,
    SEED,
    Break,
    Cancel,
    Delete,
    Fault,
    Kind,
    Schedule,
    Start,
    draw_schedule,
)

SEEDS = range(20)


@pytest.fixture(params=SEEDS)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return draw_schedule(request.param, 60)


def test_a_seed_draws_the_same_schedule_again_and_another_another() -> None:
    assert draw_schedule(5, 60) == draw_schedule(5, 60)
    assert draw_schedule(5, 60).events != draw_schedule(6, 60).events


def test_events_come_in_order_and_in_time(schedule: Schedule) -> None:
    times = [event.at for event in schedule.events]

    assert sorted(times) == times
    assert 0 <= times[0]
    assert times[-1] <= schedule.seconds


def test_every_work_has_a_name_of_its_own_and_is_started_before_anything_is_done_to_it(
    schedule: Schedule,
) -> None:
    first_starts = [
        event.action.work
        for event in schedule.events
        if isinstance(event.action, Start) and not event.action.repeat
    ]
    started = set()
    for event in schedule.of(Start, Cancel, Delete):
        assert not isinstance(event.action, Break)
        if isinstance(event.action, Start) and not event.action.repeat:
            started.add(event.action.work)
        assert event.action.work in started

    assert len({work.operation_id for work in first_starts}) == len(first_starts)


def test_once_it_is_warm_no_backend_is_started_again(schedule: Schedule) -> None:
    late = [event.action for event in schedule.of(Break) if event.at > schedule.warm_at]

    assert late
    for action in late:
        assert isinstance(action, Break)
        assert action.process not in BACKENDS or action.fault is Fault.FREEZE


def test_only_what_is_frozen_takes_time_and_never_long(schedule: Schedule) -> None:
    for event in schedule.of(Break):
        assert isinstance(event.action, Break)
        assert (event.action.fault is Fault.FREEZE) == (0 < event.action.seconds <= 3)


def test_a_longer_soak_breaks_more() -> None:
    short, long = draw_schedule(5, 60), draw_schedule(5, 600)

    assert 5 * len(short.of(Break)) < len(long.of(Break))


def test_all_kinds_of_work_and_faults_come_up() -> None:
    events = [event.action for seed in SEEDS for event in draw_schedule(seed, 60).events]

    works = [action.work for action in events if isinstance(action, Start)]
    assert {(kind, backend) for kind in Kind for backend in BACKENDS} == {
        (work.kind, work.backend) for work in works
    }
    assert {True, False} == {work.endless for work in works}
    assert set(Fault) == {action.fault for action in events if isinstance(action, Break)}


def test_a_minute_of_the_usual_seed_has_every_fault_and_spares_no_process() -> None:
    actions = [event.action for event in draw_schedule(SEED, 60).of(Break)]
    breaks = [action for action in actions if isinstance(action, Break)]

    assert set(Fault) == {action.fault for action in breaks}
    assert {*BACKENDS, *HOSTS} == {action.process for action in breaks}
    killed = {action.process for action in breaks if action.fault is Fault.KILL}
    assert {*BACKENDS, *HOSTS} == killed


def test_bursts_follow_each_other_within_seconds(schedule: Schedule) -> None:
    starts = [event.at for event in schedule.of(Start)]

    assert all(after - before < 8 for before, after in pairwise(starts))
