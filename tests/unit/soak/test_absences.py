from __future__ import annotations

from tests.soak.absences import Absences
from tests.support.clock import FakeClock


def test_a_process_is_missed_while_it_is_away_and_a_little_longer() -> None:
    clock = FakeClock()
    absences = Absences(clock)
    assert not absences.any_since(clock.monotonic(), connected=True)

    with absences.absent(keeps_connections=False):
        clock.advance(100)
        assert absences.any_since(clock.monotonic(), connected=True)
    asked_at = clock.monotonic()

    assert absences.any_since(asked_at + 9, connected=True)
    assert not absences.any_since(asked_at + 11, connected=True)


def test_a_frozen_process_is_only_missed_by_who_is_not_connected() -> None:
    clock = FakeClock()
    absences = Absences(clock)

    with absences.absent(keeps_connections=True):
        assert not absences.any_since(clock.monotonic(), connected=True)
        assert absences.any_since(clock.monotonic(), connected=False)
