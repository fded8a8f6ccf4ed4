from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from backend.cli.failures import ExitCode
from ktrdr.operations.v1 import operations_service_pb2 as service
from ktrdr.operations.v1.operation_pb2 import OPERATION_TYPE_TRAINING
from ktrdr.training.v1 import training_service_pb2
from tests.unit.cli.command_line import FakeTime, Run
from tests.unit.cli.samples import (
    FAILED,
    ID,
    PENDING,
    RUNNING,
    a_whole_training,
    look,
    operation,
)
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

STARTED = training_service_pb2.StartTrainingResponse(operation=operation(PENDING))
UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, "gone")
UNKNOWN = Refusal(grpc.StatusCode.NOT_FOUND, "There is none.", "OPERATION_NOT_FOUND")


@pytest.fixture
def train(ktrdr: Run, scripted: ScriptedBackend, strategy: Path) -> Run:
    """Run `ktrdr models train` on a backend that starts and completes a training."""
    scripted.script("StartTraining", STARTED)
    scripted.script("GetOperation", *a_whole_training())
    return lambda *arguments: ktrdr("models", "train", "--strategy", str(strategy), *arguments)


def test_a_training_is_started_and_watched_to_its_end(train: Run) -> None:
    ended = train()
    assert ended.exit_code == ExitCode.DONE
    assert ended.stdout.startswith(f"Started {ID}\n")
    assert "  3/3" in ended.stdout
    assert "/models/demo/1d_v1" in ended.stdout


def test_everything_typed_is_in_the_request(train: Run, scripted: ScriptedBackend) -> None:
    train(
        *("--symbols", "IBM,GOOG", "--timeframes", "1d", "--seed", "0", "--request-id", "mine"),
        *("--start-date", "2024-01-31", "--end-date", "2024-02-29"),
        *("--set", "model.training.epochs=20", "--set", "a=b"),
    )
    (request,) = scripted.requests["StartTraining"]
    assert request.strategy_yaml == "name: demo\n"
    assert (list(request.symbols), list(request.timeframes)) == (["IBM", "GOOG"], ["1d"])
    assert request.HasField("seed")
    assert request.request_id == "mine"
    assert request.start_time.ToDatetime(UTC) == datetime(2024, 1, 31, tzinfo=UTC)
    assert request.end_time.ToDatetime(UTC) == datetime(2024, 3, 1, tzinfo=UTC)
    assert dict(request.overrides) == {"model.training.epochs": "20", "a": "b"}


def test_what_is_left_out_is_left_to_the_backend(train: Run, scripted: ScriptedBackend) -> None:
    train()
    (request,) = scripted.requests["StartTraining"]
    assert not request.symbols
    assert not any(request.HasField(name) for name in ("seed", "start_time", "end_time"))


def test_each_command_makes_up_a_request_id_of_its_own(
    train: Run, scripted: ScriptedBackend
) -> None:
    train("--detach")
    train("--detach")
    first, second = (request.request_id for request in scripted.requests["StartTraining"])
    assert first
    assert first != second


def test_a_request_id_that_is_empty_is_refused_and_none_made_up_in_its_place(
    train: Run, scripted: ScriptedBackend
) -> None:
    ended = train("--request-id", "")
    assert ended.exit_code == ExitCode.USAGE
    assert "Invalid value for '--request-id': it is empty" in ended.complaint
    assert not scripted.requests["StartTraining"]


