from __future__ import annotations

import pytest

from benchmarks.targets import Target, judged

MET, MISSED = Target("fast", True, "1 ms"), Target("small", False, "9 MiB")


def test_every_target_gets_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert not judged([MET, MISSED])

    assert ["", "PASS  fast: 1 ms", "MISS  small: 9 MiB"] == capsys.readouterr().out.splitlines()


def test_all_is_well_if_all_is_met() -> None:
    assert judged([MET])


def test_a_rival_that_is_missing_is_said_and_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert not judged([MET], ["MLflow"])

    assert "ABSENT  MLflow is not installed" in capsys.readouterr().out
