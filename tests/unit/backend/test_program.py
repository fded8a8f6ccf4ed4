from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.program import Program, ProgramError, clean_environment

RESTLESS = """\
import os, threading
with open("{file}", "w") as file:
    file.write(str(os.getpid()))
print("not what was waited for", flush=True)
threading.Event().wait()
"""


def test_a_program_that_does_not_get_ready_is_ended(tmp_path: Path) -> None:
    file, log = tmp_path / "pid", tmp_path / "log"
    (tmp_path / "restless.py").write_text(RESTLESS.format(file=file))

    with pytest.raises(ProgramError, match=f"restless did not start; {log} says why"):
        Program("restless", tmp_path, log, {"PYTHONPATH": str(tmp_path)})

    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_settings_of_the_shell_do_not_reach_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os,
        "environ",
        {
            "PATH": "/bin",
            "KTRDR_READ_LIMIT": "1",
            "OPERATIONS_CACHE_TTL": "9",
            "TRAINING_HOST_SERVICE_URL": "elsewhere:1",
            "IB_HOST_SERVICE_URL": "elsewhere:2",
            "OTEL_TRACES_EXPORTER": "otlp",
        },
    )

    assert {"PATH": "/bin", "OTEL_TRACES_EXPORTER": "otlp"} == clean_environment()
