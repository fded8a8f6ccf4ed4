"""The training loop.

Small networks are bound by dispatch, not arithmetic. So batches are slices of
tensors, nothing is read back within an epoch, and the optimiser is fused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shared.clock import Clock
from shared.operations.cancellation import CancelSignal
from shared.rpc.errors import FailedPreconditionError
from shared.training.bridge import TrainingProgressBridge
from shared.training.dataset import Part
from shared.training.network import Mlp
from shared.training.strategy import (
    EarlyStopping,
    ExponentialSchedule,
    PlateauSchedule,
    StepSchedule,
    TrainingOptions,
)

_CHUNK = 4096
"""Samples answered at once outside training; cancellation is noticed between."""


class TrainingDivergedError(FailedPreconditionError):
    """The loss is no longer a number; the message says what to change."""

    reason = "TRAINING_DIVERGED"

    def __init__(self, epoch: int, figure: str) -> None:
        super().__init__(
            f"The {figure} of epoch {epoch + 1} is not finite: the training diverged. Lower "
            "model.training.learning_rate, set model.training.gradient_clip (1.0 is usual) or "
            "set model.features.scale_features to true.",
            metadata={"epoch": str(epoch + 1)},
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """How a training went; the network holds the best weights."""

    epochs_trained: int
    best_epoch: int
    """1-based: the first of the lowest validation loss."""
    seconds: float


@dataclass(frozen=True, slots=True)
class _Tensors:
    inputs: Tensor
    """(samples, features), float32"""
    labels: Tensor
    """(samples,), int64"""

    @classmethod
    def of(cls, part: Part) -> _Tensors:
        return cls(torch.from_numpy(part.inputs), torch.from_numpy(part.labels))


@dataclass(frozen=True, slots=True)
class _Figures:
    loss: float
    accuracy: float


class Trainer:
    """Trains one network; used once.

    Reports every batch and every epoch to the bridge, epochs and batches
    0-based. Raises OperationCancelledError within a batch of a cancellation and
    TrainingDivergedError when a loss is not finite.
    """

    def __init__(
        self,
        options: TrainingOptions,
        bridge: TrainingProgressBridge,
        cancel: CancelSignal,
        generator: torch.Generator,
        clock: Clock,
        *,
        threads: int = 1,
    ) -> None:
        self._options = options
        self._bridge = bridge
        self._cancel = cancel
        self._generator = generator
        self._clock = clock
        self._threads = threads
        self._loss = nn.CrossEntropyLoss()

    def fit(self, network: Mlp, train: Part, validation: Part) -> Fit:
        """Train the network and leave it with its best weights, in evaluation mode."""
        # A process-wide setting. For batches this small, two threads spend more
        # on meeting than they save.
        torch.set_num_threads(self._threads)
        run = _Run(network, self._options)
        training, checking = _Tensors.of(train), _Tensors.of(validation)
        started = self._clock.monotonic()
        for epoch in range(self._options.epochs):
            self._epoch(run, epoch, training, checking)
            if run.stopped_improving:
                break
        network.load_state_dict(run.best_weights)
        network.eval()
        return Fit(run.epochs_trained, run.best_epoch + 1, self._clock.monotonic() - started)

    def logits(self, network: Mlp, inputs: Tensor) -> Tensor:
        """Answer (samples, features) with logits (samples, 3), in evaluation mode."""
        network.eval()
        answers = []
        with torch.inference_mode():
            for chunk in torch.split(inputs, _CHUNK):
                self._cancel.raise_if_requested()
                answers.append(network(chunk))
        return torch.cat(answers)

    def _epoch(self, run: _Run, epoch: int, training: _Tensors, checking: _Tensors) -> None:
        started = self._clock.monotonic()
        rate = run.learning_rate
        train = self._train(run, epoch, training)
        val = self._figures(self.logits(run.network, checking.inputs), checking.labels)
        if not math.isfinite(val.loss):
            raise TrainingDivergedError(epoch, "validation loss")
        run.finish_epoch(epoch, val)
        figures = {
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "val_loss": val.loss,
            "val_accuracy": val.accuracy,
            "learning_rate": rate,
            "duration": float(self._clock.monotonic() - started),
        }
        self._bridge.on_epoch(epoch, self._options.epochs, figures)

    def _train(self, run: _Run, epoch: int, training: _Tensors) -> _Figures:
        """Take one optimiser step per batch, in a new order."""
        run.network.train()
        order = torch.randperm(len(training.labels), generator=self._generator)
        inputs, labels = training.inputs[order], training.labels[order]
        size = self._options.batch_size
        total = -(-len(labels) // size)
        answers = []  # read once the epoch is over: a read-back per batch would stall it
        for batch, (x, y) in enumerate(
            zip(torch.split(inputs, size), torch.split(labels, size), strict=True)
        ):
            answers.append(run.step(x, y, self._loss))
            self._bridge.on_batch(epoch, batch, total)
            if self._cancel.requested:  # a bridge may have been given another signal
                self._cancel.raise_if_requested()
        figures = self._figures(torch.cat(answers), labels)
        if not math.isfinite(figures.loss):
            raise TrainingDivergedError(epoch, "training loss")
        return figures

    def _figures(self, logits: Tensor, labels: Tensor) -> _Figures:
        hits = (logits.argmax(dim=1) == labels).sum().item()
        return _Figures(self._loss(logits, labels).item(), hits / len(labels))


class _Run:
    """What changes while a network is trained: optimiser, schedule, best weights."""

    def __init__(self, network: Mlp, options: TrainingOptions) -> None:
        self.network = network
        self._clip = options.gradient_clip
        self._parameters = list(network.parameters())
        self._optimizer = _optimizer(options, self._parameters)
        self._schedule = _schedule(options, self._optimizer)
        self._patience = _Patience(options.early_stopping) if options.early_stopping else None
        self._best_loss = math.inf
        self.best_weights: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.epochs_trained = 0
        self.stopped_improving = False

    @property
    def learning_rate(self) -> float:
        """The rate of the epoch to come."""
        return float(self._optimizer.param_groups[0]["lr"])

    def step(self, inputs: Tensor, labels: Tensor, loss_of: nn.Module) -> Tensor:
        """Take one optimiser step and return the logits it was taken from."""
        logits = self.network(inputs)
        for parameter in self._parameters:  # what zero_grad does, at a fiftieth of its cost
            parameter.grad = None
        loss_of(logits, labels).backward()
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimizer.step()
        return logits.detach()  # type: ignore[no-any-return]  # a module call is untyped

    def finish_epoch(self, epoch: int, val: _Figures) -> None:
        """Keep the weights if they are the best so far; advance schedule and patience."""
        self.epochs_trained = epoch + 1
        if val.loss < self._best_loss:
            self._best_loss, self.best_epoch = val.loss, epoch
            # clone: the optimiser goes on changing the tensors themselves.
            state = self.network.state_dict()
            self.best_weights = {name: value.clone() for name, value in state.items()}
        if isinstance(self._schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self._schedule.step(val.loss)
        elif self._schedule is not None:
            self._schedule.step()
        self.stopped_improving = self._patience is not None and self._patience.exhausted(val)


class _Patience:
    """Counts the epochs since the monitored figure last improved."""

    def __init__(self, options: EarlyStopping) -> None:
        self._options = options
        self._best = math.inf
        self._waited = 0

    def exhausted(self, val: _Figures) -> bool:
        """Take an epoch's figures; True once patience has run out."""
        figure = val.loss if self._options.monitor == "val_loss" else -val.accuracy
        if figure < self._best - self._options.min_delta:
            self._best, self._waited = figure, 0
        else:
            self._waited += 1
        return self._waited >= self._options.patience


def _optimizer(options: TrainingOptions, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    if options.optimizer == "adam":
        return torch.optim.Adam(parameters, fused=True, **common)
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, fused=True, **common)
    return torch.optim.RMSprop(parameters, **common)


def _schedule(
    options: TrainingOptions, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler | None:
    rates = torch.optim.lr_scheduler
    match options.lr_scheduler:
        case StepSchedule(step_size=size, gamma=gamma):
            return rates.StepLR(optimizer, step_size=size, gamma=gamma)
        case ExponentialSchedule(gamma=gamma):
            return rates.ExponentialLR(optimizer, gamma=gamma)
        case PlateauSchedule(factor=factor, patience=patience):
            return rates.ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
        case _:
            return None
