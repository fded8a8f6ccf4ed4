"""The dataset: every symbol's samples, split in time, scaled and put together.

The cuts are points in time, the same for every symbol, so no part holds a bar
from the time of another part, of whatever symbol. They lie where the samples of
all symbols together reach the fractions asked for. Before each cut, samples
whose label looks at or past it are purged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shared.rpc.errors import FailedPreconditionError
from shared.training.labels import Labels
from shared.training.scaler import Matrix, Scaler
from shared.training.strategy import DataSplit

MIN_PART_SAMPLES = 10
"""The fewest samples of each symbol in each part."""

PARTS = ("train", "validation", "test")


class InsufficientDataError(FailedPreconditionError):
    """The bars do not give enough samples; the message says where and what to do."""

    reason = "INSUFFICIENT_DATA"


@dataclass(frozen=True, slots=True)
class SymbolSamples:
    """One symbol's samples, oldest first, one row per labelled bar past warm-up."""

    symbol: str
    features: pd.DataFrame
    """Indexed by the bar's start; no missing values."""
    labels: Labels
    label_ends: pd.DatetimeIndex
    """Start of the last bar that each label may depend on."""


@dataclass(frozen=True, slots=True)
class Part:
    """The samples of one part, ready for the network."""

    inputs: Matrix
    """(samples, features)"""
    labels: Labels
    """(samples,)"""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Dataset:
    """The parts of all symbols together and the scaler that the train part gave."""

    train: Part
    validation: Part
    test: Part
    scaler: Scaler
    features: tuple[str, ...]
    """Names of the columns of the inputs."""


def split_samples(
    symbols: Sequence[SymbolSamples], split: DataSplit
) -> list[Mapping[str, SymbolSamples]]:
    """Return each symbol's samples by part; every symbol is in every part.

    Raises InsufficientDataError if a symbol has fewer than MIN_PART_SAMPLES in
    a part.
    """
    times = sorted(time for samples in symbols for time in samples.features.index)
    if not times:
        raise _insufficient(symbols[0], dict.fromkeys(PARTS, 0))
    first, second = (
        times[min(len(times) - 1, round(len(times) * fraction))]
        for fraction in (split.train, split.train + split.validation)
    )
    return [_cut(samples, first, second) for samples in symbols]


def _cut(
    samples: SymbolSamples, first: pd.Timestamp, second: pd.Timestamp
) -> Mapping[str, SymbolSamples]:
    start, end = samples.features.index, samples.label_ends
    rows = {
        "train": end < first,
        "validation": (start >= first) & (end < second),
        "test": start >= second,
    }
    counts = {part: int(chosen.sum()) for part, chosen in rows.items()}
    if min(counts.values()) < MIN_PART_SAMPLES:
        raise _insufficient(samples, counts)
    return {
        part: SymbolSamples(
            samples.symbol, samples.features[chosen], samples.labels[chosen], end[chosen]
        )
        for part, chosen in rows.items()
    }


def build_dataset(parts: Sequence[Mapping[str, SymbolSamples]], *, scale: bool) -> Dataset:
    """Concatenate the symbols of each part; the scaler sees the train part alone."""
    frames = {part: pd.concat([symbol[part].features for symbol in parts]) for part in PARTS}
    labels = {part: np.concatenate([symbol[part].labels for symbol in parts]) for part in PARTS}
    train = frames["train"].to_numpy(dtype=np.float64)
    scaler = Scaler.fit(train) if scale else Scaler.identity(train.shape[1])
    train_part, validation_part, test_part = (
        Part(scaler.apply(frames[part].to_numpy(dtype=np.float64)), labels[part]) for part in PARTS
    )
    return Dataset(
        train_part, validation_part, test_part, scaler, tuple(map(str, frames["train"].columns))
    )


def _insufficient(samples: SymbolSamples, counts: Mapping[str, int]) -> InsufficientDataError:
    shown = ", ".join(f"{count} for {part}" for part, count in counts.items())
    index = samples.features.index
    span = f" from {index[0]:%Y-%m-%d} to {index[-1]:%Y-%m-%d}" if len(index) else ""
    return InsufficientDataError(
        f"{samples.symbol} has {len(index)} samples{span}, which leaves {shown}; each part needs "
        f"at least {MIN_PART_SAMPLES}. All symbols are cut at the same dates: use a longer range, "
        "a start within the time all symbols share, fewer symbols, a finer timeframe, shorter "
        "indicator periods or a smaller label_lookahead.",
        metadata={"symbol": samples.symbol, **{part: str(n) for part, n in counts.items()}},
    )
