"""The picture of a series: candles and volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from backend.cli.bars import Bars, time_text
from backend.cli.candles import Candle, merged

_UP, _DOWN = "#2a9d5c", "#c8403a"
_MOST = 400
"""Candles that can still be told apart."""
_WIDTH = 0.7


def save_candles(path: Path, bars: Bars) -> None:
    """Draw bars, at least one, and save the picture as PNG.

    Raises OSError if it cannot be written.
    """
    candles, each = merged(bars, _MOST)
    # Figure instead of pyplot: nothing is kept in the process, no screen is asked for.
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    prices, volume = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    _draw_prices(prices, candles)
    colors = [_color(candle) for candle in candles]
    volume.bar(range(len(candles)), [c.volume for c in candles], width=_WIDTH, color=colors)
    prices.set_ylabel("price")
    volume.set_ylabel("volume")
    volume.yaxis.set_major_formatter(EngFormatter())
    prices.margins(x=0.02)
    _mark_times(volume, candles, daily=bars.daily)
    for axes in (prices, volume):
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    # A dollar in a symbol is no formula.
    figure.suptitle(_title(bars, candles, each).replace("$", r"\$"), fontsize=13)
    figure.savefig(path, format="png", dpi=130)


def _draw_prices(axes: Axes, candles: Sequence[Candle]) -> None:
    """Draw bodies and wicks; a body without height is still a line."""
    places = range(len(candles))
    colors = [_color(candle) for candle in candles]
    # Bars stand on the frame, by default; the lowest body would look cut off there.
    axes.use_sticky_edges = False
    axes.vlines(places, [c.low for c in candles], [c.high for c in candles], colors, linewidth=0.9)
    least = (max(c.high for c in candles) - min(c.low for c in candles)) / 600
    axes.bar(
        places,
        [max(abs(c.close - c.open), least) for c in candles],
        bottom=[min(c.open, c.close) for c in candles],
        width=_WIDTH,
        # Filled is down and hollow is up, so that it can be read without colours.
        color=["white" if c.rises else _DOWN for c in candles],
        edgecolor=colors,
        linewidth=0.9,
        zorder=3,
    )


def _mark_times(axes: Axes, candles: Sequence[Candle], *, daily: bool) -> None:
    """Write times below candles: they stand side by side, whatever lies between them."""

    def text(place: float, _tick: int | None = None) -> str:
        index = round(place)
        on_candle = 0 <= index < len(candles) and abs(place - index) < 1e-6
        return time_text(candles[index].time, daily=daily) if on_candle else ""

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(text))


def _title(bars: Bars, candles: Sequence[Candle], each: int) -> str:
    times = candles[0].time, candles[-1].last
    first, last = (time_text(time, daily=bars.daily) for time in times)
    several = f"  ·  {each} bars per candle" if each > 1 else ""
    return f"{bars.symbol} {bars.timeframe}  ·  {first} to {last} UTC{several}"


def _color(candle: Candle) -> str:
    return _UP if candle.rises else _DOWN
