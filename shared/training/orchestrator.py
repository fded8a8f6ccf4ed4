"""The orchestrator: one training from bars to a saved model, phase by phase.

Knows nothing of operations, servers or gRPC: bars come through a port, progress
goes to a bridge, a cancel signal says when to stop. torch is imported when the
training of the network starts, not before.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from shared.clock import Clock, SystemClock
from shared.marketdata.bars import BarSource
from shared.marketdata.timeframes import finest
from shared.operations.cancellation import CancelSignal
from shared.rpc.errors import InvalidArgumentError, OperationCancelledError
from shared.training.bridge import TrainingProgressBridge
from shared.training.caveats import caveats
from shared.training.dataset import PARTS, Dataset, Part, build_dataset, split_samples
from shared.training.evaluation import evaluate, majority_label
from shared.training.labels import class_shares
from shared.training.model_store import ModelStore, SavedModel, TrainedModel
from shared.training.preprocessing import Preprocessed, Preprocessor
from shared.training.request import TrainingRequest, check_request
from shared.training.result import SplitMetrics, TrainingResult
from shared.training.strategy import Strategy
from shared.training.torch_loading import load_torch

if TYPE_CHECKING:
    from shared.training.network import Mlp
    from shared.training.trainer import Fit


@dataclass(frozen=True, slots=True)
class _Trained:
    """A trained network and how it came about."""

    network: Mlp
    fit: Fit
    metrics: Mapping[str, SplitMetrics]
    """By part."""


class TrainingOrchestrator:
    """Runs one training; used once, on one thread.

    `instance` names the process that will hold the model.
    """

    def __init__(
        self,
        strategy: Strategy,
        bars: BarSource,
        bridge: TrainingProgressBridge,
        cancel: CancelSignal,
        *,
        request: TrainingRequest,
        models: ModelStore,
        instance: str,
        clock: Clock | None = None,
        threads: int = 1,
    ) -> None:
        self._strategy = strategy
        self._bars = bars
        self._bridge = bridge
        self._cancel = cancel
        self._models = models
        self._instance = instance
        self._clock = clock or SystemClock()
        self._threads = threads
        self._asked = request
        seed = secrets.randbits(31) if request.seed is None else request.seed
        self._request = replace(request.completed(strategy), seed=seed)
        self._seed = seed

    def run(self) -> TrainingResult:
        """Train, evaluate and save; return the result.

        Raises OperationCancelledError soon after a cancellation, with nothing
        saved; InvalidArgumentError, InsufficientDataError, TrainingDivergedError
        and ModelNotSavedError if the training cannot be done.
        """
        try:
            return self._run()
        except OperationCancelledError:
            self._bridge.on_cancellation()
            raise

    def _run(self) -> TrainingResult:
        started = self._clock.monotonic()
        if violations := check_request(self._strategy, self._asked, self._bars):
            raise InvalidArgumentError(violations)
        prepared = self._preprocess()
        dataset = self._prepare(prepared)
        trained = self._train(dataset)
        result = self._result(prepared, dataset, trained, self._clock.monotonic() - started)
        saved = self._save(dataset, trained, result)
        self._bridge.on_complete(f"Saved {saved.name}")
        return saved.result

    def _preprocess(self) -> Preprocessed:
        self._bridge.on_phase("preprocessing", "Reading bars")
        return Preprocessor(self._strategy, self._request, self._bars, self._bridge).run()

    def _prepare(self, prepared: Preprocessed) -> Dataset:
        self._bridge.on_preparation_phase("splitting_data")
        parts = split_samples(prepared.symbols, self._strategy.supervision.data_split)
        self._bridge.on_preparation_phase("combining_data")
        scale = self._strategy.model.features.scale_features
        dataset = build_dataset(parts, scale=scale)
        self._bridge.on_preparation_phase("creating_model")
        return dataset

    def _train(self, dataset: Dataset) -> _Trained:
        load_torch()
        import torch

        from shared.training.network import Mlp
        from shared.training.trainer import Trainer

        options = self._strategy.model.training
        generator = torch.Generator().manual_seed(self._seed)
        network = Mlp(self._strategy.model.architecture, len(dataset.features), generator)
        trainer = Trainer(
            options, self._bridge, self._cancel, generator, self._clock, threads=self._threads
        )
        batches = -(-len(dataset.train) // options.batch_size)
        self._bridge.on_phase("training", "Training", total_batches=batches)
        fit = trainer.fit(network, dataset.train, dataset.validation)
        self._bridge.on_phase("evaluation", "Evaluating train, validation and test part")
        majority = majority_label(dataset.train.labels)
        metrics = {}
        for name, part in _parts(dataset).items():
            logits = trainer.logits(network, torch.from_numpy(part.inputs))
            metrics[name] = evaluate(logits.numpy(), part.labels, majority)
        return _Trained(network, fit, metrics)

    def _result(
        self, prepared: Preprocessed, dataset: Dataset, trained: _Trained, duration: float
    ) -> TrainingResult:
        """Put together what there is to say; the store adds the model's name and path."""
        fit, metrics = trained.fit, trained.metrics
        seen = fit.epochs_trained * len(dataset.train)
        labels = np.concatenate([symbol.labels for symbol in prepared.symbols])
        result = TrainingResult(
            model_path="",
            model_name="",
            instance=self._instance,
            train=metrics["train"],
            validation=metrics["validation"],
            test=metrics["test"],
            class_shares=class_shares(labels),
            baseline_accuracy=metrics["test"].baseline_accuracy,
            epochs_trained=fit.epochs_trained,
            best_epoch=fit.best_epoch,
            parameter_count=trained.network.parameter_count,
            train_sample_count=len(dataset.train),
            validation_sample_count=len(dataset.validation),
            test_sample_count=len(dataset.test),
            feature_count=len(dataset.features),
            symbols=self._request.symbols,
            timeframes=self._request.timeframes,
            start_time=prepared.start,
            end_time=prepared.end,
            seed=self._seed,
            duration=duration,
            samples_per_second=seen / max(fit.seconds, 1e-9),
        )
        warnings = caveats(result, dataset, self._strategy, prepared.holes)
        return replace(result, warnings=warnings)

    def _save(self, dataset: Dataset, trained: _Trained, result: TrainingResult) -> SavedModel:
        # The last place that notices a cancellation: once saving, the work is done.
        self._bridge.on_phase("saving", "Saving the model")
        self._cancel.raise_if_requested()
        return self._models.save(
            TrainedModel(
                strategy=self._strategy,
                timeframe=finest(self._request.timeframes),
                features=dataset.features,
                scaler=dataset.scaler,
                weights=trained.network.weights(),
                result=result,
                create_time=self._clock.now(),
            )
        )


def _parts(dataset: Dataset) -> Mapping[str, Part]:
    return dict(zip(PARTS, (dataset.train, dataset.validation, dataset.test), strict=True))
