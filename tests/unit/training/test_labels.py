import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.training.labels import Label, class_shares, zigzag_labels

B, H, S = Label.BUY, Label.HOLD, Label.SELL

STEPS = st.lists(st.sampled_from([-0.04, -0.02, -0.005, 0.0, 0.005, 0.02, 0.04]), max_size=40)


def series(closes: list[float]) -> pd.Series:
    index = pd.date_range("2020-01-01", periods=len(closes), freq="D", tz="UTC")
    return pd.Series(closes, index=index, dtype="float64")


def prices(steps: list[float]) -> list[float]:
    return [100.0, *(100.0 * np.cumprod([1 + step for step in steps])).tolist()]


def label_by_definition(closes: list[float], bar: int, threshold: float, lookahead: int) -> Label:
    """Draw the zigzag of the closes up to bar + lookahead afresh, and look the bar up."""
    seen = closes[: bar + lookahead + 1]
    pivot, extreme, direction = 0, 0, 0
    legs: list[tuple[int, int, int]] = []
    for at in range(1, len(seen)):
        since = seen[pivot : at + 1]
        if direction == 0:
            low, high = int(np.argmin(since)), int(np.argmax(since))
            if seen[at] >= seen[low] * (1 + threshold):
                pivot, extreme, direction = low, at, 1
            elif seen[at] <= seen[high] * (1 - threshold):
                pivot, extreme, direction = high, at, -1
        elif direction * (seen[at] - seen[extreme]) > 0:
            extreme = at
        elif (direction == 1 and seen[at] <= seen[extreme] * (1 - threshold)) or (
            direction == -1 and seen[at] >= seen[extreme] * (1 + threshold)
        ):
            legs.append((pivot, extreme, direction))
            pivot, extreme, direction = extreme, at, -direction
    if direction:
        legs.append((pivot, extreme, direction))
    for first, end, up in legs:
        if first <= bar < end:
            return B if up == 1 else S
    return H


def test_a_rise_and_a_fall_are_bought_and_sold() -> None:
    closes = [100.0, 102.0, 104.0, 106.0, 104.0, 102.0, 100.0, 98.0, 98.0, 98.0]

    labels = zigzag_labels(series(closes), 0.03, 3)

    assert [B, B, B, S, S, S, S] == labels.tolist()


def test_a_move_that_is_confirmed_too_late_is_held() -> None:
    closes = [100.0, 101.0, 102.0, 103.0, 104.0, 104.0, 104.0]

    assert [H, B, B, B] == zigzag_labels(series(closes), 0.03, 2).tolist()[:4]


def test_flat_closes_are_held() -> None:
    assert {H} == set(zigzag_labels(series([100.0] * 20), 0.03, 5))


def test_the_last_bars_have_no_label() -> None:
    closes = series([100.0 + bar for bar in range(10)])

    labels = zigzag_labels(closes, 0.03, 4)

    assert closes.index[:6].equals(labels.index)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_bars_than_the_look_ahead_give_no_labels(count: int) -> None:
    assert 0 == len(zigzag_labels(series([100.0] * count), 0.03, 3))


@given(steps=STEPS, lookahead=st.integers(1, 8))
def test_labels_are_those_of_the_definition(steps: list[float], lookahead: int) -> None:
    closes = prices(steps)

    labels = zigzag_labels(series(closes), 0.03, lookahead)

    expected = [label_by_definition(closes, bar, 0.03, lookahead) for bar in range(len(labels))]
    assert expected == labels.tolist()


@given(steps=STEPS, lookahead=st.integers(1, 8), data=st.data())
def test_a_bar_beyond_the_look_ahead_never_changes_a_label(
    steps: list[float], lookahead: int, data: st.DataObject
) -> None:
    closes = prices(steps)
    bar = data.draw(st.integers(0, len(closes) - 1))
    before = zigzag_labels(series(closes), 0.03, lookahead).tolist()
    for later in range(bar + lookahead + 1, len(closes)):
        closes[later] *= data.draw(st.sampled_from([0.5, 0.97, 1.03, 2.0]))

    after = zigzag_labels(series(closes), 0.03, lookahead).tolist()

    assert before[: bar + 1] == after[: bar + 1]


@given(steps=STEPS)
@settings(max_examples=30)
def test_looking_further_ahead_only_settles_held_bars(steps: list[float]) -> None:
    closes = series(prices(steps))
    near, far = (zigzag_labels(closes, 0.03, lookahead).tolist() for lookahead in (2, 6))

    assert all(a in (H, b) for a, b in zip(near, far, strict=False))


def test_shares_sum_to_one() -> None:
    shares = class_shares(np.array([B, B, S, H], dtype=np.int64))

    assert {"BUY": 0.5, "HOLD": 0.25, "SELL": 0.25} == shares


def test_without_labels_all_shares_are_zero() -> None:
    assert {0.0} == set(class_shares(np.array([], dtype=np.int64)).values())
