"""The `ktrdr` command against a real backend process."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import ROOT, SMALL, Programs

TRAIN = ("models", "train", "--strategy", str(SMALL), "--symbols", "IBM", "--timeframes", "1d")
LONG = ("--set", "model.training.epochs=10000")


def test_training_prints_a_row_per_epoch_a_result_and_a_picture(
    programs: Programs, tmp_path: Path
) -> None:
    picture = tmp_path / "training.png"
    done = programs.ktrdr(*TRAIN, "--seed", "7", "--plot", str(picture))

    assert (0, "") == (done.returncode, done.stderr)
    rows = re.findall(r"^ +(\d+)/10 ", done.stdout, flags=re.MULTILINE)
    assert [str(n) for n in range(1, 11)] == rows
    for word in ("accuracy", "baseline", "precision", "recall", "F1", "class shares", "speed"):
        assert word in done.stdout
    assert str(picture) in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_is_one_document_with_the_typed_result(programs: Programs) -> None:
    done = programs.ktrdr(*TRAIN, "--seed", "7", "--format", "json")

    document = json.loads(done.stdout)
    operation = document.get("operation", document)
    assert "OPERATION_STATUS_COMPLETED" == operation["status"]
    assert operation["result"]["@type"].endswith("ktrdr.training.v1.TrainingResult")


def test_the_same_seed_gives_the_same_metrics_and_another_does_not(programs: Programs) -> None:
    def losses(request_id: str, seed: str) -> list[str]:
        programs.ktrdr(*TRAIN, "--seed", seed, "--request-id", request_id)
        printed = programs.ktrdr(
            "operations", "metrics", f"op_training_{request_id}", "--format", "csv"
        ).stdout
        return [row["train_loss"] for row in csv.DictReader(io.StringIO(printed))]

    first, again, other = losses("s1", "1"), losses("s2", "1"), losses("s3", "2")
    assert 10 == len(first)
    assert first == again
    assert first != other


def test_a_detached_training_is_listed_cancelled_and_watched_to_exit_code_3(
    programs: Programs,
) -> None:
    programs.ktrdr(*TRAIN, *LONG, "--request-id", "long", "--detach")
    listed = programs.ktrdr("operations", "list", "--active").stdout
    cancelled = programs.ktrdr(
        "operations", "cancel", "op_training_long", "--reason", "enough", "--wait"
    )
    watched = programs.ktrdr("operations", "watch", "op_training_long")
    shown = programs.ktrdr("operations", "get", "op_training_long", "--format", "json")

    assert "op_training_long" in listed
    assert cancelled.returncode in {0, 3}
    assert 3 == watched.returncode
    document = json.loads(shown.stdout)
    operation = document.get("operation", document)
    assert "OPERATION_STATUS_CANCELLED" == operation["status"]
    assert "enough" == operation["cancelReason"]


def test_what_has_ended_is_forgotten_by_command_and_its_model_stays(programs: Programs) -> None:
    programs.ktrdr(*TRAIN, "--request-id", "done")
    programs.ktrdr(*TRAIN, *LONG, "--request-id", "open", "--detach")
    models = json.loads(programs.ktrdr("models", "list", "--format", "json").stdout)
    deleted = programs.ktrdr("operations", "delete", "op_training_done", "op_training_open")
    again = programs.ktrdr("operations", "delete", "op_training_done", "--format", "json")
    left = programs.ktrdr("operations", "list").stdout
    programs.ktrdr("operations", "cancel", "op_training_open", "--wait")

    assert (1, "Deleted op_training_done\n") == (deleted.returncode, deleted.stdout)
    assert "OPERATION_ACTIVE" in deleted.stderr
    (refused,) = json.loads(again.stdout)["refused"]
    assert (2, "OPERATION_NOT_FOUND") == (again.returncode, refused["reason"])
    assert "op_training_done" not in left
    assert "op_training_open" in left
    left = programs.ktrdr("models", "list", "--format", "json").stdout
    assert models == json.loads(left)


def test_a_request_that_is_repeated_finds_what_it_started(programs: Programs) -> None:
    first = programs.ktrdr(*TRAIN, "--request-id", "twice", "--detach")
    second = programs.ktrdr(*TRAIN, "--request-id", "twice", "--detach")

    assert "Started op_training_twice\n" == first.stdout
    assert "Found op_training_twice, which the same request has started before\n" == second.stdout


def test_a_load_of_what_is_still_to_come_says_that_nothing_was_there(programs: Programs) -> None:
    done = programs.ktrdr("data", "load", "IBM", "1d", "--start-date", "2099-01-01")

    assert 0 == done.returncode
    assert "it begins in the future, on 2099-01-01." in done.stdout


def test_a_training_with_too_few_bars_fails_with_exit_code_1_and_says_why(
    programs: Programs,
) -> None:
    done = programs.ktrdr(*TRAIN, "--start-date", "2012-01-01", "--end-date", "2012-01-31")

    assert 1 == done.returncode
    assert "INSUFFICIENT_DATA" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_bad_input_is_exit_code_2_and_names_every_field(programs: Programs) -> None:
    done = programs.ktrdr(
        *("models", "train", "--strategy", str(SMALL), "--symbols", "NOPE", "--timeframes", "9d")
    )

    assert 2 == done.returncode
    assert "symbols[0]" in done.stderr
    assert "timeframes[0]" in done.stderr


def test_nobody_listening_is_exit_code_4(programs: Programs) -> None:
    done = Programs("127.0.0.1:1").ktrdr("operations", "list")

    assert 4 == done.returncode
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_detaches_says_how_to_come_back_and_the_work_goes_on(programs: Programs) -> None:
    process = subprocess.Popen(
        [
            *programs.command("ktrdr"),
            *(*TRAIN, *LONG, "--request-id", "kept"),
            *("--backend", programs.address),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONFAULTHANDLER": "1"},
        # Who runs the tests in the background may have it ignored.
        preexec_fn=_heed_ctrl_c,  # noqa: PLW1509  # it takes no lock that another thread may hold
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "1/10000" in line:
            break
    process.send_signal(signal.SIGINT)
    try:
        output, errors = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # has it tell where its threads are
        pytest.fail(process.communicate()[1])
    after = programs.call(
        "ktrdr.operations.v1.OperationsService/GetOperation", operation_id="op_training_kept"
    )
    programs.ktrdr("operations", "cancel", "op_training_kept", "--wait")

    assert 0 == process.returncode
    assert "ktrdr operations watch op_training_kept" in output + errors
    assert "OPERATION_STATUS_RUNNING" == after["operation"]["status"]


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("arguments", [("--help",), ("models", "--help"), ("operations", "--help")])
def test_help_is_printed_without_a_backend(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*Programs.command("ktrdr"), *arguments], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode
    assert "Usage" in done.stdout


def test_an_output_that_cannot_be_written_is_a_sentence(programs: Programs) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*programs.command("ktrdr"), "operations", "list", "--backend", programs.address],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert 1 == done.returncode
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("operations", "list", "--format", "json")])
def test_an_output_that_is_closed_is_a_sentence(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *Programs.command("ktrdr"), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert 1 == done.returncode
    assert (
        "Error: the standard output is closed; send it to a file or to /dev/null.\n" == done.stderr
    )
