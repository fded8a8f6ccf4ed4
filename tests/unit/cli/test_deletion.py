import grpc
import pytest

from backend.cli.failures import ExitCode
from ktrdr.operations.v1 import operations_service_pb2 as service
from tests.unit.cli.command_line import Run
from tests.unit.cli.samples import ID
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

GONE = service.DeleteOperationResponse()
ACTIVE = Refusal(
    grpc.StatusCode.FAILED_PRECONDITION, "Operation x has not ended.", "OPERATION_ACTIVE"
)
UNKNOWN = Refusal(grpc.StatusCode.NOT_FOUND, "There is no operation 'x'.", "OPERATION_NOT_FOUND")
UNSTORED = Refusal(grpc.StatusCode.UNAVAILABLE, "The disk is full.", "STORE_UNAVAILABLE", (), 2.0)
DELETE = ("operations", "delete")


def asked(scripted: ScriptedBackend) -> list[str]:
    return [request.operation_id for request in scripted.requests["DeleteOperation"]]


def test_each_operation_is_deleted_once_and_told_and_what_stays_as_well(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("DeleteOperation", GONE)
    ended = ktrdr(*DELETE, ID, "op_b", ID)
    assert [ID, "op_b"] == asked(scripted)
    assert (ExitCode.DONE, f"Deleted {ID}\nDeleted op_b\n") == (ended.exit_code, ended.stdout)
    assert "The models and bars that the work has made are not touched.\n" == ended.stderr


def test_what_has_not_ended_is_kept_and_how_to_stop_it_told(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("DeleteOperation", ACTIVE)
    ended = ktrdr(*DELETE, ID)
    assert (ExitCode.FAILED, "") == (ended.exit_code, ended.stdout)
    assert [
        f"Not deleted: {ID}: Operation x has not ended. (OPERATION_ACTIVE)",
        f"  Stop it first: ktrdr operations cancel {ID} --wait --backend {scripted.address}",
    ] == ended.stderr.splitlines()


def test_one_that_is_refused_does_not_keep_the_others(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("DeleteOperation", GONE, UNKNOWN, GONE)
    ended = ktrdr(*DELETE, "a", "b", "c")
    assert ["a", "b", "c"] == asked(scripted)
    assert (ExitCode.FAILED, "Deleted a\nDeleted c\n") == (ended.exit_code, ended.stdout)
    assert "Not deleted: b: There is no operation 'x'." in ended.stderr


@pytest.mark.parametrize(
    ("refusals", "exit_code"),
    [
        ([UNKNOWN, UNKNOWN], ExitCode.USAGE),
        ([UNKNOWN, ACTIVE], ExitCode.FAILED),
        ([ACTIVE, UNSTORED], ExitCode.UNREACHABLE),
    ],
)
def test_the_exit_code_is_that_of_the_refusals(
    ktrdr: Run, scripted: ScriptedBackend, refusals: list[Refusal], exit_code: ExitCode
) -> None:
    scripted.script("DeleteOperation", *refusals)
    ended = ktrdr(*DELETE, "a", "b")
    assert exit_code == ended.exit_code
    assert "Traceback" not in ended.stderr


def test_an_id_that_is_refused_is_told_with_what_is_wrong_with_it(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    violations = [("operation_id", "is required")]
    code = grpc.StatusCode.INVALID_ARGUMENT
    scripted.script("DeleteOperation", Refusal(code, "Bad.", "INVALID_ARGUMENT", violations))
    ended = ktrdr(*DELETE, "")
    assert ExitCode.USAGE == ended.exit_code
    assert ended.stderr.startswith("Not deleted: '': ")
    assert "  - operation_id: is required" == ended.stderr.splitlines()[-1]


def test_a_record_that_could_not_be_forgotten_now_says_when_to_come_back(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("DeleteOperation", UNSTORED)
    ended = ktrdr(*DELETE, "a", "b")
    assert 1 == ended.stderr.count("Try again in 2 s.")


def test_a_backend_that_does_not_answer_is_asked_once(run: Run, scripted: ScriptedBackend) -> None:
    scripted.script("DeleteOperation", Refusal(grpc.StatusCode.UNAVAILABLE, "gone"))
    ended = run(*DELETE, "a", "b", "--backend", scripted.address)
    assert ["a"] == asked(scripted)
    assert ExitCode.UNREACHABLE == ended.exit_code
    assert 1 == ended.stderr.count("Start one with")


def test_in_json_it_is_one_document(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("DeleteOperation", GONE, ACTIVE)
    ended = ktrdr(*DELETE, "a", "b", "--format", "json")
    assert {
        "deleted": ["a"],
        "refused": [
            {
                "operationId": "b",
                "reason": "OPERATION_ACTIVE",
                "message": "Operation x has not ended.",
            }
        ],
    } == ended.document
    assert (ExitCode.FAILED, "") == (ended.exit_code, ended.stderr)


def test_without_an_id_nothing_is_asked(ktrdr: Run, scripted: ScriptedBackend) -> None:
    assert ExitCode.USAGE == ktrdr(*DELETE).exit_code
    assert not scripted.requests
