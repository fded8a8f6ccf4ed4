from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from shared.reloading import INTERVAL, Reloading
from shared.rpc.errors import CredentialsError
from tests.support.clock import FakeClock


class File:
    """A file with a number, and what reads it; counts how often that is done."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "number"
        self.path.write_text("1")
        self.reads = 0
        self.clock = FakeClock()

    def read(self) -> int:
        self.reads += 1
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            raise CredentialsError("the number cannot be read") from None

    def reloading(self) -> Reloading[int]:
        return Reloading([self.path], self.read, self.clock)

    def replace(self, text: str) -> None:
        """Put another file in its place, of the same size and time, as some tools do."""
        status, beside = self.path.stat(), self.path.with_name("beside")
        beside.write_text(text)
        os.utime(beside, ns=(status.st_atime_ns, status.st_mtime_ns))
        beside.replace(self.path)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


def test_a_file_that_stays_as_it_is_is_read_once(file: File) -> None:
    number = file.reloading()
    for _ in range(5):
        file.clock.advance(INTERVAL)
        assert 1 == number.get()
    assert 1 == file.reads


def test_a_changed_file_is_read_again_after_the_interval(file: File) -> None:
    number = file.reloading()
    file.replace("2")
    file.clock.advance(INTERVAL / 2)
    assert 1 == number.get()
    file.clock.advance(INTERVAL / 2)
    assert [2, 2] == [number.get(), number.get()]
    assert 2 == file.reads


@pytest.mark.parametrize("content", ["", "two", None])
def test_a_broken_file_leaves_what_was_read_in_use_and_is_told_once(
    file: File, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    number = file.reloading()
    if content is None:
        file.path.unlink()
    else:
        file.path.write_text(content)
    for _ in range(3):
        file.clock.advance(INTERVAL)
        assert 1 == number.get()
    assert ["Still using what was read before: the number cannot be read"] == [
        record.message for record in caplog.records if record.levelno == logging.ERROR
    ]


def test_a_mended_file_is_used(file: File) -> None:
    number = file.reloading()
    file.path.unlink()
    file.clock.advance(INTERVAL)
    number.get()
    file.path.write_text("3")
    file.clock.advance(INTERVAL)
    assert 3 == number.get()


def test_a_file_that_is_changed_while_it_is_read_is_read_again(file: File) -> None:
    number = file.reloading()
    file.path.write_text("20")
    again = file.read

    def read_and_change() -> int:
        value = again()
        if value == 20:
            file.path.write_text("300")
        return value

    number._read = read_and_change
    file.clock.advance(INTERVAL)
    assert 1 == number.get()  # half of what is being written is nobody's
    file.clock.advance(INTERVAL)
    assert 300 == number.get()


def test_a_file_that_cannot_be_used_at_first_is_an_error(file: File) -> None:
    file.path.unlink()
    with pytest.raises(CredentialsError, match="cannot be read"):
        file.reloading()
