from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak.footprint import footprint_of

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")


def test_a_process_has_a_size() -> None:
    before = footprint_of(os.getpid())
    with Path(__file__).open():
        after = footprint_of(os.getpid())

    assert before is not None
    assert after is not None
    assert before.memory > 10
    assert before.threads >= 1
    assert before.libraries > 1
    assert before.files < after.files


def test_a_process_that_has_gone_has_none() -> None:
    assert footprint_of(2**22 + 1) is None
