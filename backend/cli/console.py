"""Where output goes: people's on a console, documents on plain stdout."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from rich.console import Console

_PIPED_WIDTH = 200
"""Columns when nobody's terminal sets a width: wide enough to cut no id."""


def stdout_console() -> Console:
    """The console for tables and rows."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """The console for notes beside a document on stdout."""
    return _console(sys.stderr)


def width_of(console: Console) -> int | None:
    """The columns that rows have to fit into; None if they are piped: then nothing is left out."""
    return console.width if console.is_terminal else None


def note(text: str) -> None:
    """Tell people something that is no part of the output."""
    sys.stderr.write(f"{text}\n")


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 model", "3 models"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _console(file: TextIO) -> Console:
    # Names and messages come from elsewhere: brackets in them are no markup.
    console = Console(file=file, markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_WIDTH
    return console
