from collections.abc import Sequence
from datetime import datetime

import pandas as pd
import pytest

from shared.marketdata.bars import check_series, require_series
from shared.rpc.errors import FieldViolation, InvalidArgumentError


class NamedBars:
    """A source that only has names."""

    def __init__(self, *symbols: str) -> None:
        self._symbols = symbols

    def symbols(self) -> Sequence[str]:
        return self._symbols

    def timeframes(self) -> Sequence[str]:
        return ("1d", "1w")

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        return pd.DataFrame()


def test_known_series_have_no_violations() -> None:
    assert [] == check_series(NamedBars("AAPL", "IBM"), ["IBM", "AAPL"], ["1w"])


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
