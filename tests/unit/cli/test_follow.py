from pathlib import Path

import grpc
import pytest

from backend.cli.failures import ExitCode
from ktrdr.operations.v1 import operation_pb2 as op
from tests.unit.cli.command_line import FakeTime, Run
from tests.unit.cli.samples import (
    CANCELLED,
    COMPLETED,
    FAILED,
    ID,
    RUNNING,
    a_whole_training,
    epoch,
    look,
    operation,
)
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend


def test_a_watch_ends_with_the_final_table(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetOperation", *a_whole_training())
    ended = ktrdr("operations", "watch", ID)
    assert ended.exit_code == ExitCode.DONE
    assert ended.stderr == ""
    for fact in (
        "baseline        41.0 %      41.0 %  41.0 %",
        "3 (best: 2, lowest validation loss)",
        "12,346 samples per second",
        "1,688",
        "BUY 31.0 %, HOLD 41.0 %, SELL 28.0 %",
        "/models/demo/1d_v1",
        "No better than the baseline.",
    ):
        assert fact in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [
        (COMPLETED, ExitCode.DONE),
        (FAILED, ExitCode.FAILED),
        (CANCELLED, ExitCode.CANCELLED),
    ],
)
@pytest.mark.parametrize("form", ["table", "json"])
def test_how_the_operation_ended_is_the_exit_code(
    ktrdr: Run,
    scripted: ScriptedBackend,
    status: op.OperationStatus.ValueType,
    exit_code: ExitCode,
    form: str,
) -> None:
    scripted.script("GetOperation", look(operation(status)))
    assert ktrdr("operations", "watch", ID, "--format", form).exit_code == exit_code


def test_a_failure_is_told_with_its_reason(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetOperation", look(operation(FAILED)))
    stdout = ktrdr("operations", "watch", ID).stdout
    assert "IBM has 12 bars; train on a longer period. (DATA_TOO_SHORT)" in stdout
    assert "bars: 12" in stdout
    assert "may succeed if it is started again" in stdout


def test_in_json_stdout_is_one_document(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetOperation", *a_whole_training())
    ended = ktrdr("operations", "watch", ID, "--format", "json")
    assert ended.document["status"] == "OPERATION_STATUS_COMPLETED"
    assert ended.document["result"]["bestEpoch"] == 2
    assert ended.stderr == ""


def test_in_json_on_a_terminal_the_bar_is_on_stderr(
    ktrdr: Run, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.script("GetOperation", *a_whole_training())
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    ended = ktrdr("operations", "watch", ID, "--format", "json")
    assert ended.document["status"] == "OPERATION_STATUS_COMPLETED"
    assert "train loss" in ended.stderr


@pytest.mark.parametrize("form", ["table", "json"])
def test_ctrl_c_detaches_and_says_how_to_come_back(
    ktrdr: Run, scripted: ScriptedBackend, fake_time: FakeTime, form: str
) -> None:
    scripted.script("GetOperation", look(operation(RUNNING), epoch(1)))
    fake_time.during[3] = fake_time.interrupt
    ended = ktrdr("operations", "watch", ID, "--format", form)
    assert ended.exit_code == ExitCode.DONE
    assert f"ktrdr operations watch {ID} --backend {scripted.address}" in ended.stderr
    assert "CancelOperation" not in scripted.requests
    if form == "json":
        assert ended.document["status"] == "OPERATION_STATUS_RUNNING"


def test_a_restart_of_the_backend_is_borne(
    ktrdr: Run, scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("GetOperation", look(operation(RUNNING)), look(operation(COMPLETED)))
    fake_time.during[1] = scripted.stop
    fake_time.during[4] = scripted.restart
    fake_time.during |= dict.fromkeys(range(5, 60), scripted.await_connection)
    ended = ktrdr("operations", "watch", ID)
    assert ended.exit_code == ExitCode.DONE
    assert ended.stdout.count(f"No backend answers at {scripted.address}.") == 1


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_backend_that_stays_away_ends_the_watch_with_4(
    ktrdr: Run, scripted: ScriptedBackend, fake_time: FakeTime, form: str
) -> None:
    scripted.script("GetOperation", look(operation(RUNNING)))
    fake_time.during[1] = scripted.stop
    ended = ktrdr("operations", "watch", ID, "--format", form)
    assert ended.exit_code == ExitCode.UNREACHABLE
    assert "Gave up after 30 s." in ended.stderr


def test_the_picture_is_saved_and_its_path_printed(
    ktrdr: Run, scripted: ScriptedBackend, tmp_path: Path
) -> None:
    scripted.script("GetOperation", *a_whole_training())
    path = tmp_path / "picture.png"
    ended = ktrdr("operations", "watch", ID, "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in ended.stdout


def test_in_json_the_pictures_path_is_on_stderr(
    ktrdr: Run, scripted: ScriptedBackend, tmp_path: Path
) -> None:
    scripted.script("GetOperation", *a_whole_training())
    path = tmp_path / "picture.png"
    ended = ktrdr("operations", "watch", ID, "--plot", str(path), "--format", "json")
    assert ended.document
    assert ended.stderr == f"picture: {path}\n"


def test_without_epochs_there_is_no_picture(
    ktrdr: Run, scripted: ScriptedBackend, tmp_path: Path
) -> None:
    scripted.script("GetOperation", look(operation(FAILED)))
    path = tmp_path / "picture.png"
    ended = ktrdr("operations", "watch", ID, "--plot", str(path))
    assert not path.exists()
    assert "has reported no epoch" in ended.stderr


def test_a_picture_that_cannot_be_saved_after_all_is_an_error(
    ktrdr: Run, scripted: ScriptedBackend, fake_time: FakeTime, tmp_path: Path
) -> None:
    scripted.script("GetOperation", *a_whole_training())
    folder = tmp_path / "soon_gone"
    folder.mkdir()
    fake_time.during[1] = folder.rmdir
    ended = ktrdr("operations", "watch", ID, "--plot", str(folder / "p.png"))
    assert ended.exit_code == ExitCode.FAILED
    assert "could not be saved" in ended.stderr
    assert f"ktrdr operations watch {ID} --backend {scripted.address} --plot" in ended.stderr


def test_an_operation_that_does_not_exist_is_a_usage_error(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("GetOperation", Refusal(grpc.StatusCode.NOT_FOUND, "None.", "NONE"))
    assert ktrdr("operations", "watch", "x").exit_code == ExitCode.USAGE
