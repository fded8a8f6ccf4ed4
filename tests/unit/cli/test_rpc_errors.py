import grpc
import pytest

from backend.cli.failures import ExitCode
from tests.unit.cli.command_line import Run
from tests.unit.cli.samples import ID
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

CODES = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.USAGE,
    "OUT_OF_RANGE": ExitCode.USAGE,
    "UNAUTHENTICATED": ExitCode.USAGE,
    "PERMISSION_DENIED": ExitCode.USAGE,
    "FAILED_PRECONDITION": ExitCode.FAILED,
    "RESOURCE_EXHAUSTED": ExitCode.FAILED,
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNREACHABLE,
    "INTERNAL": ExitCode.FAILED,
}


@pytest.mark.parametrize(("code", "exit_code"), CODES.items())
@pytest.mark.parametrize("reason", ["", "A_REASON"])
def test_every_status_has_its_exit_code_and_no_traceback(
    ktrdr: Run, scripted: ScriptedBackend, code: str, exit_code: ExitCode, reason: str
) -> None:
    scripted.script("GetOperation", Refusal(grpc.StatusCode[code], "what happened", reason))
    ended = ktrdr("operations", "get", ID)
    assert exit_code == ended.exit_code
    assert ended.stdout == ""
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr


def test_a_servers_message_is_told_with_its_reason(ktrdr: Run, scripted: ScriptedBackend) -> None:
    refusal = Refusal(grpc.StatusCode.NOT_FOUND, "There is no operation 'x'.", "NO_SUCH")
    scripted.script("GetOperation", refusal)
    assert ktrdr("operations", "get", "x").stderr == (
        "Error: There is no operation 'x'. (NO_SUCH)\n"
    )


def test_each_bad_field_has_a_line(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script(
        "GetOperation",
        Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "a: bad; b: worse",
            "INVALID_ARGUMENT",
            violations=[("a", "bad"), ("b", "worse"), ("", "and 3 more")],
        ),
    )
    assert ktrdr("operations", "get", "x").stderr.splitlines() == [
        "Error: the backend refused the request; nothing was begun. Put right:",
        "  - a: bad",
        "  - b: worse",
        "  - and 3 more",
    ]


def test_the_time_to_come_back_is_told(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script(
        "GetOperation",
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "All busy.", "BUSY", retry_after=2.5),
    )
    assert "Try again in 2.5 s." in ktrdr("operations", "get", "x").stderr


def test_without_a_backend_the_error_says_how_to_start_one(run: Run) -> None:
    ended = run("operations", "list", "--backend", "127.0.0.1:1")
    assert ended.exit_code == ExitCode.UNREACHABLE
    assert ended.stderr.splitlines() == [
        "Error: no backend answers at 127.0.0.1:1.",
        (
            "Start one with `python -m backend`, or name another with --backend HOST:PORT or "
            "KTRDR_BACKEND_ADDRESS."
        ),
    ]


def test_a_server_that_is_no_backend_is_told_as_such(ktrdr: Run) -> None:
    ended = ktrdr("models", "list")
    assert ended.exit_code == ExitCode.FAILED
    assert "may be no ktrdr backend or an older one" in ended.stderr
