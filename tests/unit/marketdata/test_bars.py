from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd
import pytest

from shared.marketdata.bars import (
    COLUMNS,
    between,
    check_series,
    in_canonical_form,
    in_order,
    no_bars,
    require_series,
)
from shared.rpc.errors import FieldViolation, InvalidArgumentError


class NamedBars:
    """A source that only has names: each symbol by day and week, or what is said."""

    def __init__(self, *symbols: str, **timeframes: Sequence[str]) -> None:
        self._series = dict.fromkeys(symbols, ("1d", "1w")) | timeframes

    def series(self) -> Sequence[tuple[str, str]]:
        return [(symbol, name) for symbol, names in self._series.items() for name in names]

    def trouble(self) -> str:
        return ""

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        return pd.DataFrame()


def test_known_series_have_no_violations() -> None:
    assert [] == check_series(NamedBars("AAPL", "IBM"), ["IBM", "AAPL"], ["1w"])


def test_a_symbol_without_one_of_the_timeframes_is_one_violation() -> None:
    source = NamedBars("IBM", AAPL=("1h", "1d"))

    violations = check_series(source, ["AAPL", "IBM"], ["1h", "1w", "1d"])

    assert [
        FieldViolation(
            "symbols[0]",
            "there are no bars for symbol 'AAPL' in timeframe 1w. There are: 1h, 1d.",
        ),
        FieldViolation(
            "symbols[1]",
            "there are no bars for symbol 'IBM' in timeframe 1h. There are: 1d, 1w.",
        ),
    ] == violations


def test_each_unknown_name_is_a_violation_of_its_index() -> None:
    violations = check_series(NamedBars("AAPL", "IBM"), ["IBM", "ibn"], ["7d"])

    assert [
        FieldViolation(
            "symbols[1]",
            "there are no bars for symbol 'ibn'; did you mean 'IBM'? There are: AAPL, IBM.",
        ),
        FieldViolation(
            "timeframes[0]",
            "there are no bars for timeframe '7d'; did you mean '1d'? There are: 1d, 1w.",
        ),
    ] == violations


def test_a_long_list_of_symbols_is_shortened() -> None:
    names = [f"S{number:03}" for number in range(60)]

    (violation,) = check_series(NamedBars(*names), ["?"], [])

    assert violation.description.endswith("S049 and 10 more.")


def test_an_empty_source_says_it_has_none() -> None:
    (violation,) = check_series(NamedBars(), ["X"], [])

    assert violation.description.endswith("There are: none.")


def test_a_single_series_is_refused_without_an_index() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        require_series(NamedBars("IBM"), "XYZ", "2d")

    assert ["symbol", "timeframe"] == [v.field for v in caught.value.violations]


FRAME = pd.DataFrame(
    {"volume": [1, 2], "close": [3, 4], "open": [5, 6], "low": [7, 8], "high": [9, 10], "x": "x"},
    index=pd.DatetimeIndex(["2024-01-02 09:30", "2024-01-03 09:30"], tz="America/New_York"),
)


def test_the_canonical_form_has_the_columns_in_order_and_utc() -> None:
    bars = in_canonical_form(FRAME)

    assert list(COLUMNS) == list(bars.columns)
    assert [[5, 9, 7, 3, 1], [6, 10, 8, 4, 2]] == bars.to_numpy().tolist()
    assert ("time", "datetime64[us, UTC]") == (bars.index.name, str(bars.index.dtype))
    assert datetime(2024, 1, 2, 14, 30, tzinfo=UTC) == bars.index[0]


def test_no_bars_have_the_same_form() -> None:
    pd.testing.assert_frame_equal(in_canonical_form(FRAME).iloc[:0], no_bars())


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        (None, None, [2, 3]),
        (datetime(2024, 1, 2, 14, 30, tzinfo=UTC), None, [2, 3]),
        (datetime(2024, 1, 2, 14, 31, tzinfo=UTC), None, [3]),
        (None, datetime(2024, 1, 3, 14, 30, tzinfo=UTC), [2]),
        (datetime(2024, 1, 5, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC), []),
    ],
)
def test_a_range_includes_its_start_and_excludes_its_end(
    start: datetime | None, end: datetime | None, days: list[int]
) -> None:
    bars = between(in_canonical_form(FRAME), start, end)

    assert days == [time.day for time in bars.index]


def test_series_are_ordered_by_symbol_and_then_by_length() -> None:
    series = [("IBM", "1d"), ("AAPL", "1w"), ("AAPL", "5m"), ("AAPL", "1h")]

    assert [("AAPL", "5m"), ("AAPL", "1h"), ("AAPL", "1w"), ("IBM", "1d")] == in_order(series)
