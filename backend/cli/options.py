"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_ADDRESS = "127.0.0.1:50051"
ADDRESS_VARIABLE = "KTRDR_BACKEND_ADDRESS"
MAX_INT64 = 2**63 - 1


class Format(Enum):
    """How to print what a command found."""

    TABLE = "table"
    JSON = "json"


class RowsFormat(Enum):
    """How to print what is a row each: metrics, or bars."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def resolve_address(ctx: typer.Context, value: str) -> str:
    """The backend's address: as given here, else before the command group, else as set."""
    address = value or str(ctx.find_root().params.get("backend") or DEFAULT_ADDRESS)
    host, _, port = address.rpartition(":")
    is_uri = "://" in address or address.startswith("unix:")
    if not is_uri and not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise typer.BadParameter(
            f"{address!r} names no server; write it as HOST:PORT, for example {DEFAULT_ADDRESS} "
            f"(also in {ADDRESS_VARIABLE})."
        )
    return address


def refuse_empty_id(value: str | None) -> str | None:
    """A request id as given; one made up in place of an empty one would start work twice."""
    if value == "":
        raise typer.BadParameter(
            "it is empty; name the request, or leave the option out to have a name made up."
        )
    return value


BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="HOST:PORT",
        callback=resolve_address,
        show_default=False,
        help=f"Where the backend listens. Default: {ADDRESS_VARIABLE}, else {DEFAULT_ADDRESS}.",
    ),
]
FormatOption = Annotated[
    Format,
    typer.Option(
        "--format", help="A table for people, or one JSON document on stdout.", case_sensitive=False
    ),
]
RowsFormatOption = Annotated[
    RowsFormat,
    typer.Option("--format", case_sensitive=False, help="A table, one JSON document, or CSV."),
]
StartDateOption = Annotated[
    str | None,
    typer.Option(metavar="YYYY-MM-DD", help="First day, UTC. Default: the first there is."),
]
EndDateOption = Annotated[
    str | None,
    typer.Option(metavar="YYYY-MM-DD", help="Last day, UTC, included. Default: the last there is."),
]
RequestIdOption = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        callback=refuse_empty_id,
        help="Names the request: the same one again starts nothing twice. Default: made up.",
    ),
]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="Do not watch; print the operation and leave.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Put a value in place of the strategy's, for example model.training.epochs=20. "
        "Repeatable.",
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE.png", help="Save loss and accuracy as a picture."),
]
OperationId = Annotated[
    str, typer.Argument(metavar="ID", help="The operation, as `ktrdr operations list` shows it.")
]


def backend_argument(address: str) -> str:
    """What a suggested command needs besides to reach the same backend; often nothing."""
    without = os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    return "" if address == without else f" --backend {address}"


def split_names(
    option: str,
    text: str | None,
    otherwise: str = ", or leave the option out to use the strategy's",
) -> tuple[str, ...]:
    """Read a comma-separated list of names; None is empty.

    `otherwise` ends the sentence that says what to write instead.

    Raises typer.BadParameter if there is no name between two commas.
    """
    if text is None:
        return ()
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise typer.BadParameter(
            f"{text!r} has an empty name; write names with commas between them, for example "
            f"A,B{otherwise}.",
            param_hint=f"'{option}'",
        )
    return names


def split_assignments(texts: Sequence[str] | None) -> dict[str, str]:
    """Read PATH=VALUE settings.

    Raises typer.BadParameter for one without path or "=", and for a path given twice.
    """
    settings: dict[str, str] = {}
    for text in texts or ():
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise typer.BadParameter(
                f"{text!r} is not PATH=VALUE; write for example model.training.epochs=20.",
                param_hint="'--set'",
            )
        if path.strip() in settings:
            raise typer.BadParameter(
                f"{path.strip()} is given twice; keep one of them.", param_hint="'--set'"
            )
        settings[path.strip()] = value.strip()
    return settings


def read_strategy(path: Path, hint: str) -> str:
    """The text of a strategy file; `hint` names the option or argument in errors."""
    from shared.rpc.limits import MIB, MOST_STRATEGY_BYTES

    try:
        with path.open("rb") as file:
            data = file.read(MOST_STRATEGY_BYTES + 1)
        if len(data) > MOST_STRATEGY_BYTES:
            raise typer.BadParameter(
                f"{path} is larger than the {MOST_STRATEGY_BYTES // MIB} MiB a strategy can have.",
                param_hint=f"'{hint}'",
            )
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(
            f"{path} is not a text file in UTF-8 (byte {error.start}); name a YAML file.",
            param_hint=f"'{hint}'",
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise typer.BadParameter(
            f"{path} cannot be read ({reason}); name a YAML file that exists and may be read.",
            param_hint=f"'{hint}'",
        ) from error


def check_plot(path: Path | None) -> Path | None:
    """Refuse a picture that could not be saved, before any work is begun."""
    if path is None:
        return None
    if path.suffix.lower() != ".png":
        problem = f"{path} does not end in .png; pictures are saved as PNG."
    elif path.is_dir():
        problem = f"{path} is a folder; name a file in it."
    elif not path.parent.is_dir():
        problem = f"there is no folder {path.parent}; create it or choose another."
    else:
        return path
    raise typer.BadParameter(problem, param_hint="'--plot'")


def check_seconds(option: str, value: float | None) -> float | None:
    """Refuse a number of seconds that is negative, infinite or not a number."""
    if value is not None and not (math.isfinite(value) and 0 <= value <= 1e9):
        raise typer.BadParameter(
            f"{value} is not a number of seconds; write 0 or more, for example 2.5.",
            param_hint=f"'{option}'",
        )
    return value
