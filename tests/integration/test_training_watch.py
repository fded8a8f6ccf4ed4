"""A real training, watched over the wire as a client watches it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ktrdr.operations.v1 import operation_pb2, operations_service_pb2_grpc
from ktrdr.operations.v1 import operations_service_pb2 as operations_pb
from ktrdr.training.v1 import models_service_pb2 as models_pb
from ktrdr.training.v1 import (
    models_service_pb2_grpc,
    training_pb2,
    training_service_pb2_grpc,
)
from ktrdr.training.v1 import training_service_pb2 as training_pb
from shared.training.model_store import ModelStore
from tests.integration.running import (
    COMPLETED,
    PENDING,
    RUNNING,
    SMALL,
    TERMINAL,
    RunningBackend,
    result_of,
)

EPOCHS = 12


@dataclass(frozen=True, slots=True)
class Watched:
    """What a client saw of one training, look by look."""

    started: training_pb.StartTrainingResponse
    looks: list[operation_pb2.Operation]
    metrics: list[operation_pb2.Metric]

    @property
    def end(self) -> operation_pb2.Operation:
        return self.looks[-1]

    @property
    def result(self) -> training_pb2.TrainingResult:
        return result_of(self.end)


@pytest.fixture(scope="module")
def watched(
    training_stub: training_service_pb2_grpc.TrainingServiceStub,
    grpc_stub: operations_service_pb2_grpc.OperationsServiceStub,
) -> Watched:
    """Start a training and look at it until it has ended, metrics by cursor."""
    started = training_stub.StartTraining(
        training_pb.StartTrainingRequest(
            request_id="watched",
            strategy_yaml=SMALL,
            symbols=["IBM", "GOOG"],
            seed=11,
            overrides={"model.training.epochs": str(EPOCHS)},
        )
    )
    looks: list[operation_pb2.Operation] = []
    metrics: list[operation_pb2.Metric] = []
    more = True
    while more:
        answer = grpc_stub.GetOperation(
            operations_pb.GetOperationRequest(
                operation_id=started.operation.operation_id,
                force_refresh=True,
                metrics_cursor=len(metrics),
            )
        )
        looks.append(answer.operation)
        metrics += answer.metrics
        assert answer.new_cursor == len(metrics)
        more = answer.has_more or answer.operation.status not in TERMINAL
    return Watched(started, looks, metrics)


def test_start_answers_at_once_with_an_operation_that_has_not_ended(watched: Watched) -> None:
    started = watched.started.operation
    assert "op_training_watched" == started.operation_id
    assert "watched" == watched.started.session_id
    assert started.status in {PENDING, RUNNING}
    assert operation_pb2.OPERATION_TYPE_TRAINING == started.type
    assert started.HasField("create_time")
    assert not started.HasField("end_time")
    assert {
        "session_id": "watched",
        "strategy": "small",
        "symbols": "IBM,GOOG",
        "timeframes": "1d",
        "seed": "11",
    } == dict(started.metadata)


def test_states_only_go_forward(watched: Watched) -> None:
    seen = [look.status for look in watched.looks]
    assert sorted(seen) == seen
    assert RUNNING in seen
    assert COMPLETED == seen[-1]


def test_percentages_never_fall_and_end_at_100(watched: Watched) -> None:
    seen = [look.progress.percentage for look in watched.looks]
    assert sorted(seen) == seen
    assert seen[0] < 95
    assert 100 == seen[-1]


def test_phases_are_seen_in_order(watched: Watched) -> None:
    order = ["", "preprocessing", "preparation", "training", "evaluation", "saving", "completed"]
    seen = [order.index(look.progress.phase) for look in watched.looks]
    assert sorted(seen) == seen
    assert "training" in {look.progress.phase for look in watched.looks}


def test_every_epoch_comes_exactly_once_and_in_order(watched: Watched) -> None:
    assert list(range(1, EPOCHS + 1)) == [metric.step for metric in watched.metrics]
    assert {"epoch"} == {metric.kind for metric in watched.metrics}
    assert EPOCHS == watched.end.metrics_count


def test_every_epoch_tells_losses_accuracies_rate_and_duration(watched: Watched) -> None:
    for metric in watched.metrics:
        values = metric.values
        assert {
            "train_loss",
            "train_accuracy",
            "val_loss",
            "val_accuracy",
            "learning_rate",
            "duration",
        } == set(values)
        assert 0 <= values["train_accuracy"] <= 1
        assert 0 <= values["val_accuracy"] <= 1
        assert values["train_loss"] > 0
        assert values["val_loss"] > 0
        assert math.isclose(0.003, values["learning_rate"])
        assert values["duration"] > 0


def test_metrics_and_state_of_a_look_are_of_one_instant(watched: Watched) -> None:
    counts = [look.metrics_count for look in watched.looks]
    assert sorted(counts) == counts
    for look in watched.looks:
        if look.progress.phase == "training" and "batch" in look.progress.message:
            assert look.progress.current_step - 1 == look.metrics_count


def test_times_are_in_order(watched: Watched) -> None:
    end = watched.end
    times = [end.create_time, end.start_time, end.end_time]
    assert sorted(time.ToDatetime() for time in times) == [time.ToDatetime() for time in times]
    updates = [look.update_time.ToDatetime() for look in watched.looks]
    assert all(earlier <= later for earlier, later in pairwise(updates))


def test_a_running_training_says_how_fresh_alive_and_far_it_is(watched: Watched) -> None:
    look = next(look for look in watched.looks if look.progress.phase == "training")
    assert operation_pb2.FRESHNESS_SOURCE_BRIDGE == look.freshness.source
    assert not look.freshness.cached
    assert not look.freshness.HasField("refresh_error")
    assert look.freshness.age.ToTimedelta().total_seconds() < 5
    (hop,) = look.freshness.path
    assert watched.result.instance == hop.instance
    assert look.liveness.worker_alive
    assert look.liveness.HasField("last_report_age")
    remaining = [
        look.progress.estimated_remaining.ToTimedelta().total_seconds()
        for look in watched.looks
        if look.progress.HasField("estimated_remaining")
    ]
    assert remaining
    assert all(0 <= seconds < 600 for seconds in remaining)


def test_a_finished_training_is_a_record_that_does_not_age(watched: Watched) -> None:
    freshness = watched.end.freshness
    assert operation_pb2.FRESHNESS_SOURCE_RECORD == freshness.source
    assert 0 == freshness.age.ToNanoseconds()
    assert not watched.end.HasField("liveness")
    assert "result" == watched.end.WhichOneof("outcome")


def test_the_result_says_all_there_is_to_say(watched: Watched) -> None:
    result = watched.result
    assert ["IBM", "GOOG"] == list(result.symbols)
    assert ["1d"] == list(result.timeframes)
    assert 11 == result.seed
    assert EPOCHS == result.epochs_trained
    assert 1 <= result.best_epoch <= EPOCHS
    assert 9 == result.feature_count
    assert 688 == result.parameter_count
    assert {"BUY", "HOLD", "SELL"} == set(result.class_shares)
    assert math.isclose(1.0, sum(result.class_shares.values()))
    assert 0 < result.baseline_accuracy < 1
    assert result.test.baseline_accuracy == result.baseline_accuracy
    for part in (result.train, result.validation, result.test):
        assert 0 < part.accuracy < 1
        assert 0 < part.f1 < 1
        assert 0 < part.precision < 1
        assert math.isclose(part.accuracy, part.recall)
        assert part.loss > 0
    assert result.train_sample_count > result.validation_sample_count > 100
    assert result.test_sample_count > 100
    assert result.samples_per_second > 0
    assert result.start_time.ToDatetime() < result.end_time.ToDatetime()
    assert 0 < result.duration.ToTimedelta().total_seconds() < 60


def test_the_best_epoch_is_the_one_of_the_lowest_validation_loss(watched: Watched) -> None:
    losses = [metric.values["val_loss"] for metric in watched.metrics]
    assert 1 + losses.index(min(losses)) == watched.result.best_epoch


def test_the_model_can_be_loaded_from_where_the_result_says(
    watched: Watched, running: RunningBackend
) -> None:
    result = watched.result
    path = Path(result.model_path)
    assert running.home / "models" / result.model_name == path
    classifier = ModelStore(running.home / "models").load(result.model_name)
    answers = classifier.probabilities(np.zeros((3, result.feature_count), dtype=np.float32))
    assert (3, 3) == answers.shape
    assert np.allclose(1.0, answers.sum(axis=1))


def test_the_model_is_listed_and_described(
    watched: Watched, models_stub: models_service_pb2_grpc.ModelsServiceStub
) -> None:
    name = watched.result.model_name
    listed = models_stub.ListModels(models_pb.ListModelsRequest())
    (model,) = (model for model in listed.models if model.name == name)
    whole = models_stub.GetModel(models_pb.GetModelRequest(name=name)).model
    assert not listed.unreadable
    assert "" == model.strategy_yaml
    assert [] == list(model.features)
    assert watched.result.test == whole.result.test
    assert watched.result.model_path == whole.path == whole.result.model_path
    assert watched.result.feature_count == len(whole.features)
    assert f"epochs: {EPOCHS}" in whole.strategy_yaml
    assert whole.size_bytes > 0


def test_two_trainings_at_once_give_what_each_gives_alone(running: RunningBackend) -> None:
    asked = {"IBM": 5, "AAPL": 6}

    def figures(operation_id: str) -> list[dict[str, float]]:
        running.ended(operation_id)
        metrics = running.get(operation_id, metrics_cursor=0).metrics
        return [
            {name: value for name, value in metric.values.items() if name != "duration"}
            for metric in metrics
        ]

    def start(symbol: str, seed: int) -> str:
        return running.train(symbols=[symbol], seed=seed)

    alone = {symbol: figures(start(symbol, seed)) for symbol, seed in asked.items()}
    begun = {symbol: start(symbol, seed) for symbol, seed in asked.items()}
    together = {symbol: figures(operation_id) for symbol, operation_id in begun.items()}
    first, second = (running.operation(operation_id) for operation_id in begun.values())
    assert second.start_time.ToDatetime() < first.end_time.ToDatetime(), "they did not overlap"
    assert alone == together
    assert alone["IBM"] != alone["AAPL"]
