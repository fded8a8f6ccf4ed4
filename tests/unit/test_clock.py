from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from shared.clock import Clock, SystemClock
from tests.support.clock import FakeClock


def test_the_system_clock_reads_the_machine() -> None:
    clock: Clock = SystemClock()
    before = time.monotonic()
    assert before <= clock.monotonic() <= time.monotonic()
    assert datetime.now(UTC) - clock.now() < timedelta(seconds=60)


def test_wall_times_are_aware_and_in_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_the_fake_clock_moves_both_times_by_hand() -> None:
    clock: Clock = (fake := FakeClock())
    monotonic, now = clock.monotonic(), clock.now()
    assert (monotonic, now) == (clock.monotonic(), clock.now())
    fake.advance(2.5)
    assert monotonic + 2.5 == pytest.approx(clock.monotonic())
    assert now + timedelta(seconds=2.5) == clock.now()
