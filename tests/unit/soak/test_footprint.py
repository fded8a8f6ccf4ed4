from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.soak.fleet import Member
from tests.soak.footprint import Scales, footprint_of

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


@pytest.fixture
def member(tmp_path: Path) -> Member:
    member = Member("this", "backend", "127.0.0.1:0", tmp_path, {})
    member.pid = os.getpid()
    return member


def test_scales_that_compared_nobody_say_so(member: Member) -> None:
    """Else a soak in which nothing was weighed would prove that nothing grows."""
    scales, enough = Scales([member]), threading.Event()
    enough.set()
    scales.watch(0.0, 60.0, enough)

    assert {"all": ["none was weighed both warm and at the end"]} == scales.weigh()


def test_a_process_that_was_weighed_twice_is_compared(member: Member) -> None:
    scales = Scales([member])
    scales.watch(0.0, 0.1, threading.Event())

    assert {"this"} == scales.weigh().keys() == scales.sizes.keys()
