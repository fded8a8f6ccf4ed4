from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from shared.instance import Instance, claimed_instance
from shared.settings import SettingsError

CLAIM = """
import sys
from pathlib import Path
from shared.instance import claimed_instance

with claimed_instance(Path(sys.argv[1]), "backend") as instance:
    print(instance.id, flush=True)
    sys.stdin.read()
"""
ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder that is not there yet."""
    return tmp_path / "home" / "state"


def test_an_id_outlasts_a_power_cut(state: Path, synced: list[Path]) -> None:
    with claimed_instance(state, "backend"):
        assert state == synced[-1]


@contextmanager
def holder(state: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds the claim, and the id it has."""
    child = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.communicate()


def refusal(state: Path, name: str = "backend") -> str:
    """What a claim that must fail is told."""
    with pytest.raises(SettingsError) as raised, claimed_instance(state, name):
        pass
    return str(raised.value)


def written(state: Path, content: bytes) -> Path:
    """An id file with this content."""
    state.mkdir(parents=True)
    path = state / "backend.instance"
    path.write_bytes(content)
    return path


# --------------------------------------------------------------------------- identity


def test_the_id_is_kept_and_the_incarnation_is_new(state: Path) -> None:
    with claimed_instance(state, "backend") as first:
        pass
    with claimed_instance(state, "backend") as second:
        pass
    assert first.id == second.id
    assert first.incarnation != second.incarnation
    for made in (first.id, first.incarnation, second.incarnation):
        assert re.fullmatch("[0-9a-f]{32}", made)


@pytest.mark.parametrize("content", [f"{ID}\n", ID])
def test_an_id_that_was_kept_is_taken(state: Path, content: str) -> None:
    written(state, content.encode())
    with claimed_instance(state, "backend") as instance:
        assert ID == instance.id


def test_processes_of_different_names_share_a_folder(state: Path) -> None:
    with (
        claimed_instance(state, "backend") as backend,
        claimed_instance(state, "training_host") as host,
    ):
        assert backend.id != host.id


def test_an_instance_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Instance("a", "b").id = "c"  # type: ignore[misc]  # that is the point


def test_only_the_id_is_left_behind(state: Path) -> None:
    with claimed_instance(state, "backend") as instance:
        assert ["backend.instance", "backend.pid"] == sorted(p.name for p in state.iterdir())
    assert [state / "backend.instance"] == list(state.iterdir())
    assert f"{instance.id}\n" == (state / "backend.instance").read_text()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", ID[:20].encode(), f"{ID}0\n".encode(), f"{ID}\n{ID}\n".encode(), b"\xff" * 32],
)
def test_a_file_that_holds_no_id_is_refused_and_left_as_it_is(state: Path, content: bytes) -> None:
    path = written(state, content)
    told = refusal(state)
    assert f"KTRDR_HOME: {path} does not hold the id" in told
    assert "Restore it" in told
    assert content == path.read_bytes()


def test_a_refused_file_is_not_left_locked(state: Path) -> None:
    path = written(state, b"torn")
    refusal(state)
    path.write_text(ID)
    with claimed_instance(state, "backend") as instance:
        assert ID == instance.id


# ------------------------------------------------------------------ folders of no use


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = refusal(tmp_path / "file" / "state")
    assert told.startswith("KTRDR_HOME: ")
    assert "name a folder" in told


def test_an_id_file_that_cannot_be_opened_is_refused(state: Path) -> None:
    (state / "backend.instance").mkdir(parents=True)
    told = refusal(state)
    assert f"KTRDR_HOME: {state / 'backend.instance'} cannot be used" in told


# ----------------------------------------------------------------------- one at a time


def test_a_second_claim_is_refused_with_the_holder_and_the_mend(state: Path) -> None:
    with claimed_instance(state, "backend"):
        told = refusal(state)
    assert f"KTRDR_HOME: another backend (pid {os.getpid()}) is using {state};" in told
    assert "set KTRDR_HOME to another folder" in told


@pytest.mark.parametrize("noted", [None, b"", b"nonsense", b"\xff\xfe", b"12", b"9" * 5000])
def test_a_holder_that_is_not_known_is_not_named(state: Path, noted: bytes | None) -> None:
    with claimed_instance(state, "backend"):
        (state / "backend.pid").unlink()
        if noted is not None:
            (state / "backend.pid").write_bytes(noted)
        told = refusal(state)
    assert f"another backend is using {state};" in told


def test_a_refused_claim_leaves_the_holder_noted(state: Path) -> None:
    with claimed_instance(state, "backend"):
        assert refusal(state) == refusal(state)


def test_a_claim_ends_with_an_exception(state: Path) -> None:
    def fail() -> None:
        with claimed_instance(state, "backend"):
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        fail()
    with claimed_instance(state, "backend") as instance:
        assert instance.id


def test_another_process_holds_its_claim_until_it_is_killed(state: Path) -> None:
    with holder(state) as (child, theirs):
        assert f"(pid {child.pid})" in refusal(state)
        child.kill()
        child.wait(timeout=10)
        with claimed_instance(state, "backend") as instance:
            assert theirs == instance.id
            assert f"(pid {os.getpid()})" in refusal(state)


def test_a_process_that_ends_gives_its_claim_up(state: Path) -> None:
    with holder(state) as (child, theirs):
        child.communicate(input="", timeout=10)
        assert child.returncode == 0
        with claimed_instance(state, "backend") as instance:
            assert theirs == instance.id


def test_of_claims_that_race_exactly_one_wins(tmp_path: Path) -> None:
    racers = 8
    with ThreadPoolExecutor(racers) as pool:
        for race in range(20):
            state = tmp_path / str(race)
            start, tried = threading.Barrier(racers), threading.Barrier(racers)

            def claim(
                _: int,
                state: Path = state,
                start: threading.Barrier = start,
                tried: threading.Barrier = tried,
            ) -> str | None:
                with ExitStack() as stack:
                    start.wait(10)
                    try:
                        won = stack.enter_context(claimed_instance(state, "backend"))
                    except SettingsError:
                        won = None
                    tried.wait(10)  # nobody gives up before all have tried
                    return won.id if won else None

            winners = [won for won in pool.map(claim, range(racers)) if won]
            assert 1 == len(winners)
            assert f"{winners[0]}\n" == (state / "backend.instance").read_text()
            assert [state / "backend.instance"] == list(state.iterdir())
