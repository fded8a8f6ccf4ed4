import io
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from backend.cli.bars import Bars
from backend.cli.candle_plot import save_candles
from backend.cli.candles import merged, print_chart
from tests.unit.cli.market_samples import FALLS, RISES, chunk, some_bars


def drawn(bars: Bars, width: int = 80, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    console = Console(file=file, width=width, color_system=None)
    print_chart(console, bars)
    file.seek(0)
    return file.read().splitlines()


@pytest.mark.parametrize("count", [1, 2, 79, 80, 81, 5_000])
@pytest.mark.parametrize("width", [30, 80, 200])
def test_a_chart_of_any_length_fits_the_width(count: int, width: int) -> None:
    lines = drawn(some_bars(count), width)
    assert max(map(len, lines[:-1])) <= width
    assert "2012-01-03" in lines[-2]


def test_up_and_down_are_told_apart_without_colour() -> None:
    rising, falling = (drawn(Bars("IBM", "1d", (chunk(one),))) for one in (RISES, FALLS))
    assert any("░" in line for line in rising[:-1])
    assert not any("░" in line for line in falling[:-1])
    assert any("█" in line for line in falling[:18])


def test_a_console_without_unicode_gets_plain_characters() -> None:
    lines = drawn(some_bars(10), encoding="ascii")
    assert any("#" in line for line in lines[:-1])
    assert any("o" in line for line in lines[:-1])


def test_wicks_reach_from_the_highest_to_the_lowest_price() -> None:
    column = [line[-1:] for line in drawn(Bars("IBM", "1d", (chunk(RISES),)))[:18]]
    assert ("│", "░", "│") == (column[0], column[9], column[17])


def test_a_price_that_never_moves_is_one_line() -> None:
    still = RISES._replace(open=5.0, high=5.0, low=5.0, close=5.0)
    lines = drawn(Bars("IBM", "1d", (chunk(still),)))
    assert 1 == sum("░" in line for line in lines[:18])


def test_without_volume_there_is_no_line_for_it() -> None:
    none = Bars("IBM", "1d", (chunk(RISES._replace(volume=0.0)),))
    assert len(drawn(none)) == len(drawn(some_bars(1))) - 1


def test_too_many_bars_are_taken_together() -> None:
    candles, each = merged(some_bars(5), 2)
    assert (2, 3) == (len(candles), each)
    first = candles[0]
    assert (10.0, 12.5, 8.0, 12.0, 4_500.0) == (
        first.open,
        first.high,
        first.low,
        first.close,
        first.volume,
    )
    assert some_bars(5).chunks[0].times[-1] == candles[-1].last
    assert "each candle is" in drawn(some_bars(500))[-1]


def test_a_candle_that_ends_at_the_lowest_price_does_not_touch_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    save_candles(path, Bars("IBM", "1d", (chunk(FALLS._replace(low=FALLS.close)),)))
    picture = imread(path)[:, :, :3]
    column = picture[:, picture.shape[1] // 3]
    filled = column.max(axis=1) - column.min(axis=1) > 0.3
    end = filled.argmax() + (~filled[filled.argmax() :]).argmax()
    assert column[end : end + 6].max(axis=1).min() > 0.5


def test_dollars_in_a_symbol_are_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    save_candles(path, Bars("$A^$", "1d", (chunk(RISES),)))
    assert path.is_file()


@pytest.mark.parametrize("count", [1, 3, 2_000])
@pytest.mark.parametrize("timeframe", ["1d", "5m"])
def test_the_picture_is_a_png_of_a_readable_size(
    tmp_path: Path, count: int, timeframe: str
) -> None:
    path = tmp_path / "p.png"
    save_candles(path, some_bars(count, timeframe))
    height, width = imread(path).shape[:2]
    assert width >= 1000
    assert height >= 500
