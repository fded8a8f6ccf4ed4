"""Holes: long stretches without bars that no calendar explains; labels run across them too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from shared.marketdata.gaps import GapClass, find_gaps


@dataclass(frozen=True, slots=True)
class Hole:
    """The longest of a series."""

    symbol: str
    timeframe: str
    start: datetime
    """Start of the first bar that is missing."""
    end: datetime
    """Start of the next bar there is."""


def longest_hole(symbol: str, timeframe: str, times: pd.DatetimeIndex) -> Hole | None:
    """Return the longest hole of a series with bars at these times; None if it has none.

    One is longer than 72 hours, weekends left out, as for a gap of class MARKET_CLOSURE.
    """
    gaps = find_gaps(times, timeframe)
    found = [gap for gap in gaps if gap.gap_class is GapClass.MARKET_CLOSURE]
    if not found:
        return None
    longest = max(found, key=lambda gap: gap.end - gap.start)
    return Hole(symbol, timeframe, longest.start, longest.end)
