from __future__ import annotations

from pathlib import Path

import pytest

from backend.program import ProgramError
from tests.support.processes import KtrdrProcess


def test_a_process_that_does_not_start_is_told_of_with_what_it_said(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('the reason')")

    with pytest.raises(ProgramError) as raised:
        KtrdrProcess("broken", tmp_path, PYTHONPATH=str(tmp_path))

    assert ["the reason\n"] == raised.value.__notes__
