from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.marketdata.bars import BarSource
from shared.marketdata.sample import SampleBarSource
from shared.operations.cancellation import CancelSignal
from shared.rpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    OperationCancelledError,
)
from shared.training.dataset import split_samples
from shared.training.evaluation import evaluate, majority_label
from shared.training.model_store import ModelStore
from shared.training.orchestrator import TrainingOrchestrator
from shared.training.preprocessing import Preprocessor
from shared.training.request import TrainingRequest
from shared.training.result import TrainingResult
from shared.training.strategy import Strategy, load_strategy

Small = Callable[..., Strategy]
Bridges = Callable[..., Any]

BOTH = TrainingRequest(symbols=("AAA", "BBB"), seed=11)


class Job:
    """One training with all its parts at hand."""

    def __init__(
        self,
        bridges: Bridges,
        strategy: Strategy,
        bars: BarSource,
        root: Path,
        request: TrainingRequest = BOTH,
    ) -> None:
        self.cancel = CancelSignal()
        self.bridge = bridges(strategy.model.training.epochs, self.cancel)
        self.models = ModelStore(root)
        self.run = TrainingOrchestrator(
            strategy,
            bars,
            self.bridge,
            self.cancel,
            request=request,
            models=self.models,
            instance="here",
        ).run


@pytest.fixture
def job(make_bridge: Bridges, small: Small, bars: BarSource, tmp_path: Path) -> Callable[..., Job]:
    """Makes a training of the small strategy."""

    def make(
        request: TrainingRequest = BOTH,
        overrides: Mapping[str, str] | None = None,
        source: BarSource = bars,
    ) -> Job:
        return Job(make_bridge, small(overrides), source, tmp_path / "models", request)

    return make


Jobs = Callable[..., Job]


def test_phases_come_in_order_with_all_their_words(job: Jobs) -> None:
    training = job()

    training.run()

    kinds = [
        call[1] if call[0] in {"phase", "preparation"} else call[0]
        for call in training.bridge.calls
    ]
    preprocessing = ["symbol", "symbol", "indicator", "symbol", "fuzzy", "symbol", "symbol"]
    assert [
        "preprocessing",
        *_runs([*preprocessing, *preprocessing]),
        "splitting_data",
        "combining_data",
        "creating_model",
        "training",
        *("batch", "epoch") * 2,
        "evaluation",
        "saving",
        "complete",
    ] == list(_runs(kinds))


def _runs(words: list[Any]) -> Iterator[Any]:
    """Each word once for as long as it repeats."""
    return (word for word, _ in groupby(words))


def test_the_training_phase_says_its_batches(job: Jobs) -> None:
    training = job()

    training.run()

    batches = {call[3] for call in training.bridge.calls if call[0] == "batch"}
    assert {
        call[2] for call in training.bridge.calls if call[:2] == ("phase", "training")
    } == batches


def test_progress_never_falls_and_ends_at_100(job: Jobs) -> None:
    training = job()
    seen: list[float] = []

    def look() -> None:
        record = training.bridge._latest
        if record is not None:
            seen.append(training.bridge._resolve(record).percentage)

    training.bridge.when[()] = look

    training.run()

    assert sorted(seen) == seen
    assert 100.0 == training.bridge.get_status().percentage


def test_the_result_tells_what_was_done(job: Jobs) -> None:
    training = job()

    result = training.run()

    assert "small/1d_v1" == result.model_name
    assert Path(result.model_path).is_dir()
    assert ("here", 11, ("AAA", "BBB"), ("1d",)) == (
        result.instance,
        result.seed,
        result.symbols,
        result.timeframes,
    )
    assert (2, 688, 9) == (result.epochs_trained, result.parameter_count, result.feature_count)
    assert pytest.approx(1.0) == sum(result.class_shares.values())
    assert result.test.baseline_accuracy == result.baseline_accuracy
    assert result.samples_per_second > 0
    assert result.duration > 0
    assert 2 == len(training.bridge.get_metrics()[0])
    # 2 symbols of 1000 bars: less 16 of warm-up, 8 unlabelled, 2 cuts of 8.
    assert 2 * (1000 - 16 - 8 - 16) == (
        result.train_sample_count + result.validation_sample_count + result.test_sample_count
    )


