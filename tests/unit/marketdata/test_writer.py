from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from shared.marketdata.bars import no_bars
from shared.marketdata.ranges import TimeRange
from shared.marketdata.store import BarStore, Merged, SeriesNotSavedError
from shared.marketdata.writer import SeriesWriter
from tests.support.clock import FakeClock
from tests.unit.marketdata.frames import daily, day, days


class SlowStore(BarStore):
    """A store whose writes each take as long as is said, by its clock, and are counted."""

    def __init__(self, root: Path, clock: FakeClock, seconds: float) -> None:
        super().__init__(root, clock)
        self._fake = clock
        self.seconds = seconds
        self.writes = 0

    def merge(self, symbol: str, timeframe: str, frame: pd.DataFrame, covered: TimeRange) -> Merged:
        self.writes += 1
        self._fake.advance(self.seconds)
        return super().merge(symbol, timeframe, frame, covered)


def writing(root: Path, seconds: float) -> tuple[SeriesWriter, SlowStore, FakeClock]:
    clock = FakeClock()
    store = SlowStore(root, clock, seconds)
    return SeriesWriter(store, "X", "1d", clock), store, clock


def add(writer: SeriesWriter, first: int, last: int) -> None:
    writer.add(daily(first, last), days(first, last))


def test_what_is_written_quickly_is_written_at_once(tmp_path: Path) -> None:
    writer, store, _ = writing(tmp_path, 0.0)

    for number in range(5):
        add(writer, number, number + 1)
        assert (days(0, number + 1),) == store.covered("X", "1d")

    assert 5 == store.writes


def test_what_takes_long_to_write_is_held_for_a_while(tmp_path: Path) -> None:
    writer, store, clock = writing(tmp_path, 2.0)
    add(writer, 0, 1)
    for number in range(1, 11):
        clock.advance(1.9)
        add(writer, number, number + 1)
    assert (days(0, 1),) == store.covered("X", "1d")

    clock.advance(1.9)
    add(writer, 11, 12)

    assert (2, (days(0, 12),)) == (store.writes, store.covered("X", "1d"))
    expected = pd.concat([daily(number, number + 1) for number in range(12)])
    pd.testing.assert_frame_equal(expected, store.read("X", "1d", None, None))


def test_the_end_writes_what_is_held(tmp_path: Path) -> None:
    writer, store, _ = writing(tmp_path, 2.0)
    add(writer, 0, 1)
    add(writer, 1, 5)
    writer.add(no_bars(), days(5, 9))

    writer.flush()
    writer.flush()

    assert (2, 5, (days(0, 9),)) == (
        store.writes,
        store.info("X", "1d").row_count,
        store.covered("X", "1d"),
    )


def test_ranges_apart_from_each_other_stay_apart(tmp_path: Path) -> None:
    writer, store, _ = writing(tmp_path, 2.0)
    for first in (0, 10, 20):
        add(writer, first, first + 5)
    writer.flush()

    assert (days(0, 5), days(10, 15), days(20, 25)) == store.covered("X", "1d")
    assert day(24) == store.info("X", "1d").last


def test_many_rows_are_not_held(tmp_path: Path) -> None:
    writer, store, _ = writing(tmp_path, 1000.0)
    add(writer, 0, 1)
    add(writer, 1, 60_000)
    assert 1 == store.writes

    add(writer, 60_000, 110_000)

    assert 2 == store.writes


def test_what_could_not_be_written_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    writer, _, _ = writing(tmp_path / "data", 0.0)

    with pytest.raises(SeriesNotSavedError):
        add(writer, 0, 1)

    writer.flush()
