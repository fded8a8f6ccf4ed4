from datetime import UTC, datetime

import pytest

from shared.marketdata.timeframes import TIMEFRAMES, finest, last_end


def test_timeframes_are_listed_finest_first() -> None:
    assert sorted(TIMEFRAMES.values()) == list(TIMEFRAMES.values())


def test_the_finest_has_the_shortest_bars() -> None:
    assert "4h" == finest(["1w", "4h", "1d"])


def test_of_none_there_is_no_finest() -> None:
    with pytest.raises(ValueError, match="empty"):
        finest([])


@pytest.mark.parametrize(
    ("timeframe", "end"),
    [
        ("1m", "2024-03-06 13:46"),
        ("5m", "2024-03-06 13:40"),
        ("1h", "2024-03-06 12:30"),
        ("4h", "2024-03-06 09:30"),
        ("1d", "2024-03-06 00:00"),
        ("1w", "2024-03-04 00:00"),
    ],
)
def test_what_starts_before_the_last_end_has_ended(timeframe: str, end: str) -> None:
    now = datetime(2024, 3, 6, 13, 47, 59, tzinfo=UTC)

    assert datetime.fromisoformat(f"{end}+00:00") == last_end(now, timeframe)
