from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest

from ib_host.simulator.source import BarSourceHistory, FrameHistory
from shared.marketdata.sample import SampleBarSource
from tests.unit.ib_host.simulator.wire import intraday

BARS = intraday(datetime(2013, 3, 1, tzinfo=UTC), 5, "1h")


def test_frames_are_served_as_they_are() -> None:
    history = FrameHistory({("IBM", "1h"): BARS, ("AAPL", "1h"): BARS})

    assert [("AAPL", "1h"), ("IBM", "1h")] == history.series()
    pd.testing.assert_frame_equal(BARS, history.frame("IBM", "1h"))


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (BARS.reset_index(drop=True), "aware instants"),
        (BARS.tz_localize(None), "aware instants"),
        (BARS[::-1], "ascend"),
        (pd.concat([BARS, BARS.iloc[-1:]]), "each instant once"),
        (BARS.drop(columns=["high", "volume"]), "missing: high, volume"),
    ],
)
def test_frames_that_are_no_bars_are_refused(frame: pd.DataFrame, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        FrameHistory({("IBM", "1h"): frame})


def test_any_source_of_bars_can_be_served() -> None:
    sample = SampleBarSource()
    history = BarSourceHistory(sample)

    assert [*sample.series()] == [*history.series()]
    expected = sample.read("IBM", "1d", None, None)
    pd.testing.assert_frame_equal(expected, history.frame("IBM", "1d"))


def test_a_series_there_is_not_is_an_error() -> None:
    with pytest.raises(KeyError):
        FrameHistory({}).frame("IBM", "1d")
    with pytest.raises(KeyError):
        BarSourceHistory(SampleBarSource()).frame("IBM", "5m")
