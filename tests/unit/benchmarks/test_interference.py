from __future__ import annotations

import threading

import pytest

from benchmarks.interference import REST, TORCH, WORKS, busy_process, repeat, require_work


def test_reads_beside_no_work_do_not_count() -> None:
    with pytest.raises(RuntimeError, match="torch trains: nothing was done"):
        require_work(TORCH, 0)

    require_work(TORCH, 1)
    require_work(REST, 0)


@pytest.mark.parametrize("situation", [name for name in WORKS if name != REST])
def test_work_is_counted_by_its_steps(situation: str) -> None:
    set_up, done, calls = WORKS[situation], threading.Event(), 0
    assert set_up is not None
    work = set_up()

    def step() -> None:
        nonlocal calls
        work()
        calls += 1
        if calls == 3:
            done.set()

    assert 3 == repeat(step, done)


def test_a_situation_that_does_not_exist_is_not_measured() -> None:
    with busy_process() as (_, told):
        told.send("torch trians")
        with pytest.raises(EOFError):
            told.recv()
