"""A minute of everything at once; `make soak` does the same for longer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.programs import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_breaks_nothing_is_lost_doubled_or_taken_back() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak"],
        cwd=ROOT,
        env={**os.environ, "SOAK_SECONDS": "60", "SOAK_SEED": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Every invariant held." in done.stdout


@pytest.mark.parametrize(
    ("name", "value"), [("SOAK_SECONDS", "5"), ("SOAK_SECONDS", "long"), ("SOAK_SEED", "-1")]
)
def test_a_number_of_no_use_is_refused_with_a_sentence(name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak"],
        cwd=ROOT,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (1, "") == (done.returncode, done.stdout)
    assert f"{name}: must be a whole number of at least" in done.stderr
    assert "Traceback" not in done.stderr
