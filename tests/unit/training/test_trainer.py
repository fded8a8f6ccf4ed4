import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from shared.clock import SystemClock
from shared.operations.bridge import refuse_mutable
from shared.operations.cancellation import CancelSignal
from shared.rpc.errors import FailedPreconditionError, OperationCancelledError
from shared.training.dataset import Part
from shared.training.network import Mlp
from shared.training.strategy import Architecture, TrainingOptions
from shared.training.trainer import Fit, Trainer, TrainingDivergedError

Bridges = Callable[..., Any]


def part(count: int, seed: int = 1, noise: float = 0.1) -> Part:
    """Samples whose label is the largest of three features, mostly."""
    chance = np.random.default_rng(seed)
    inputs = chance.normal(size=(count, 3)).astype(np.float32)
    labels = (inputs + chance.normal(0, noise, inputs.shape)).argmax(axis=1)
    return Part(inputs, labels.astype(np.int64))


class Training:
    """One training of a small network, with all its parts at hand."""

    def __init__(self, bridges: Bridges, *, dropout: float = 0.2, **options: object) -> None:
        values = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, **options}
        self.options = TrainingOptions.model_validate(values)
        self.cancel = CancelSignal()
        self.bridge = bridges(self.options.epochs, self.cancel)
        generator = torch.Generator().manual_seed(7)
        shape = Architecture(hidden_layers=(8,), dropout=dropout)
        self.network = Mlp(shape, 3, generator)
        self.trainer = Trainer(
            self.options, self.bridge, self.cancel, generator, SystemClock(), threads=1
        )

    def run(self, train: Part | None = None, validation: Part | None = None) -> Fit:
        return self.trainer.fit(self.network, train or part(100), validation or part(40, 2))

    @property
    def epochs(self) -> list[Mapping[str, float]]:
        return [call[3] for call in self.bridge.calls if call[0] == "epoch"]


def test_every_batch_and_epoch_is_reported_in_order(make_bridge: Bridges) -> None:
    training = Training(make_bridge, epochs=2)

    fit = training.run()

    one = [("batch", batch, 7) for batch in range(7)]
    expected = [
        call for epoch in range(2) for call in [*((b, epoch, i, n) for b, i, n in one), epoch]
    ]
    calls = [call[:4] if call[0] == "batch" else call[1] for call in training.bridge.calls]
    assert expected == calls
    assert 2 == fit.epochs_trained
    assert fit.seconds > 0


def test_an_epochs_figures_are_plain_and_complete(make_bridge: Bridges) -> None:
    training = Training(make_bridge)

    training.run()

    for figures in training.epochs:
        refuse_mutable(figures)
        assert [
            "train_loss",
            "train_accuracy",
            "val_loss",
            "val_accuracy",
            "learning_rate",
            "duration",
        ] == list(figures)
        assert {float} == set(map(type, figures.values()))


def test_the_loss_falls(make_bridge: Bridges) -> None:
    training = Training(make_bridge, epochs=15)

    training.run()

    assert training.epochs[-1]["train_loss"] < 0.6 * training.epochs[0]["train_loss"]
    assert training.epochs[-1]["val_accuracy"] > 0.8


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_every_optimizer_learns(optimizer: str, make_bridge: Bridges) -> None:
    training = Training(make_bridge, epochs=6, optimizer=optimizer, gradient_clip=1.0)

    training.run()

    assert training.epochs[-1]["val_loss"] < training.epochs[0]["val_loss"]


def test_the_network_ends_with_its_best_weights(make_bridge: Bridges) -> None:
    # A rate this high makes later epochs worse than earlier ones.
    training = Training(make_bridge, epochs=12, learning_rate=0.3, dropout=0.0)
    validation = part(60, 2, noise=1.5)

    fit = training.run(part(60, 1, noise=1.5), validation)

    losses = [figures["val_loss"] for figures in training.epochs]
    logits = training.trainer.logits(training.network, torch.from_numpy(validation.inputs))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(validation.labels))
    assert fit.best_epoch < 12
    assert losses.index(min(losses)) + 1 == fit.best_epoch
    assert pytest.approx(min(losses)) == loss.item()
    assert not training.network.training