def test_the_saved_model_gives_the_figures_of_the_result(
    job: Jobs, small: Small, bars: BarSource, make_bridge: Bridges
) -> None:
    training = job()
    result = training.run()
    strategy, request = small(), replace(BOTH, timeframes=("1d",))
    samples = Preprocessor(strategy, request, bars, make_bridge(1)).run().symbols
    parts = split_samples(samples, strategy.supervision.data_split)
    train, test = (np.concatenate([p[name].labels for p in parts]) for name in ("train", "test"))
    inputs = pd.concat([p["test"].features for p in parts])

    classifier = training.models.load(result.model_name)

    logits = np.log(classifier.probabilities(inputs.to_numpy()))
    again = evaluate(logits, test, majority_label(train))
    assert tuple(inputs.columns) == classifier.features
    assert result.test.accuracy == again.accuracy
    assert pytest.approx(result.test.loss, rel=1e-5) == again.loss
    kept = training.models.get(result.model_name).result
    assert replace(result, duration=kept.duration) == kept


def test_the_same_seed_gives_the_same_model(job: Jobs) -> None:
    first, second = job(), job()

    one, two = first.run(), second.run()

    assert one.test == two.test
    assert "small/1d_v2" == two.model_name
    assert _figures(first) == _figures(second)


def _figures(training: Job) -> list[float]:
    return [call[3]["train_loss"] for call in training.bridge.calls if call[0] == "epoch"]


def test_a_seed_is_drawn_and_told(job: Jobs) -> None:
    result: TrainingResult = job(TrainingRequest(symbols=("AAA",))).run()

    again = job(TrainingRequest(symbols=("AAA",), seed=result.seed)).run()

    assert result.test == again.test


def test_several_timeframes_train_together(job: Jobs) -> None:
    result = job(replace(BOTH, timeframes=("1w", "1d"))).run()

    assert "small/1d_v1" == result.model_name
    assert 18 == result.feature_count


@pytest.mark.parametrize(
    "call",
    [
        ("phase", "preprocessing"),
        ("symbol", "AAA", 1, 2, "creating_features"),
        ("preparation", "splitting_data"),
        ("preparation", "combining_data"),
        ("preparation", "creating_model"),
        ("phase", "training"),
        ("batch", 1, 3),
        ("epoch", 1),
        ("phase", "evaluation"),
        ("phase", "saving"),
    ],
)
def test_a_cancellation_in_any_phase_leaves_nothing(
    call: tuple[object, ...], job: Jobs, tmp_path: Path
) -> None:
    training = job()
    training.bridge.when[call] = training.cancel.request

    with pytest.raises(OperationCancelledError):
        training.run()

    assert [call, ("cancellation",)] == [c[: len(call)] for c in training.bridge.calls[-2:]]
    assert "cancelled" == training.bridge.get_status().phase
    assert not (tmp_path / "models").exists()


def test_a_cancellation_after_saving_comes_too_late(job: Jobs) -> None:
    training = job()
    training.bridge.when["complete",] = training.cancel.request

    assert "small/1d_v1" == training.run().model_name


def test_a_request_that_cannot_be_is_refused(job: Jobs) -> None:
    with pytest.raises(InvalidArgumentError, match=r"symbols\[0\]: there are no bars"):
        job(TrainingRequest(symbols=("XXX",))).run()


def test_too_few_bars_fail_with_their_reason(job: Jobs, tmp_path: Path) -> None:
    training = job(overrides={"training_data.history_required": "5000"})

    with pytest.raises(FailedPreconditionError) as caught:
        training.run()

    assert "INSUFFICIENT_DATA" == caught.value.reason
    assert not (tmp_path / "models").exists()


def test_the_small_strategy_trains_on_real_prices(
    small_yaml: str, make_bridge: Bridges, tmp_path: Path
) -> None:
    request = TrainingRequest(seed=1)

    result = Job(make_bridge, load_strategy(small_yaml), SampleBarSource(), tmp_path, request).run()

    assert result.test.accuracy > result.baseline_accuracy
    assert max(result.class_shares.values()) < 0.6
    assert 10 == result.epochs_trained
    assert () == result.warnings


def test_the_demo_is_honest_on_real_prices(
    demo_yaml: str, make_bridge: Bridges, tmp_path: Path
) -> None:
    strategy = load_strategy(demo_yaml, {"model.training.epochs": "2"})

    result = Job(make_bridge, strategy, SampleBarSource(), tmp_path, TrainingRequest(seed=1)).run()

    assert ("IBM", "GOOG") == result.symbols
    assert max(result.class_shares.values()) < 0.6
    assert not any("do not vary" in warning for warning in result.warnings)
