from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.marketdata.bars import BarSource
from shared.operations.cancellation import CancelSignal
from shared.rpc.errors import FailedPreconditionError, OperationCancelledError
from shared.training.bridge import SYMBOL_STEPS
from shared.training.features import feature_names
from shared.training.preprocessing import Preprocessed, Preprocessor
from shared.training.request import TrainingRequest
from shared.training.strategy import Strategy

Small = Callable[..., Strategy]
Bridges = Callable[..., Any]
Walk = Callable[..., pd.DataFrame]
MakeBars = Callable[[Mapping[str, pd.DataFrame]], BarSource]

BOTH = TrainingRequest(symbols=("AAA", "BBB"), timeframes=("1w", "1d"))


def preprocess(
    strategy: Strategy, bars: BarSource, bridge: Any, request: TrainingRequest = BOTH
) -> Preprocessed:
    return Preprocessor(strategy, request, bars, bridge).run()


def test_every_step_is_reported_in_order(
    small: Small, bars: BarSource, make_bridge: Bridges
) -> None:
    bridge = make_bridge(1)

    preprocess(small(), bars, bridge)

    steps = [call for call in bridge.calls if call[0] == "symbol"]
    assert [
        ("symbol", symbol, index, 2, step)
        for index, symbol in enumerate(("AAA", "BBB"), start=1)
        for step in SYMBOL_STEPS
    ] == steps
    assert [("indicator", "AAA", tf, "rsi_14") for tf in ("1w", "1d")] == [
        call for call in bridge.calls if call[:2] == ("indicator", "AAA")
    ]
    assert [
        ("fuzzy", "BBB", tf, f"rsi_14.{name}")
        for tf in ("1w", "1d")
        for name in ("oversold", "neutral", "overbought")
    ] == [call for call in bridge.calls if call[:2] == ("fuzzy", "BBB")]


def test_progress_never_falls(small: Small, bars: BarSource, make_bridge: Bridges) -> None:
    bridge = make_bridge(1)
    seen: list[float] = []

    def look() -> None:
        if bridge._latest is not None:  # resolved raw: get_status() would hide a fall
            seen.append(bridge._resolve(bridge._latest).percentage)

    bridge.when[()] = look

    preprocess(small(), bars, bridge)

    assert len(seen) > 20
    assert sorted(seen) == seen
    assert 4.0 <= seen[-1] <= 5.0


def test_samples_have_every_feature_and_no_gap(
    small: Small, bars: BarSource, make_bridge: Bridges
) -> None:
    strategy = small({"model.features.include_price_context": "true"})

    prepared = preprocess(strategy, bars, make_bridge(1))

    for samples in prepared.symbols:
        assert feature_names(strategy, ("1d", "1w")) == list(samples.features.columns)
        assert np.isfinite(samples.features.to_numpy()).all()
        assert len(samples.features) == len(samples.labels) == len(samples.label_ends)
        assert ((samples.label_ends - samples.features.index) == pd.Timedelta(days=8)).all()
    days = bars.read("AAA", "1d", None, None).index
    assert (days[0], days[-1]) == (prepared.start, prepared.end)


def test_warm_up_rows_are_left_out(small: Small, bars: BarSource, make_bridge: Bridges) -> None:
    request = TrainingRequest(symbols=("AAA",), timeframes=("1d",))
    days = bars.read("AAA", "1d", None, None).index

    (samples,) = preprocess(small(), bars, make_bridge(1), request).symbols

    # 14 bars until the first RSI, 2 more for its lags; 8 at the end for the label.
    assert days[16] == samples.features.index[0]
    assert days[-9] == samples.features.index[-1]


def test_no_feature_depends_on_a_bar_that_has_not_ended(
    small: Small, walk: Walk, make_bars: MakeBars, make_bridge: Bridges
) -> None:
    strategy = small({"model.features.include_price_context": "true"})
    request = TrainingRequest(symbols=("AAA",), timeframes=("1d", "1w"))
    whole, later = walk(400, 3), walk(400, 3)
    cut = 300
    later.iloc[cut:] *= 1.7

    before, after = (
        preprocess(strategy, make_bars({"AAA": daily}), make_bridge(1), request).symbols[0]
        for daily in (whole, later)
    )

    known = before.features.index < whole.index[cut]
    pd.testing.assert_frame_equal(before.features[known], after.features[known])
    labelled = before.label_ends < whole.index[cut]
    assert before.labels[labelled].tolist() == after.labels[labelled].tolist()


def test_only_bars_of_the_range_are_used(
    small: Small, bars: BarSource, make_bridge: Bridges
) -> None:
    days = bars.read("AAA", "1d", None, None).index
    request = TrainingRequest(("AAA",), ("1d",), days[100], days[400])

    prepared = preprocess(small(), bars, make_bridge(1), request)

    assert (days[100], days[399]) == (prepared.start, prepared.end)


def test_holes_in_the_bars_are_found(
    small: Small, walk: Walk, make_bars: MakeBars, make_bridge: Bridges
) -> None:
    whole = walk(1000, 1)
    torn = pd.concat([whole.iloc[:400], whole.iloc[500:]])
    request = TrainingRequest(("AAA", "BBB"), ("1d",))

    bars = make_bars({"AAA": whole, "BBB": torn})
    (hole,) = preprocess(small(), bars, make_bridge(1), request).holes

    assert ("BBB", "1d", whole.index[500]) == (hole.symbol, hole.timeframe, hole.end)


@pytest.mark.parametrize("count", [1, 150])
def test_too_few_bars_are_refused(
    count: int, small: Small, walk: Walk, make_bars: MakeBars, make_bridge: Bridges
) -> None:
    request = TrainingRequest(symbols=("AAA",), timeframes=("1d",))

    with pytest.raises(FailedPreconditionError) as caught:
        preprocess(small(), make_bars({"AAA": walk(count, 1)}), make_bridge(1), request)

    assert "INSUFFICIENT_DATA" == caught.value.reason
    assert "load more bars if only some have been loaded" in caught.value.message
    assert f"AAA 1d has {count} bars from 2020-01-06" in caught.value.message
    assert {"symbol": "AAA", "bars": str(count), "required": "200"} == caught.value.metadata


def test_no_bars_at_all_are_refused(
    small: Small, walk: Walk, make_bars: MakeBars, make_bridge: Bridges
) -> None:
    request = TrainingRequest(symbols=("AAA",), timeframes=("1d",))

    with pytest.raises(FailedPreconditionError, match="AAA 1d has 0 bars in the range"):
        preprocess(small(), make_bars({"AAA": walk(9, 1).iloc[:0]}), make_bridge(1), request)


@pytest.mark.parametrize(
    "call", [*(("symbol", "BBB", 2, 2, step) for step in SYMBOL_STEPS), ("indicator",), ("fuzzy",)]
)
def test_a_cancellation_is_noticed_at_every_step(
    call: tuple[object, ...], small: Small, bars: BarSource, make_bridge: Bridges
) -> None:
    cancel = CancelSignal()
    bridge = make_bridge(1, cancel)
    bridge.when[call] = cancel.request

    with pytest.raises(OperationCancelledError):
        preprocess(small(), bars, bridge)

    assert call == bridge.calls[-1][: len(call)]