def test_an_early_stop_still_reports_its_last_epoch(make_bridge: Bridges) -> None:
    training = Training(
        make_bridge, epochs=50, early_stopping={"patience": 2, "min_delta": 1.0}, gradient_clip=5
    )

    fit = training.run()

    # The first epoch is the first best; then nothing improves by 1.0.
    assert 3 == fit.epochs_trained
    assert 3 == len(training.epochs)


def test_patience_may_watch_the_accuracy(make_bridge: Bridges) -> None:
    watch = {"patience": 1, "monitor": "val_accuracy"}
    training = Training(make_bridge, epochs=30, early_stopping=watch)

    training.run()

    accuracies = [figures["val_accuracy"] for figures in training.epochs]
    assert len(accuracies) < 30
    assert accuracies[-1] <= max(accuracies[:-1])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"type": "step", "step_size": 2, "gamma": 0.5}, [0.01, 0.01, 0.005, 0.005]),
        ({"type": "exponential", "gamma": 0.1}, [0.01, 0.001, 0.0001, 0.00001]),
    ],
)
def test_the_reported_rate_is_that_of_the_epoch(
    schedule: dict[str, object], expected: list[float], make_bridge: Bridges
) -> None:
    training = Training(make_bridge, lr_scheduler=schedule)

    training.run()

    assert pytest.approx(expected) == [figures["learning_rate"] for figures in training.epochs]


def test_the_rate_falls_when_the_loss_does_not(make_bridge: Bridges) -> None:
    schedule = {"type": "reduce_on_plateau", "factor": 0.1, "patience": 0}
    training = Training(make_bridge, epochs=8, learning_rate=1.0, lr_scheduler=schedule)

    training.run()

    assert training.epochs[-1]["learning_rate"] < 0.5


def test_the_same_seed_gives_the_same_run_beside_another(make_bridge: Bridges) -> None:
    alone = Training(make_bridge, dropout=0.5)
    alone.run()
    pair = [Training(make_bridge, dropout=0.5) for _ in range(2)]
    threads = [threading.Thread(target=training.run) for training in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    losses = [[figures["train_loss"] for figures in t.epochs] for t in (alone, *pair)]

    assert losses[0] == losses[1] == losses[2]


def test_a_cancellation_ends_the_run_within_a_batch(make_bridge: Bridges) -> None:
    training = Training(make_bridge)
    training.bridge.when["batch", 1, 2] = lambda: training.cancel.request("enough")

    with pytest.raises(OperationCancelledError, match="enough"):
        training.run()

    assert ("batch", 1, 2, 7) == training.bridge.calls[-1]


def test_a_signal_the_bridge_does_not_know_is_noticed_too(make_bridge: Bridges) -> None:
    training = Training(make_bridge)
    training.bridge.cancel = CancelSignal()
    training.bridge.when["batch", 0, 0] = training.cancel.request

    with pytest.raises(OperationCancelledError):
        training.run()

    assert 1 == len(training.bridge.calls)


def test_answers_are_given_up_on_cancellation(make_bridge: Bridges) -> None:
    training = Training(make_bridge)
    training.cancel.request()

    with pytest.raises(OperationCancelledError):
        training.trainer.logits(training.network, torch.zeros(5, 3))


def test_a_training_that_diverges_says_so(make_bridge: Bridges) -> None:
    training = Training(make_bridge)
    broken = Part(np.full((20, 3), np.inf, dtype=np.float32), np.zeros(20, dtype=np.int64))

    with pytest.raises(TrainingDivergedError) as caught:
        training.run(train=broken)

    assert isinstance(caught.value, FailedPreconditionError)
    assert "TRAINING_DIVERGED" == caught.value.reason
    assert {"epoch": "1"} == caught.value.metadata
    assert "Lower model.training.learning_rate" in caught.value.message


def test_a_validation_loss_that_is_no_number_says_so(make_bridge: Bridges) -> None:
    broken = Part(np.full((20, 3), np.nan, dtype=np.float32), np.zeros(20, dtype=np.int64))

    with pytest.raises(TrainingDivergedError, match="validation loss of epoch 1"):
        Training(make_bridge).run(validation=broken)
