from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ib_host.simulator.durations import (
    BAR_SIZES,
    BarKind,
    Duration,
    End,
    bar_size,
    duration,
    end,
)
from ib_host.simulator.refusals import Refusal

NEW_YORK = ZoneInfo("US/Eastern")
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
DAY = bar_size("1 day")


def refused(code: int, text: str) -> Any:
    return pytest.raises(Refusal, check=lambda error: error.code == code and text in error.text)


@pytest.mark.parametrize(
    ("name", "timeframe", "kind", "small"),
    [
        ("1 secs", "1s", BarKind.INTRADAY, True),
        ("30 secs", "30s", BarKind.INTRADAY, True),
        ("1 min", "1m", BarKind.INTRADAY, False),
        ("5 mins", "5m", BarKind.INTRADAY, False),
        ("4 hours", "4h", BarKind.INTRADAY, False),
        ("1 day", "1d", BarKind.DAY, False),
        ("1W", "1w", BarKind.LONGER, False),
        ("1 week", "1w", BarKind.LONGER, False),
        ("1 month", "1mo", BarKind.LONGER, False),
    ],
)
def test_bar_sizes_have_the_names_tws_gives_them(
    name: str, timeframe: str, kind: BarKind, small: bool
) -> None:
    size = bar_size(name)

    assert (timeframe, kind, small) == (size.timeframe, size.kind, size.small)


def test_there_are_21_bar_sizes_and_two_have_a_second_name() -> None:
    assert 23 == len(BAR_SIZES)
    assert 21 == len(set(BAR_SIZES.values()))


@pytest.mark.parametrize("name", ["1 sec", "5 min", "1d", "1 days", "2 days", ""])
def test_another_bar_size_is_refused_with_those_there_are(name: str) -> None:
    with refused(321, "Legal ones are: 1 secs, 5 secs"):
        bar_size(name)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("30 S", Duration(30, "S")),
        ("86400 S", Duration(86400, "S")),
        ("365 D", Duration(365, "D")),
        ("52 W", Duration(52, "W")),
        ("12 M", Duration(12, "M")),
        ("68 Y", Duration(68, "Y")),
    ],
)
def test_durations_are_read_up_to_the_longest(text: str, read: Duration) -> None:
    assert read == duration(text, DAY)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "duration is invalid"),
        ("5D", "duration is invalid"),
        ("5 d", "duration is invalid"),
        ("0 D", "duration is invalid"),
        ("-1 D", "duration is invalid"),
        ("1.5 D", "duration is invalid"),
        ("29 S", "start at 30 seconds"),
        ("86401 S", "longer than 86400 seconds must be made in days"),
        ("366 D", "longer than 365 days must be made in years"),
        ("53 W", "longer than 52 weeks"),
        ("13 M", "longer than 12 months"),
        ("69 Y", "longer than 68 years"),
    ],
)
def test_other_durations_are_refused(text: str, why: str) -> None:
    with refused(321, why):
        duration(text, DAY)


@pytest.mark.parametrize(
    ("text", "size", "why"),
    [
        ("2001 S", "1 secs", "Time length exceed max."),
        ("1 D", "1 secs", "invalid step: 1"),
        ("1 W", "5 secs", "invalid step: 5"),
        ("1 M", "15 secs", "invalid step: 15"),
        ("1 Y", "30 secs", "invalid step: 30"),
    ],
)
def test_small_bars_are_refused_over_long_durations(text: str, size: str, why: str) -> None:
    with refused(162, why):
        duration(text, bar_size(size))


@pytest.mark.parametrize(
    ("text", "instant", "implied"),
    [
        ("", NOW, False),
        ("20130301-23:00:00", datetime(2013, 3, 1, 23, tzinfo=UTC), False),
        ("20130301 23:00:00 UTC", datetime(2013, 3, 1, 23, tzinfo=UTC), False),
        ("20130301 18:00:00 US/Eastern", datetime(2013, 3, 1, 23, tzinfo=UTC), False),
        ("20130701  18:00:00 Europe/Berlin", datetime(2013, 7, 1, 16, tzinfo=UTC), False),
        ("20130301 18:00:00", datetime(2013, 3, 1, 23, tzinfo=UTC), True),
        ("09:30:00 US/Eastern", datetime(2026, 3, 2, 14, 30, tzinfo=UTC), False),
        ("09:30:00", datetime(2026, 3, 2, 14, 30, tzinfo=UTC), True),
    ],
)
def test_ends_are_read_as_tws_writes_them(text: str, instant: datetime, implied: bool) -> None:
    assert End(instant, implied) == end(text, NOW, NEW_YORK)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "20130301",
        "2013-03-01 23:00:00",
        "20130301-23:00:00 UTC",
        "20131301-23:00:00",
        "20130301 25:00:00 UTC",
        "20130301 23:00:00 EST",
        "20130301 23:00:00 GMT",
        "20130301 23:00:00 Mars/Base",
        "20130301 23:00:00 ../../etc/passwd",
        "00010101 00:00:00 Asia/Tokyo",
    ],
)
def test_other_ends_are_refused_with_the_format(text: str) -> None:
    with refused(10314, "The correct format is yyyymmdd hh:mm:ss"):
        end(text, NOW, NEW_YORK)
