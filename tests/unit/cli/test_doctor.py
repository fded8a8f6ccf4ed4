import re
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from backend.cli.failures import ExitCode
from ktrdr.operations.v1 import operation_pb2 as op
from ktrdr.operations.v1 import operations_service_pb2 as service
from tests.unit.cli.command_line import Outcome, Run
from tests.unit.cli.open_operations import HOST, each, lasting, listed, working
from tests.unit.cli.samples import ID, PENDING, look
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

REFUSED = f"No ktrdr process answers at {HOST}: the connection was refused"
UNREACHABLE = Refusal(
    grpc.StatusCode.UNAVAILABLE, REFUSED, "HOST_UNREACHABLE", metadata={"target": HOST}
)


def rows(ended: Outcome) -> list[list[str]]:
    """The cells of the table's lines."""
    lines = ended.stdout.split("\n\n")[0].splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in lines]


def script(scripted: ScriptedBackend, *operations: op.Operation) -> None:
    """Have the backend answer with these; a host that any of them is with is unreachable."""
    by_id = {one.operation_id: one for one in operations}

    def answer(request: service.GetOperationRequest) -> service.GetOperationResponse | Refusal:
        asked = by_id[request.operation_id]
        return (
            UNREACHABLE if "host_service_url" in asked.metadata else look(asked, *each(4, last=1))
        )

    scripted.script("ListOperations", listed(*operations))
    scripted.script("GetOperation", answer)


def queued(operation_id: str, seconds: float) -> op.Operation:
    operation = working(PENDING, operation_id=operation_id)
    operation.create_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=seconds))
    return operation


def test_where_nothing_runs_all_is_well(ktrdr: Run, scripted: ScriptedBackend) -> None:
    script(scripted)
    ended = ktrdr("operations", "doctor")
    assert (ExitCode.DONE, "", "Nothing waits or runs.\n") == (
        ended.exit_code,
        ended.stdout,
        ended.stderr,
    )


def test_three_questions_are_answered_apart(ktrdr: Run, scripted: ScriptedBackend) -> None:
    script(scripted, working(), queued("op_data_2", 5_400))
    ended = ktrdr("operations", "doctor")
    assert ExitCode.DONE == ended.exit_code
    assert [
        ["operation", "host", "worker", "progress", "next step"],
        [ID, "answers", "alive", "ok 4.0s/epoch", "-"],
        ["op_data_2", "answers", "queued 1h30m", "-", "wait"],
    ] == rows(ended)
    assert "2 open operations; all is well.\n" == ended.stderr
    assert "\x1b" not in ended.stdout


