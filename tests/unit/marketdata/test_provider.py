from __future__ import annotations

from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.marketdata.bars import no_bars
from shared.marketdata.provider import (
    SeriesFailedError,
    check_provided,
    in_pieces,
    require_provided,
)
from shared.marketdata.sample import SampleBarSource
from tests.unit.marketdata.frames import bars_at, daily, day, days


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 9))
def test_pieces_cover_a_range_without_a_seam_and_lose_no_row(numbers: list[int], rows: int) -> None:
    frame = bars_at([day(number) for number in sorted(numbers)])

    pieces = list(in_pieces(frame, days(0, 30), rows=rows))

    assert (day(0), day(30)) == (pieces[0].covered.start, pieces[-1].covered.end)
    assert all(one.covered.end == other.covered.start for one, other in pairwise(pieces))
    assert frame.index.tolist() == [time for piece in pieces for time in piece.frame.index]
    for piece in pieces:
        assert all(piece.covered.start <= time < piece.covered.end for time in piece.frame.index)


def test_bars_that_do_not_ascend_are_one_piece() -> None:
    frame = daily(0, 9).iloc[::-1]

    (piece,) = in_pieces(frame, days(0, 9), rows=2)

    pd.testing.assert_frame_equal(frame, piece.frame)


def test_no_bars_are_one_piece_that_covers_the_range() -> None:
    (piece,) = in_pieces(no_bars(), days(0, 9))

    assert (0, days(0, 9)) == (len(piece.frame), piece.covered)


def test_a_provider_that_lists_its_series_names_what_it_lacks() -> None:
    violations = check_provided(SampleBarSource(), ["IBM", "XYZ"], "7d")

    assert ["symbols[1]", "timeframe"] == [violation.field for violation in violations]


def test_a_series_that_is_not_provided_fails_alone() -> None:
    with pytest.raises(SeriesFailedError, match="There are no bars for symbol 'XYZ'") as raised:
        require_provided(SampleBarSource(), "XYZ", "1d")
    assert "NO_SUCH_SERIES" == raised.value.reason
