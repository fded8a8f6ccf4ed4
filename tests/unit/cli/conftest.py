"""A backend with a script, and the command run against it in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.cli.app import main
from backend.cli.pace import Pace
from tests.unit.cli.command_line import FakeTime, Outcome, Run
from tests.unit.cli.scripted_backend import ScriptedBackend


@pytest.fixture
def scripted() -> Iterator[ScriptedBackend]:
    backend = ScriptedBackend()
    yield backend
    backend.stop()


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fake_time: FakeTime
) -> Run:
    """Run `ktrdr` with arguments, against nobody unless they name a backend."""
    for name in list(os.environ):
        if name.startswith("KTRDR_") or name in {"COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"}:
            monkeypatch.delenv(name)
    pace = Pace(pause=fake_time.pause, monotonic=fake_time.monotonic)

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(arguments, pace=pace)
        code = left.value.code
        output = capsys.readouterr()
        return Outcome(code if isinstance(code, int) else int(bool(code)), output.out, output.err)

    return run


@pytest.fixture
def ktrdr(run: Run, scripted: ScriptedBackend) -> Run:
    """Run `ktrdr` with arguments against the scripted backend."""

    def ktrdr(*arguments: str) -> Outcome:
        return run(*arguments, "--backend", scripted.address)

    return ktrdr


@pytest.fixture
def strategy(tmp_path: Path) -> Path:
    """A file that stands for a strategy."""
    path = tmp_path / "demo.yaml"
    path.write_text("name: demo\n", encoding="utf-8")
    return path
