import pytest

from shared.marketdata.timeframes import TIMEFRAMES, finest


def test_timeframes_are_listed_finest_first() -> None:
    assert sorted(TIMEFRAMES.values()) == list(TIMEFRAMES.values())


def test_the_finest_has_the_shortest_bars() -> None:
    assert "4h" == finest(["1w", "4h", "1d"])


def test_of_none_there_is_no_finest() -> None:
    with pytest.raises(ValueError, match="empty"):
        finest([])
