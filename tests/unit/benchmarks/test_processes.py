from __future__ import annotations

import ast
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from benchmarks.processes import halves, long_training, on_processors, peak_memory, spawned
from shared.training.strategy import load_strategy

BALLAST = 256 << 20
"""Bytes: more than a fresh process takes."""


def _tell_peak(told: Connection) -> None:
    told.send(peak_memory())


def _break(told: Connection) -> None:
    told.send("address")
    raise SystemExit(3)


def _break_at_once(_: Connection) -> None:
    raise SystemExit(3)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_peak_is_of_the_process_and_not_of_the_one_that_started_it() -> None:
    ballast = bytearray(os.urandom(1) * BALLAST)

    with spawned(_tell_peak) as (peak, _):
        assert peak < BALLAST < peak_memory()
    del ballast


def test_a_process_that_sends_nothing_is_noticed_at_its_end() -> None:
    with pytest.raises(AssertionError, match="did not start"), spawned(_break_at_once):
        raise NotImplementedError


def test_a_process_that_has_ended_is_not_waited_for() -> None:
    with spawned(_break) as (_, told), pytest.raises(EOFError):
        told.recv()


def test_a_long_training_is_the_small_one_with_more_epochs() -> None:
    strategy = load_strategy(long_training())

    assert "small" == strategy.name
    assert 10_000 == strategy.model.training.epochs


def test_the_processors_are_parted_in_halves_that_are_both_used() -> None:
    before = os.sched_getaffinity(0)
    theirs, ours = halves()
    assert before == theirs | ours
    assert len(before) == 1 or not theirs & ours
    with on_processors(theirs):
        assert theirs == os.sched_getaffinity(0)
        assert theirs == ast.literal_eval(started("import os; print(os.sched_getaffinity(0))"))
    assert before == os.sched_getaffinity(0)


def test_one_processor_is_both_halves() -> None:
    one = frozenset({min(os.sched_getaffinity(0))})
    with on_processors(one):
        assert (one, one) == halves()


def started(code: str) -> str:
    """What a process says that is started here."""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return told.stdout
