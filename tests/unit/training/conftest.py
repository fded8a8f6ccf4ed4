"""What the training's tests share: bars without surprises and a small strategy."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shared.marketdata.bars import require_series
from shared.operations.cancellation import CancelSignal
from shared.training.bridge import TrainingProgressBridge
from shared.training.strategy import Strategy, load_strategy

START = datetime(2020, 1, 6, tzinfo=UTC)
STRATEGIES = Path(__file__).parents[3] / "strategies"


def random_walk(count: int, seed: int, start: datetime = START) -> pd.DataFrame:
    """Daily bars of a random walk that is always the same for the same seed."""
    chance = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(chance.normal(0, 0.02, count)))
    spread = close * chance.uniform(0.001, 0.02, count)
    opened = np.concatenate([[close[0]], close[:-1]])
    index = pd.date_range(start, periods=count, freq="D", name="time")
    return pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) + spread,
            "low": np.minimum(opened, close) - spread,
            "close": close,
            "volume": chance.uniform(1e5, 1e6, count),
        },
        index=index,
    )


class FakeBars:
    """A bar source over frames in memory; weeks are made from days."""

    def __init__(self, daily: Mapping[str, pd.DataFrame]) -> None:
        self._daily = dict(daily)
        self.reads: list[tuple[str, str]] = []

    def series(self) -> Sequence[tuple[str, str]]:
        return [(symbol, timeframe) for symbol in sorted(self._daily) for timeframe in ("1d", "1w")]

    def trouble(self) -> str:
        return ""

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        require_series(self, symbol, timeframe)
        self.reads.append((symbol, timeframe))
        bars = self._daily[symbol]
        if timeframe == "1w":
            weeks = bars.resample("W-MON", label="left", closed="left")
            bars = weeks.agg(
                {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
            )
        after = bars.index >= (start or pd.Timestamp.min.tz_localize("UTC"))
        before = bars.index < (end or pd.Timestamp.max.tz_localize("UTC"))
        return bars[after & before]


class RecordingBridge(TrainingProgressBridge):
    """A bridge that remembers the calls, and may do something when one comes."""

    def __init__(self, epochs: int, cancel: CancelSignal | None = None) -> None:
        super().__init__(epochs, cancel=cancel)
        self.calls: list[tuple[object, ...]] = []
        self.when: dict[tuple[object, ...], Callable[[], object]] = {}

    def _record(self, *call: object) -> None:
        self.calls.append(call)
        for beginning, action in self.when.items():
            if call[: len(beginning)] == beginning:
                action()

    def on_batch(self, epoch: int, batch: int, total_batches: int) -> None:
        self._record("batch", epoch, batch, total_batches)
        super().on_batch(epoch, batch, total_batches)

    def on_epoch(self, epoch: int, total_epochs: int, metrics: dict[str, float]) -> None:
        self._record("epoch", epoch, total_epochs, metrics)
        super().on_epoch(epoch, total_epochs, metrics)

    def on_phase(self, phase: str, message: str = "", *, total_batches: int = 0) -> None:
        self._record("phase", phase, total_batches)
        super().on_phase(phase, message, total_batches=total_batches)

    def on_symbol_processing(
        self, symbol: str, symbol_index: int, total_symbols: int, step: str
    ) -> None:
        self._record("symbol", symbol, symbol_index, total_symbols, step)
        super().on_symbol_processing(symbol, symbol_index, total_symbols, step)

    def on_indicator_computation(
        self,
        symbol: str,
        symbol_index: int,
        total_symbols: int,
        timeframe: str,
        indicator_name: str,
        indicator_index: int,
        total_indicators: int,
    ) -> None:
        self._record("indicator", symbol, timeframe, indicator_name)
        super().on_indicator_computation(
            symbol,
            symbol_index,
            total_symbols,
            timeframe,
            indicator_name,
            indicator_index,
            total_indicators,
        )

    def on_fuzzy_generation(
        self,
        symbol: str,
        symbol_index: int,
        total_symbols: int,
        timeframe: str,
        fuzzy_set_name: str,
        fuzzy_index: int,
        total_fuzzy_sets: int,
    ) -> None:
        self._record("fuzzy", symbol, timeframe, fuzzy_set_name)
        super().on_fuzzy_generation(
            symbol,
            symbol_index,
            total_symbols,
            timeframe,
            fuzzy_set_name,
            fuzzy_index,
            total_fuzzy_sets,
        )

    def on_preparation_phase(self, phase: str, message: str = "") -> None:
        self._record("preparation", phase)
        super().on_preparation_phase(phase, message)

    def on_complete(self, message: str = "Training complete") -> None:
        self._record("complete")
        super().on_complete(message)

    def on_cancellation(self, message: str = "Training cancelled") -> None:
        self._record("cancellation")
        super().on_cancellation(message)


@pytest.fixture
def walk() -> Callable[..., pd.DataFrame]:
    """Makes daily bars of a random walk, of a count, a seed and a start."""
    return random_walk


@pytest.fixture
def make_bars() -> Callable[[Mapping[str, pd.DataFrame]], FakeBars]:
    """Makes a bar source of daily frames by symbol."""
    return FakeBars


@pytest.fixture
def bars() -> FakeBars:
    """Two symbols, three years of days."""
    return FakeBars({"AAA": random_walk(1000, 1), "BBB": random_walk(1000, 2)})


@pytest.fixture
def make_bridge() -> type[RecordingBridge]:
    """Makes a bridge that remembers its calls."""
    return RecordingBridge


@pytest.fixture(scope="session")
def small_yaml() -> str:
    """The text of the small strategy."""
    return (STRATEGIES / "small.yaml").read_text("utf-8")


@pytest.fixture(scope="session")
def demo_yaml() -> str:
    """The text of the demo's strategy."""
    return (STRATEGIES / "momentum_demo.yaml").read_text("utf-8")


@pytest.fixture
def small(small_yaml: str) -> Callable[..., Strategy]:
    """Loads the small strategy for AAA with overrides by dotted path."""

    def load(overrides: Mapping[str, str] | None = None) -> Strategy:
        own = {"training_data.symbols.symbol": "AAA", "model.training.epochs": "2"}
        return load_strategy(small_yaml, {**own, **(overrides or {})})

    return load
