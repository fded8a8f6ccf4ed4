from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.processes import KtrdrProcess

RESTLESS = """\
import os, threading
with open("{file}", "w") as file:
    file.write(str(os.getpid()))
print("not what was waited for", flush=True)
threading.Event().wait()
"""


def test_a_process_that_does_not_get_ready_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    (tmp_path / "restless.py").write_text(RESTLESS.format(file=file))

    with pytest.raises(AssertionError):
        KtrdrProcess("restless", tmp_path, PYTHONPATH=str(tmp_path))

    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)
