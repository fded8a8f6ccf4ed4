import grpc
import pytest

from backend.cli.failures import ExitCode
from ktrdr.operations.v1 import operation_pb2 as op
from ktrdr.operations.v1 import operations_service_pb2 as service
from tests.unit.cli.command_line import FakeTime, Run
from tests.unit.cli.samples import CANCELLED, CANCELLING, COMPLETED, FAILED, ID, RUNNING, operation
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, "gone")


def waited(
    status: op.OperationStatus.ValueType, retry_after: int = 0
) -> service.WaitOperationResponse:
    response = service.WaitOperationResponse(operation=operation(status))
    if retry_after:
        response.retry_after.FromSeconds(retry_after)
    return response


def cancelled(status: op.OperationStatus.ValueType) -> service.CancelOperationResponse:
    return service.CancelOperationResponse(operation=operation(status))


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [
        (COMPLETED, ExitCode.DONE),
        (FAILED, ExitCode.FAILED),
        (CANCELLED, ExitCode.CANCELLED),
    ],
)
def test_waiting_goes_on_until_the_end_and_tells_it_by_exit_code(
    ktrdr: Run,
    scripted: ScriptedBackend,
    status: op.OperationStatus.ValueType,
    exit_code: ExitCode,
) -> None:
    scripted.script("WaitOperation", waited(RUNNING), waited(RUNNING), waited(status))
    ended = ktrdr("operations", "wait", ID)
    assert ended.exit_code == exit_code
    assert ended.stdout.startswith(f"{ID} ")
    assert len(scripted.requests["WaitOperation"]) == 3


def test_a_server_out_of_slots_is_asked_again_when_it_says(
    ktrdr: Run, scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("WaitOperation", waited(RUNNING, retry_after=7), waited(COMPLETED))
    ktrdr("operations", "wait", ID)
    assert fake_time.pauses == [7]


def test_a_wait_whose_time_is_up_ends_with_5_and_the_state(
    ktrdr: Run, scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("WaitOperation", waited(RUNNING, retry_after=60))
    ended = ktrdr("operations", "wait", ID, "--timeout", "90", "--format", "json")
    assert ended.exit_code == ExitCode.UNFINISHED
    assert ended.document["status"] == "OPERATION_STATUS_RUNNING"
    assert "has not ended within 1 min 30 s; it goes on." in ended.stderr
    assert fake_time.pauses == [60, 30]


def test_a_wait_whose_time_is_up_says_if_what_it_shows_is_only_last_known(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    stale = waited(RUNNING, retry_after=60)
    stale.operation.freshness.refresh_error.message = "The host did not answer."
    scripted.script("WaitOperation", stale)
    ended = ktrdr("operations", "wait", ID, "--timeout", "90")
    assert "The host did not answer." in ended.stderr


def test_a_wait_asks_for_no_more_time_than_is_left(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("WaitOperation", waited(RUNNING, retry_after=85), waited(COMPLETED))
    ktrdr("operations", "wait", ID, "--timeout", "90")
    assert [r.timeout.seconds for r in scripted.requests["WaitOperation"]] == [0, 5]


def test_a_wait_bears_a_short_outage_and_says_so(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("WaitOperation", waited(RUNNING), UNAVAILABLE, waited(COMPLETED))
    ended = ktrdr("operations", "wait", ID)
    assert ended.exit_code == ExitCode.DONE
    assert "Trying again for 30 s." in ended.stderr


def test_an_outage_is_told_once_however_long_it_lasts(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    outage = (UNAVAILABLE, UNAVAILABLE, UNAVAILABLE)
    scripted.script("WaitOperation", waited(RUNNING), *outage, waited(COMPLETED))
    ended = ktrdr("operations", "wait", ID)

    assert ended.exit_code == ExitCode.DONE
    assert ended.stderr.count("Trying again") == 1


def test_the_first_wait_is_a_look_so_that_an_outage_of_any_later_one_is_borne(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("WaitOperation", waited(RUNNING), UNAVAILABLE, waited(COMPLETED))
    ended = ktrdr("operations", "wait", ID)
    assert ended.exit_code == ExitCode.DONE
    assert [r.timeout.seconds for r in scripted.requests["WaitOperation"]] == [0, 30, 30]


def test_a_wait_without_any_answer_ends_with_4(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("WaitOperation", UNAVAILABLE)
    assert ktrdr("operations", "wait", ID).exit_code == ExitCode.UNREACHABLE


def test_a_cancellation_carries_its_reason(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("CancelOperation", cancelled(CANCELLING))
    ended = ktrdr("operations", "cancel", ID, "--reason", "wrong seed")
    assert ended.exit_code == ExitCode.DONE
    assert scripted.requests["CancelOperation"][0].reason == "wrong seed"
    assert ended.stdout == f"{ID} CANCELLING\n"
    assert f"ktrdr operations wait {ID} --backend {scripted.address}" in ended.stderr


def test_an_owner_that_is_away_is_given_up_only_if_that_is_asked_for(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "nobody answers there", "HOST_UNREACHABLE")
    given_up = cancelled(FAILED)
    given_up.operation.error.reason = "OWNER_GIVEN_UP"
    scripted.script("CancelOperation", away, given_up)
    refused = ktrdr("operations", "cancel", ID)
    assert refused.exit_code == ExitCode.UNREACHABLE
    proposal = f"ktrdr operations cancel {ID} --give-up --backend {scripted.address}"
    assert proposal in refused.stderr

    ended = ktrdr("operations", "cancel", ID, "--give-up")
    assert ended.exit_code == ExitCode.DONE
    assert [False, True] == [r.give_up for r in scripted.requests["CancelOperation"]]
    assert "OWNER_GIVEN_UP" in ended.stdout


def test_a_cancellation_can_wait_until_the_work_has_stopped(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("CancelOperation", cancelled(CANCELLING))
    scripted.script("WaitOperation", waited(CANCELLING), waited(CANCELLED))
    ended = ktrdr("operations", "cancel", ID, "--wait", "--format", "json")
    assert ended.exit_code == ExitCode.DONE
    assert ended.document["status"] == "OPERATION_STATUS_CANCELLED"


def test_work_that_had_finished_is_told_as_such(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("CancelOperation", cancelled(COMPLETED))
    ended = ktrdr("operations", "cancel", ID, "--wait")
    assert ended.exit_code == ExitCode.DONE
    assert "had finished before it could be stopped" in ended.stderr


def test_work_that_had_failed_is_told_by_exit_code(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("CancelOperation", cancelled(FAILED))
    assert ktrdr("operations", "cancel", ID).exit_code == ExitCode.FAILED
