"""Bars as a table, as CSV and as JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple, TextIO

from ktrdr.marketdata.v1 import bar_pb2

COLUMNS = ("time", "open", "high", "low", "close", "volume")
_BY_IMPORTANCE = ("close", "volume", "high", "low", "open")
_DAILY = frozenset({"1d", "1w"})
_GAP = "  "


class Bar(NamedTuple):
    """One bar."""

    time: int
    """Its start, in seconds since 1970-01-01 UTC."""
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True, slots=True)
class Bars:
    """The bars of one series, oldest first, as they were sent."""

    symbol: str
    timeframe: str
    chunks: tuple[bar_pb2.BarChunk, ...]

    def __len__(self) -> int:
        """How many bars there are."""
        return sum(len(chunk.times) for chunk in self.chunks)

    def __iter__(self) -> Iterator[Bar]:
        """Give the bars one by one."""
        for c in self.chunks:
            yield from map(Bar, c.times, c.open, c.high, c.low, c.close, c.volume)

    @property
    def daily(self) -> bool:
        """Whether the time of day says nothing, because bars are days or weeks."""
        return self.timeframe in _DAILY


def time_text(seconds: int, *, daily: bool) -> str:
    """The start of a bar: "2012-01-03", or "2012-01-03 14:30"."""
    return f"{datetime.fromtimestamp(seconds, UTC):{'%Y-%m-%d' if daily else '%Y-%m-%d %H:%M'}}"


def decimals(values: Iterable[float], choices: tuple[int, ...]) -> int:
    """The first of the choices that shows all values as they are, else the last."""
    kept = tuple(values)
    return next((d for d in choices if all(round(v, d) == v for v in kept)), choices[-1])


def table_lines(bars: Bars, count: int, width: int | None = None) -> Iterator[str]:
    """A heading and a line for each of the first `count` bars, in columns.

    Where they do not fit into `width`, the least telling ones are left out.
    """
    shown = tuple(islice(bars, count))
    places = decimals((price for bar in shown for price in bar[1:5]), (2, 3, 4, 5, 6))
    fraction = decimals((bar.volume for bar in shown), (0, 2))
    rows = [
        (
            time_text(bar.time, daily=bars.daily),
            *(f"{price:,.{places}f}" for price in bar[1:5]),
            f"{bar.volume:,.{fraction}f}",
        )
        for bar in shown
    ]
    heading = ("time (UTC)", *COLUMNS[1:])
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    kept = _fitting(widths, width)
    for cells in (heading, *rows):
        aligned = (f"{cells[place]:>{widths[place]}}" for place in kept)
        yield _GAP.join((f"{cells[0]:<{widths[0]}}", *aligned))


def _fitting(widths: Sequence[int], width: int | None) -> list[int]:
    """The places of the columns that fit beside the time, at least the first choice."""
    kept: list[int] = []
    used = widths[0]
    for place in map(COLUMNS.index, _BY_IMPORTANCE):
        used += len(_GAP) + widths[place]
        if width is None or used <= width or not kept:
            kept.append(place)
        else:
            break
    return sorted(kept)


def write_csv(bars: Bars, file: TextIO) -> None:
    """Write bars as CSV, every figure as exact as it came."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((_iso(bar.time), *map(_number, bar[1:])) for bar in bars)


def write_json(bars: Bars, file: TextIO) -> None:
    """Write bars as one JSON document, a line per bar, every figure as exact as it came."""
    file.write(f'{{\n  "symbol": {json.dumps(bars.symbol)},\n')
    file.write(f'  "timeframe": {json.dumps(bars.timeframe)},\n  "bars": [')
    for index, bar in enumerate(bars):
        figures = dict(zip(COLUMNS[1:], map(_number, bar[1:]), strict=True))
        line = json.dumps({"time": _iso(bar.time), **figures})
        file.write(f"{',' if index else ''}\n    {line}")
    file.write("\n  ]\n}\n" if len(bars) else "]\n}\n")
    file.flush()


def _iso(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _number(value: float) -> float | int:
    """A whole number without a fraction of zero, as volumes are written."""
    return int(value) if value.is_integer() else value
