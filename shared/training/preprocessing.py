"""Preprocessing: from a symbol's bars to its samples, reported step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from shared.marketdata.bars import BarSource
from shared.marketdata.timeframes import finest
from shared.training.bridge import TrainingProgressBridge
from shared.training.dataset import InsufficientDataError, SymbolSamples
from shared.training.features import (
    align,
    feature_names,
    fuzzy_memberships,
    lagged,
    price_context,
)
from shared.training.holes import Hole, longest_hole
from shared.training.labels import zigzag_labels
from shared.training.request import TrainingRequest
from shared.training.strategy import Strategy

Frames = Mapping[str, pd.DataFrame]
"""A frame per timeframe."""


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """Every symbol's samples and the range of the bars they came from."""

    symbols: tuple[SymbolSamples, ...]
    start: datetime
    """Start of the first bar read of the finest timeframe."""
    end: datetime
    """Start of the last bar read of the finest timeframe."""
    holes: tuple[Hole, ...]
    """The longest of each series that has any."""


class Preprocessor:
    """Turns the bars of a completed request into samples.

    Each report raises OperationCancelledError after a cancellation. Raises
    InsufficientDataError for a symbol with too few bars.
    """

    def __init__(
        self,
        strategy: Strategy,
        request: TrainingRequest,
        bars: BarSource,
        bridge: TrainingProgressBridge,
    ) -> None:
        self._strategy = strategy
        self._request = request
        self._bars = bars
        self._bridge = bridge
        self._base = finest(request.timeframes)

    def run(self) -> Preprocessed:
        """Return the samples of every symbol, in the order of the request."""
        samples, starts, ends, holes = [], [], [], []
        for place, symbol in enumerate(self._request.symbols, start=1):
            where = _Place(symbol, place, len(self._request.symbols))
            bars = self._load(where)
            starts.append(bars[self._base].index[0])
            ends.append(bars[self._base].index[-1])
            holes += [
                longest_hole(symbol, timeframe, pd.DatetimeIndex(frame.index))
                for timeframe, frame in bars.items()
            ]
            samples.append(self._samples(where, bars))
        there = tuple(hole for hole in holes if hole is not None)
        return Preprocessed(tuple(samples), min(starts), max(ends), there)

    def _samples(self, where: _Place, bars: Frames) -> SymbolSamples:
        indicators = self._indicators(where, bars)
        memberships = self._memberships(where, indicators)
        features = self._features(where, bars, memberships)
        self._step(where, "generating_labels")
        return self._labelled(where.symbol, features, bars[self._base])

    def _load(self, where: _Place) -> Frames:
        self._step(where, "loading_data")
        request = self._request
        frames = {
            timeframe: self._bars.read(where.symbol, timeframe, request.start, request.end)
            for timeframe in request.timeframes
        }
        required = self._strategy.training_data.history_required
        if len(frames[self._base]) < required:
            raise _too_few_bars(where.symbol, self._base, frames[self._base], required)
        return frames

    def _indicators(self, where: _Place, bars: Frames) -> Mapping[tuple[str, str], pd.Series]:
        """Return each indicator's values by timeframe and feature_id."""
        # Here, because a process that trains nothing goes without TA-Lib.
        from shared.training.indicators import compute_indicator

        self._step(where, "computing_indicators")
        indicators = self._strategy.indicators
        jobs = [(timeframe, indicator) for timeframe in bars for indicator in indicators]
        values = {}
        for number, (timeframe, job) in enumerate(jobs, start=1):
            self._bridge.on_indicator_computation(
                *where.arguments, timeframe, job.feature_id, number, len(jobs)
            )
            values[timeframe, job.feature_id] = compute_indicator(
                bars[timeframe], job.name, job.feature_id, job.source, job.parameters
            )
        return values

    def _memberships(
        self, where: _Place, indicators: Mapping[tuple[str, str], pd.Series]
    ) -> Mapping[str, list[pd.Series]]:
        """Return the membership columns of each timeframe."""
        self._step(where, "generating_fuzzy")
        sets = self._strategy.fuzzy_sets
        jobs = [(*key, name) for key in indicators for name in sets[key[1]]]
        columns: dict[str, list[pd.Series]] = {}
        for number, (timeframe, feature_id, name) in enumerate(jobs, start=1):
            self._bridge.on_fuzzy_generation(
                *where.arguments, timeframe, f"{feature_id}.{name}", number, len(jobs)
            )
            values = indicators[timeframe, feature_id]
            columns.setdefault(timeframe, []).append(
                fuzzy_memberships(self._strategy, timeframe, feature_id, name, values)
            )
        return columns

    def _features(
        self, where: _Place, bars: Frames, memberships: Mapping[str, list[pd.Series]]
    ) -> pd.DataFrame:
        """Return the features of the base timeframe's bars, without warm-up rows."""
        self._step(where, "creating_features")
        options = self._strategy.model.features
        frames = {}
        for timeframe, columns in memberships.items():
            frame = pd.concat(columns, axis=1)
            if options.include_price_context:
                frame = pd.concat([frame, price_context(timeframe, bars[timeframe])], axis=1)
            frames[timeframe] = lagged(frame, options.lookback_periods)
        table = align(frames)[feature_names(self._strategy, self._request.timeframes)]
        finite = np.isfinite(np.asarray(table, dtype=np.float64))
        return table.loc[table.index[np.flatnonzero(finite.all(axis=1))]]

    def _labelled(self, symbol: str, features: pd.DataFrame, bars: pd.DataFrame) -> SymbolSamples:
        """Join features and labels; bars that lack either are left out."""
        options = self._strategy.supervision.labels
        lookahead = options.label_lookahead
        labels = zigzag_labels(bars["close"], options.zigzag_threshold, lookahead)
        ends = pd.Series(bars.index[lookahead:], index=labels.index)
        rows = features.index.intersection(labels.index)
        return SymbolSamples(
            symbol,
            features.loc[rows],
            np.asarray(labels.loc[rows], dtype=np.int64),
            pd.DatetimeIndex(ends.loc[rows]),
        )

    def _step(self, where: _Place, step: str) -> None:
        self._bridge.on_symbol_processing(*where.arguments, step)


@dataclass(frozen=True, slots=True)
class _Place:
    """Which symbol of how many."""

    symbol: str
    index: int
    total: int

    @property
    def arguments(self) -> tuple[str, int, int]:
        return self.symbol, self.index, self.total


def _too_few_bars(
    symbol: str, timeframe: str, bars: pd.DataFrame, required: int
) -> InsufficientDataError:
    span = f" from {bars.index[0]:%Y-%m-%d} to {bars.index[-1]:%Y-%m-%d}" if len(bars) else ""
    return InsufficientDataError(
        f"{symbol} {timeframe} has {len(bars)} bars{span} in the range asked for; "
        f"training_data.history_required is {required}. Use a longer range, load more bars if "
        "only some have been loaded, or lower history_required.",
        metadata={"symbol": symbol, "bars": str(len(bars)), "required": str(required)},
    )
