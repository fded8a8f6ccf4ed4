"""Bars as candles, drawn with characters that tell up from down without colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from backend.cli.bars import Bar, Bars, time_text

_ROWS = 18
_LABEL_EVERY = 4
"""Rows between two prices beside the chart."""
_VOLUME = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Candle:
    """One bar, or several in a row taken together."""

    time: int
    """Start of the first bar, in seconds since 1970-01-01 UTC."""
    open: float
    high: float
    low: float
    close: float
    volume: float
    """Of all its bars."""
    last: int
    """Start of the last bar."""

    @property
    def rises(self) -> bool:
        """Whether it closes no lower than it opens."""
        return self.close >= self.open


@dataclass(frozen=True, slots=True)
class _Glyphs:
    """What candles are made of."""

    up: str
    down: str
    wick: str
    volume: str
    axis: str


_UNICODE = _Glyphs("░", "█", "│", _VOLUME, "┤")
_ASCII = _Glyphs("o", "#", "|", " .:-=+*%@", "|")


class _Scale:
    """Prices as rows from the top, 0, to the bottom."""

    def __init__(self, candles: Sequence[Candle], rows: int) -> None:
        self.high = max(candle.high for candle in candles)
        self.low = min(candle.low for candle in candles)
        self._rows = rows

    def row(self, price: float) -> int:
        """The row a price lies in."""
        span = self.high - self.low
        if not span > 0:
            return self._rows // 2
        return min(self._rows - 1, int((self.high - price) / span * self._rows))

    def price(self, row: int) -> float:
        """The price in the middle of a row."""
        return self.high - (row + 0.5) * (self.high - self.low) / self._rows


def merged(bars: Bars, most: int) -> tuple[tuple[Candle, ...], int]:
    """At most so many candles, and how many bars each of them stands for."""
    each = max(1, math.ceil(len(bars) / most))
    return tuple(_candle(run) for run in _runs(bars, each)), each


def print_chart(console: Console, bars: Bars) -> None:
    """Draw bars as wide as the console; at least one bar."""
    # A console that cannot show the characters would fail at the first of them.
    glyphs = _UNICODE if console.encoding.lower().startswith("utf") else _ASCII
    high, low = max(bar.high for bar in bars), min(bar.low for bar in bars)
    places = _places(high - low)
    label = max(len(f"{price:,.{places}f}") for price in (high, low))
    columns = max(1, console.width - label - 2)
    candles, each = merged(bars, columns)
    step = max(1, min(3, columns // len(candles)))
    for line in _price_lines(candles, step, label, places, glyphs):
        console.print(line, no_wrap=True, crop=True)
    indent = " " * (label + 2)
    if any(candle.volume > 0 for candle in candles):
        console.print(Text(indent + _volume_line(candles, step, glyphs)), no_wrap=True)
    width = (len(candles) - 1) * step + 1
    console.print(Text(indent + _time_line(bars, candles, width)), no_wrap=True, crop=True)
    console.print(Text(_legend(bars, each, glyphs), style="dim"), soft_wrap=True)


def _places(span: float) -> int:
    """The decimals that tell the prices beside the chart apart."""
    return min(8, max(0, 2 - math.floor(math.log10(span)))) if span > 0 else 2


def _runs(bars: Iterable[Bar], each: int) -> Iterator[list[Bar]]:
    run: list[Bar] = []
    for bar in bars:
        run.append(bar)
        if len(run) == each:
            yield run
            run = []
    if run:
        yield run


def _candle(run: list[Bar]) -> Candle:
    return Candle(
        time=run[0].time,
        open=run[0].open,
        high=max(bar.high for bar in run),
        low=min(bar.low for bar in run),
        close=run[-1].close,
        volume=sum(bar.volume for bar in run),
        last=run[-1].time,
    )


def _price_lines(
    candles: Sequence[Candle], step: int, label: int, places: int, glyphs: _Glyphs
) -> Iterator[Text]:
    """The chart from the top, each line with its price or without."""
    scale = _Scale(candles, _ROWS)
    for row in range(_ROWS):
        labelled = row % _LABEL_EVERY == 0 or row == _ROWS - 1
        price = f"{scale.price(row):,.{places}f}" if labelled else ""
        line = Text(f"{price:>{label}}{glyphs.axis if labelled else ' '} ", style="dim")
        for candle in candles:
            glyph = _cell(candle, row, scale, glyphs)
            line.append(f"{glyph:<{step}}", style=f"not dim {'green' if candle.rises else 'red'}")
        line.rstrip()
        yield line


def _cell(candle: Candle, row: int, scale: _Scale, glyphs: _Glyphs) -> str:
    """What a candle shows in a row: body, wick or nothing."""
    body = scale.row(max(candle.open, candle.close)), scale.row(min(candle.open, candle.close))
    if body[0] <= row <= body[1]:
        return glyphs.up if candle.rises else glyphs.down
    return glyphs.wick if scale.row(candle.high) <= row <= scale.row(candle.low) else " "


def _volume_line(candles: Sequence[Candle], step: int, glyphs: _Glyphs) -> str:
    most = max(candle.volume for candle in candles)
    top = len(glyphs.volume) - 1
    marks = (glyphs.volume[math.ceil(candle.volume / most * top)] for candle in candles)
    return "".join(f"{mark:<{step}}" for mark in marks).rstrip()


def _time_line(bars: Bars, candles: Sequence[Candle], width: int) -> str:
    """The time of the first bar at the left and, if there is room, of the last at the right."""
    times = candles[0].time, candles[-1].last
    first, last = (time_text(time, daily=bars.daily) for time in times)
    gap = width - len(first) - len(last)
    return f"{first}{' ' * gap}{last}" if gap >= 2 else f"{first} to {last}"


def _legend(bars: Bars, each: int, glyphs: _Glyphs) -> str:
    bar = f"{bars.symbol} {bars.timeframe}"
    merged_text = f"; each candle is {each} bars" if each > 1 else ""
    return (
        f"{bar}: {glyphs.up} up, {glyphs.down} down, {glyphs.wick} high and low, "
        f"volume below{merged_text}; UTC"
    )
