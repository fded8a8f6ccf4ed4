"""`ktrdr strategies`: work on strategy files, without a backend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backend.cli.options import (
    Format,
    FormatOption,
    SetOption,
    read_strategy,
    split_assignments,
)

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Check strategy files."""


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The strategy, a YAML file.")],
    set_: SetOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check a strategy file and say what is wrong with it.

    Needs no backend. Exit code 0: valid, 2: not.
    """
    overrides = split_assignments(set_)
    text = read_strategy(file, "FILE")
    from backend.cli.validation import validate_strategy

    raise typer.Exit(validate_strategy(file, text, overrides, output))
