"""Validation: what is wrong with fetched bars. It leaves rows out, and never makes one up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.marketdata.bars import COLUMNS, in_canonical_form

EXAMPLES = 3
"""How many rows a problem names."""


class ProblemKind(Enum):
    """What can be wrong with bars."""

    ORDER = "order"
    DUPLICATE = "duplicate"
    MISSING = "missing"
    OHLC = "ohlc"
    VOLUME = "volume"


_TEXTS = {
    ProblemKind.ORDER: "out of order, and sorted",
    ProblemKind.DUPLICATE: "left out, as an earlier row has the same time",
    ProblemKind.MISSING: "left out, as a time or value is missing or not finite",
    ProblemKind.OHLC: "left out, as high or low contradicts the other prices",
    ProblemKind.VOLUME: "left out, as volume is negative",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of defect: how many rows have it, and the first of them."""

    kind: ProblemKind
    count: int
    examples: tuple[str, ...]
    """At most EXAMPLES rows, as they were given."""

    def __str__(self) -> str:
        rows = "1 row" if self.count == 1 else f"{self.count} rows"
        return f"{rows} {_TEXTS[self.kind]} ({'; '.join(self.examples)})"


@dataclass(frozen=True, slots=True)
class Validated:
    """Bars that may be kept, and what was wrong with the others."""

    frame: pd.DataFrame
    """In canonical form: see bars.in_canonical_form."""
    problems: tuple[Problem, ...]
    rejected: int
    """Rows left out; a row with several defects counts once."""


def validate(frame: pd.DataFrame) -> Validated:
    """Sort bars and leave out those that cannot be right.

    Raises ValueError for a frame without COLUMNS or with times that have no zone.
    """
    times = _times(frame)
    values = frame[list(COLUMNS)].to_numpy("float64")
    defects = dict(_defects(times, values))
    bad = np.logical_or.reduce(list(defects.values()))
    # Of rows with the same time the first that can be right is kept.
    again = np.zeros(len(frame), dtype=bool)
    again[~bad] = times[~bad].duplicated(keep="first")
    defects[ProblemKind.DUPLICATE] = again
    unordered = _earlier_than_one_before(times)
    if not (bad.any() or again.any() or unordered.any()):
        return Validated(in_canonical_form(frame), (), 0)
    kept = frame.loc[~(bad | again)].sort_index(kind="stable")
    found = {ProblemKind.ORDER: unordered, **defects}
    problems = (_problem(kind, rows, frame) for kind, rows in found.items() if rows.any())
    return Validated(in_canonical_form(kept), tuple(problems), int((bad | again).sum()))


def _times(frame: pd.DataFrame) -> pd.DatetimeIndex:
    """Return the starts of the bars. Raises ValueError unless it is a frame of bars."""
    absent = [name for name in COLUMNS if name not in frame.columns]
    if absent:
        raise ValueError(f"bars need the columns {', '.join(COLUMNS)}; {absent} are not there")
    if not isinstance(frame.index, pd.DatetimeIndex) or frame.index.tz is None:
        raise ValueError("bars need an index of times with a zone")
    return frame.index


def _defects(
    times: pd.DatetimeIndex, values: NDArray[np.float64]
) -> Iterator[tuple[ProblemKind, NDArray[np.bool_]]]:
    """Give the rows that have each kind of defect a row can have by itself."""
    missing = np.asarray(times.isna()) | ~np.isfinite(values).all(axis=1)
    opened, high, low, close, volume = np.where(missing[:, None], 0.0, values).T
    yield ProblemKind.MISSING, missing
    contradicts = (high < np.maximum(opened, close)) | (low > np.minimum(opened, close))
    yield ProblemKind.OHLC, contradicts | (high < low)
    yield ProblemKind.VOLUME, volume < 0


def _earlier_than_one_before(times: pd.DatetimeIndex) -> NDArray[np.bool_]:
    if times.is_monotonic_increasing:
        return np.zeros(len(times), dtype=bool)
    ticks = times.as_unit("us").asi8  # a missing time is the least of all
    there = np.asarray(times.notna())
    earlier: NDArray[np.bool_] = (ticks < np.maximum.accumulate(ticks)) & there
    return earlier


def _problem(kind: ProblemKind, rows: NDArray[np.bool_], frame: pd.DataFrame) -> Problem:
    first = np.flatnonzero(rows)[:EXAMPLES]
    examples = (_described(frame, int(row)) for row in first)
    return Problem(kind, int(rows.sum()), tuple(examples))


def _described(frame: pd.DataFrame, row: int) -> str:
    time, values = frame.index[row], frame.iloc[row]
    at = "no time" if pd.isna(time) else f"{time:%Y-%m-%d %H:%M}"
    return " ".join([at, *(f"{name} {values[name]:g}" for name in COLUMNS)])