def test_a_start_is_repeated_once_with_the_same_request_id(
    train: Run, scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("StartTraining", UNAVAILABLE, STARTED)
    assert train("--detach").exit_code == ExitCode.DONE
    first, second = scripted.requests["StartTraining"]
    assert first == second
    assert fake_time.pauses == [0.5]


def test_a_request_that_was_sent_before_finds_what_it_has_started(
    train: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("GetOperation", UNKNOWN, look(operation(RUNNING)))
    ended = train("--request-id", "mine", "--detach")
    assert f"Found {ID}, which the same request has started before\n" == ended.stdout
    asked = [request.operation_id for request in scripted.requests["GetOperation"]]
    assert ["op_training_mine", "host_training_mine"] == asked


@pytest.mark.parametrize("reply", [UNKNOWN, UNAVAILABLE])
def test_a_request_that_nobody_knows_yet_starts_something(
    train: Run, scripted: ScriptedBackend, reply: Refusal
) -> None:
    scripted.script("GetOperation", reply)
    assert f"Started {ID}\n" == train("--request-id", "mine", "--detach").stdout


def test_a_start_that_stays_unavailable_ends_with_4(train: Run, scripted: ScriptedBackend) -> None:
    scripted.script("StartTraining", UNAVAILABLE)
    assert train().exit_code == ExitCode.UNREACHABLE
    assert len(scripted.requests["StartTraining"]) == 2


def test_a_start_without_an_answer_says_how_to_repeat_it(
    train: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("StartTraining", Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "late"))
    ended = train("--request-id", "mine")
    assert ended.exit_code == ExitCode.UNREACHABLE
    assert "Repeat the command with --request-id mine" in ended.stderr


def test_ctrl_c_while_starting_says_how_to_find_the_training(
    train: Run, scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("StartTraining", UNAVAILABLE)
    fake_time.during[1] = fake_time.interrupt
    ended = train("--request-id", "mine")
    assert ended.exit_code == ExitCode.INTERRUPTED
    assert "Repeat the command with --request-id mine" in ended.stderr


BUSY = Refusal(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "All 1 workers are busy.", "WORKERS_BUSY", retry_after=5.0
)


def test_a_full_queue_says_when_the_first_of_those_that_run_is_likely_to_end(
    train: Run, scripted: ScriptedBackend
) -> None:
    later, first, queued = operation(left=7_000), operation(left=724.5), operation(PENDING)
    first.operation_id = "op_training_first"
    scripted.script("StartTraining", BUSY)
    active = service.ListOperationsResponse(operations=[later, first, queued])
    scripted.script("ListOperations", active)
    ended = train()
    assert ExitCode.FAILED == ended.exit_code
    assert (
        "Try again in about 12 min 05 s: then op_training_first is likely to end." in ended.stderr
    )
    (request,) = scripted.requests["ListOperations"]
    assert ([OPERATION_TYPE_TRAINING], True) == (list(request.types), request.active_only)


@pytest.mark.parametrize("listed", [service.ListOperationsResponse(), UNAVAILABLE])
def test_a_full_queue_of_which_nothing_more_is_known_says_when_to_ask_again(
    train: Run, scripted: ScriptedBackend, listed: service.ListOperationsResponse | Refusal
) -> None:
    scripted.script("StartTraining", BUSY)
    scripted.script("ListOperations", listed)
    assert "Try again in 5 s." in train().stderr


def test_bad_fields_are_told_with_their_options(train: Run, scripted: ScriptedBackend) -> None:
    scripted.script(
        "StartTraining",
        Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "bad",
            "INVALID_ARGUMENT",
            violations=[("symbols[0]", "unknown: XYZ"), ("other", "odd")],
        ),
    )
    ended = train("--symbols", "XYZ")
    assert ended.exit_code == ExitCode.USAGE
    assert "  - symbols[0] (--symbols): unknown: XYZ\n  - other: odd\n" in ended.stderr


def test_a_detached_start_prints_the_operation_and_how_to_come_back(
    train: Run, scripted: ScriptedBackend
) -> None:
    ended = train("--detach")
    assert ended.stdout == f"Started {ID}\n"
    assert f"ktrdr operations watch {ID}" in ended.stderr
    assert "GetOperation" not in scripted.requests


def test_a_detached_start_in_json_is_the_operation(train: Run) -> None:
    ended = train("--detach", "--format", "json")
    assert ended.document["operationId"] == ID
    assert ended.stderr == ""


def test_a_training_in_json_is_one_document(train: Run) -> None:
    assert train("--format", "json").document["result"]["modelName"] == "demo/1d_v1"


def test_a_training_that_fails_ends_with_1(train: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetOperation", look(operation(FAILED)))
    assert train().exit_code == ExitCode.FAILED


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--symbols", ""), "'--symbols': '' has an empty name"),
        (("--start-date", "soon"), "'--start-date': 'soon' is not a day"),
        (("--set", "epochs"), "'--set': 'epochs' is not PATH=VALUE"),
        (("--plot", "none/p.png"), "'--plot': there is no folder none"),
        (("--detach", "--plot", "p.png"), "'--plot': a detached training is not watched"),
    ],
)
def test_a_bad_option_is_named_before_anything_is_begun(
    train: Run, scripted: ScriptedBackend, arguments: tuple[str, ...], complaint: str
) -> None:
    ended = train(*arguments)
    assert ended.exit_code == ExitCode.USAGE
    assert complaint in ended.complaint
    assert not scripted.requests
