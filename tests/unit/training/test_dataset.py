import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rpc.errors import FailedPreconditionError
from shared.training.dataset import (
    MIN_PART_SAMPLES,
    PARTS,
    SymbolSamples,
    build_dataset,
    split_samples,
)
from shared.training.scaler import Scaler
from shared.training.strategy import DataSplit

SPLIT = DataSplit(train=0.6, validation=0.2, test=0.2)


def samples(symbol: str, count: int, lookahead: int = 5, offset: int = 0) -> SymbolSamples:
    """Samples whose one feature and label are their position."""
    days = pd.date_range("2020-01-01", periods=count + lookahead + offset, freq="D", tz="UTC")
    days = days[offset:]
    frame = pd.DataFrame({"a": np.arange(count, dtype=float)}, index=days[:count])
    return SymbolSamples(symbol, frame, np.arange(count) % 3, days[lookahead:])


@given(
    count=st.integers(100, 300),
    other=st.integers(100, 300),
    offset=st.integers(0, 20),
    lookahead=st.integers(1, 8),
)
def test_no_label_of_a_part_looks_into_the_time_of_a_later_one(
    count: int, other: int, offset: int, lookahead: int
) -> None:
    symbols = [samples("A", count, lookahead), samples("B", other, lookahead, offset)]
    try:
        parts = split_samples(symbols, SPLIT)
    except FailedPreconditionError:
        return  # too few of one symbol in a part, and said so

    for part, later in [("train", "validation"), ("validation", "test")]:
        last_seen = max(symbol[part].label_ends.max() for symbol in parts)
        first_later = min(symbol[later].features.index.min() for symbol in parts)
        assert last_seen < first_later


@given(count=st.integers(100, 300), lookahead=st.integers(1, 8))
def test_only_the_purged_samples_are_left_out(count: int, lookahead: int) -> None:
    (parts,) = split_samples([samples("A", count, lookahead)], SPLIT)

    assert count - 2 * lookahead == sum(len(parts[part].labels) for part in PARTS)


def test_every_symbol_is_in_every_part() -> None:
    parts = split_samples([samples("A", 200), samples("B", 150, offset=50)], SPLIT)

    for symbol, name in zip(parts, "AB", strict=True):
        assert set(PARTS) == set(symbol)
        assert {name} == {symbol[part].symbol for part in PARTS}
        assert all(len(symbol[part].labels) >= MIN_PART_SAMPLES for part in PARTS)


def test_the_fractions_are_those_of_all_symbols_together() -> None:
    parts = split_samples([samples("A", 400, 1), samples("B", 300, 1, offset=100)], SPLIT)

    counts = [sum(len(symbol[part].labels) for symbol in parts) for part in PARTS]

    assert [pytest.approx(share * 700, abs=4) for share in (0.6, 0.2, 0.2)] == counts


@pytest.mark.parametrize("count", [0, 20])
def test_too_few_samples_say_where_and_what_to_do(count: int) -> None:
    with pytest.raises(FailedPreconditionError) as caught:
        split_samples([samples("A", count)], SPLIT)

    assert "INSUFFICIENT_DATA" == caught.value.reason
    assert f"A has {count} samples" in caught.value.message
    assert "use a longer range" in caught.value.message
    assert {"symbol", "train", "validation", "test"} == set(caught.value.metadata)


def test_a_symbol_missing_from_a_part_is_named() -> None:
    with pytest.raises(FailedPreconditionError, match="B has 100 samples from 2020-10-27"):
        split_samples([samples("A", 400), samples("B", 100, offset=300)], SPLIT)


def test_the_scaler_sees_the_train_part_alone() -> None:
    parts = split_samples([samples("A", 200), samples("B", 200)], SPLIT)
    train = np.concatenate([symbol["train"].features.to_numpy() for symbol in parts])

    dataset = build_dataset(parts, scale=True)

    assert Scaler.fit(train) == dataset.scaler
    assert np.allclose(dataset.train.inputs.mean(axis=0), 0, atol=1e-6)
    assert dataset.test.inputs.mean() > 1


def test_symbols_are_put_together_part_by_part() -> None:
    parts = split_samples([samples("A", 200), samples("B", 200)], SPLIT)

    dataset = build_dataset(parts, scale=False)

    assert ("a",) == dataset.features
    assert np.dtype("float32") == dataset.train.inputs.dtype
    assert np.dtype("int64") == dataset.train.labels.dtype
    for part, name in zip((dataset.train, dataset.validation, dataset.test), PARTS, strict=True):
        expected = [value for symbol in parts for value in symbol[name].features["a"]]
        assert expected == part.inputs[:, 0].tolist()
        assert len(part) == len(part.inputs) == len(part.labels)
