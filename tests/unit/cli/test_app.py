import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from backend.cli.failures import ExitCode
from ktrdr.operations.v1 import operations_service_pb2 as service
from tests.unit.cli.command_line import FakeTime, Run
from tests.unit.cli.samples import ID, RUNNING, look, operation
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_help_names_every_group_and_the_exit_codes(run: Run) -> None:
    ended = run("--help")
    assert ended.exit_code == ExitCode.DONE
    for word in (
        "data",
        "models",
        "operations",
        "strategies",
        "--backend",
        "4 backend unreachable",
    ):
        assert word in ended.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["models", "train", "--help"], ["data", "show", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom backend.cli.app import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "heavy = {'grpc', 'torch', 'matplotlib', 'google.protobuf', 'yaml', 'numpy', 'pandas'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(','.join(heavy) or 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""


def test_the_backend_may_be_named_before_the_group(run: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetOperation", look(operation()))
    assert run("--backend", scripted.address, "operations", "get", ID).exit_code == 0


def test_the_backend_may_be_named_in_the_environment(
    run: Run, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.script("GetOperation", look(operation()))
    monkeypatch.setenv("KTRDR_BACKEND_ADDRESS", scripted.address)
    assert run("operations", "get", ID).exit_code == 0


def test_the_backend_named_last_counts(run: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetOperation", look(operation()))
    arguments = ("operations", "get", ID, "--backend", scripted.address)
    assert run("--backend", "127.0.0.1:1", *arguments).exit_code == 0


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:0", ":50051", "host:port", "a:70000"])
def test_an_address_that_names_no_server_is_a_usage_error(run: Run, address: str) -> None:
    ended = run("operations", "get", ID, "--backend", address)
    assert ended.exit_code == ExitCode.USAGE
    assert "write it as HOST:PORT, for example 127.0.0.1:50051" in ended.complaint


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("operations", "get"),
        ("operations", "list", "--limit", "-1"),
        ("operations", "list", "--status", "sleeping"),
        ("operations", "list", "--active", "--status", "running"),
        ("operations", "get", ID, "--refresh", "--max-staleness", "1"),
        ("operations", "get", ID, "--max-staleness", "-1"),
        ("operations", "metrics", ID, "--cursor", "-1"),
        ("operations", "metrics", ID, "--format", "xml"),
        ("operations", "wait", ID, "--timeout", "nan"),
        ("operations", "watch", ID, "--plot", "picture.jpg"),
        ("data", "load", "IBM"),
        ("data", "load", "IBM,", "1d"),
        ("data", "show", "IBM", "1d", "--chart", "--format", "json"),
        ("data", "list", "--limit", "0"),
        ("models", "train"),
        ("models", "train", "--strategy", "none.yaml"),
        ("models", "list", "--limit", "0"),
        ("models", "train", "--strategy", "none.yaml", "--detach", "--plot", "p.png"),
        ("models", "train", "--strategy", "none.yaml", "--seed", "-1"),
        ("models", "train", "--strategy", "none.yaml", "--seed", str(2**63)),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.exit_code == ExitCode.USAGE
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_ctrl_c_with_nothing_to_detach_from_is_130(
    ktrdr: Run, scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    early = service.WaitOperationResponse(operation=operation(RUNNING))
    early.retry_after.FromSeconds(1)
    scripted.script("WaitOperation", early)
    fake_time.during[1] = fake_time.interrupt
    assert ktrdr("operations", "wait", ID).exit_code == ExitCode.INTERRUPTED


def test_a_word_that_is_not_utf_8_is_a_usage_error(ktrdr: Run, strategy: Path) -> None:
    ended = ktrdr("models", "train", "--strategy", str(strategy), "--symbols", "I\udcffM")

    assert ended.exit_code == ExitCode.USAGE
    assert "write it in UTF-8" in ended.stderr
    assert "Traceback" not in ended.stderr


def in_ascii(scripted: ScriptedBackend, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own whose terminal knows no umlaut."""
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", *arguments, "--backend", scripted.address],
        capture_output=True,
        text=True,
        encoding="ascii",
        env=os.environ | ASCII,
        check=False,
    )


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_character_that_the_terminal_does_not_know_is_replaced(
    scripted: ScriptedBackend, output: str
) -> None:
    text = "Prüfung läuft"
    scripted.script("GetOperation", look(operation(phase="training", message=text)))
    ended = in_ascii(scripted, "operations", "get", ID, "--format", output)
    assert (ExitCode.DONE, "") == (ended.returncode, ended.stderr)
    if output == "json":  # which can say every character in ASCII
        assert text == json.loads(ended.stdout)["progress"]["message"]
    else:
        assert "Pr?fung l?uft" in ended.stdout


def test_so_is_one_of_an_error(scripted: ScriptedBackend) -> None:
    refusal = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "Zu früh.", "TOO_EARLY")
    scripted.script("GetOperation", refusal)
    ended = in_ascii(scripted, "operations", "get", ID)
    assert (ExitCode.FAILED, "Error: Zu fr?h. (TOO_EARLY)\n") == (ended.returncode, ended.stderr)


@pytest.mark.parametrize("arguments", [("--help",), ("operations", "--help"), ("nonsense",)])
def test_help_and_usage_errors_can_be_shown_in_ascii(
    scripted: ScriptedBackend, arguments: tuple[str, ...]
) -> None:
    ended = in_ascii(scripted, *arguments)
    assert "Usage: ktrdr" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