def test_the_widest_answers_there_are_fit_80_columns(
    ktrdr: Run, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    script(scripted, working(host=HOST), queued("op_training_2", 5_400), working(operation_id="b"))
    ended = ktrdr("operations", "doctor")
    assert 4 == len(rows(ended))
    assert max(map(len, ended.stdout.splitlines()[:4])) <= 80


def test_where_there_is_no_room_for_columns_each_operation_is_a_block(
    ktrdr: Run, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    script(scripted, working())
    assert [
        ID,
        "  host       answers",
        "  worker     alive",
        "  progress   ok 4.0s/epoch",
        "  next step  -",
    ] == ktrdr("operations", "doctor").stdout.splitlines()


def test_what_is_wrong_is_told_once_with_what_to_do_and_ends_with_1(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    script(scripted, working(host=HOST), working(host=HOST, operation_id="op_b"))
    ended = ktrdr("operations", "doctor")
    assert ExitCode.FAILED == ended.exit_code
    assert [ID, "silent", "unknown", "unknown", "start host"] == rows(ended)[1]
    assert [
        "",
        f"{REFUSED}. (2 operations)",
        f"  Start the host at {HOST}; if it runs, see its log.",
    ] == ended.stdout.splitlines()[3:]
    assert "2 open operations; 2 to look after.\n" == ended.stderr


def test_a_command_that_helps_can_be_copied(ktrdr: Run, scripted: ScriptedBackend) -> None:
    script(scripted, working(silence=7_200))
    ended = ktrdr("operations", "doctor")
    assert ExitCode.FAILED == ended.exit_code
    assert [ID, "answers", "alive", "silent 2h00m", "cancel it"] == rows(ended)[1]
    assert [
        f"{ID}: Its worker has reported nothing for 2 h 00 min.",
        "  See the log of the backend; if it does not go on, cancel it:",
        f"  ktrdr operations cancel {ID} --backend {scripted.address}",
    ] == ended.stdout.splitlines()[-3:]


def test_how_long_silence_is_borne_can_be_said(ktrdr: Run, scripted: ScriptedBackend) -> None:
    script(scripted, working(silence=90))
    assert ExitCode.DONE == ktrdr("operations", "doctor").exit_code
    asked = ktrdr("operations", "doctor", "--stale-after", "1m30s")
    assert ExitCode.FAILED == asked.exit_code


def test_a_bound_that_is_no_length_of_time_is_refused_before_anybody_is_asked(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    ended = ktrdr("operations", "doctor", "--stale-after", "30")
    assert ExitCode.USAGE == ended.exit_code
    assert "write 30m for minutes, 30s for seconds" in ended.complaint
    assert not scripted.requests


def test_for_cron_it_says_nothing_when_all_is_well(ktrdr: Run, scripted: ScriptedBackend) -> None:
    script(scripted, working())
    ended = ktrdr("operations", "doctor", "--quiet")
    assert (ExitCode.DONE, "", "") == (ended.exit_code, ended.stdout, ended.stderr)


def test_for_cron_it_shows_only_what_is_wrong(ktrdr: Run, scripted: ScriptedBackend) -> None:
    script(scripted, working(), working(operation_id="op_lost", alive=False))
    ended = ktrdr("operations", "doctor", "-q")
    assert ExitCode.FAILED == ended.exit_code
    assert ["op_lost"] == [row[0] for row in rows(ended)[1:]]
    assert ID not in ended.stdout
    assert "" == ended.stderr


def test_in_json_everything_is_one_document(ktrdr: Run, scripted: ScriptedBackend) -> None:
    late = working(silence=7_200)
    late.freshness.age.CopyFrom(lasting(0.25))
    script(scripted, late)
    ended = ktrdr("operations", "doctor", "--format", "json")
    assert ExitCode.FAILED == ended.exit_code
    (found,) = ended.document["operations"]
    assert not ended.document["healthy"]
    assert (ID, "OPERATION_TYPE_TRAINING", "OPERATION_STATUS_RUNNING", 0.25, True) == tuple(
        found[name] for name in ("operationId", "type", "status", "ageSeconds", "wrong")
    )
    assert {"state": "ANSWERS", "wrong": False, "why": ""} == found["host"]
    assert {"state": "ALIVE", "wrong": False, "why": ""} == found["worker"]
    assert ("SILENT", 7_200, "epoch") == tuple(
        found["progress"][name] for name in ("state", "silentSeconds", "usualOf")
    )
    typed = f"ktrdr operations cancel {ID} --backend {scripted.address}"
    assert typed == found["nextStep"]["command"]


def test_in_json_what_is_newer_than_the_command_is_a_number(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    new = working()
    new.MergeFromString(b"\x10\x63\x18\x62")
    script(scripted, new)
    (found,) = ktrdr("operations", "doctor", "--format", "json").document["operations"]
    assert (99, 98) == (found["type"], found["status"])


def test_in_json_well_is_an_empty_list_and_no_note(ktrdr: Run, scripted: ScriptedBackend) -> None:
    script(scripted)
    ended = ktrdr("operations", "doctor", "--format", "json")
    assert {"healthy": True, "operations": []} == ended.document
    assert "" == ended.stderr


def test_a_backend_that_does_not_answer_ends_with_4(run: Run) -> None:
    ended = run("operations", "doctor", "--quiet", "--backend", "127.0.0.1:1")
    assert ExitCode.UNREACHABLE == ended.exit_code
    assert "no backend answers at 127.0.0.1:1" in ended.stderr
