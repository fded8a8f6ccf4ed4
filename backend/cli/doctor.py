"""The doctor: one look at everything that is open, and what to do where it is not well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.cli.client import Backend
from backend.cli.console import counted, note, stdout_console
from backend.cli.diagnosis import diagnose
from backend.cli.documents import print_document
from backend.cli.examination import examine
from backend.cli.failures import ExitCode
from backend.cli.figures import seconds_of
from backend.cli.options import Format, backend_argument
from backend.cli.pace import Pace
from backend.cli.signs import Diagnosis, Remedy, Sign
from backend.cli.table_layout import print_table
from ktrdr.operations.v1 import operation_pb2

_STYLES = {"UNKNOWN": "yellow", "ALIVE": "green", "ANSWERS": "green", "STEADY": "green"}


def see_doctor(
    address: str, pace: Pace, *, stale_after: float, quiet: bool, output: Format
) -> ExitCode:
    """Look once and tell; FAILED if somebody should look after something.

    `stale_after` is how long a worker may say nothing, whatever its pace, in
    seconds. `quiet` leaves out what is well.
    """
    with Backend(address) as backend:
        found = [diagnose(one, stale_after) for one in examine(backend, pace)]
    wrong = [diagnosis for diagnosis in found if diagnosis.wrong]
    shown = wrong if quiet else found
    if output is Format.JSON:
        operations = [_document(diagnosis, address) for diagnosis in shown]
        print_document({"healthy": not wrong, "operations": operations})
    else:
        _print(stdout_console(), shown, address)
        if not quiet:
            note(_summary(len(found), len(wrong)))
    return ExitCode.FAILED if wrong else ExitCode.DONE


def _print(console: Console, shown: Sequence[Diagnosis], address: str) -> None:
    if shown:
        print_table(console, _table(shown))
    for line in _findings(shown, address):
        console.print(line, soft_wrap=True)


def _table(shown: Sequence[Diagnosis]) -> Table:
    """A row per operation; fits 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("operation", "host", "worker", "progress", "next step"):
        table.add_column(heading, no_wrap=True)
    for diagnosis in shown:
        remedy = diagnosis.remedy
        cells = (_cell(sign) for sign in diagnosis.signs)
        table.add_row(
            diagnosis.operation.operation_id, *cells, "-" if remedy is None else remedy.action
        )
    return table


def _cell(sign: Sign) -> Text:
    return Text(sign.text, style="bold red" if sign.wrong else _STYLES.get(sign.state, ""))


def _findings(shown: Sequence[Diagnosis], address: str) -> Iterator[str]:
    """What is wrong, each thing once, and below it what to do."""
    found: dict[tuple[str, ...], list[str]] = {}
    for diagnosis in shown:
        operation_id = diagnosis.operation.operation_id
        for sign in diagnosis.signs:
            if not sign.wrong:
                continue
            # What is wrong with a host is wrong for all that it runs.
            whose = "" if sign is diagnosis.host else f"{operation_id}: "
            steps = _steps(sign, address)
            found.setdefault((f"{whose}{sign.why}", *steps), []).append(operation_id)
    for (what, *steps), ids in found.items():
        yield ""
        yield f"{what} ({len(ids)} operations)" if len(ids) > 1 else what
        yield from (f"  {step}" for step in steps)


def _steps(sign: Sign, address: str) -> list[str]:
    """What to do, as a sentence and, if there is one, as a command."""
    if sign.remedy is None:
        return []
    return [step for step in (sign.remedy.advice, _typed(sign.remedy, address)) if step]


def _typed(remedy: Remedy, address: str) -> str:
    return remedy.command and f"{remedy.command}{backend_argument(address)}"


def _summary(count: int, wrong: int) -> str:
    if not count:
        return "Nothing waits or runs."
    told = counted(count, "open operation")
    return f"{told}; {wrong} to look after." if wrong else f"{told}; all is well."


def _document(diagnosis: Diagnosis, address: str) -> dict[str, Any]:
    operation, remedy = diagnosis.operation, diagnosis.remedy
    step = remedy and {
        "action": remedy.action,
        "advice": remedy.advice,
        "command": _typed(remedy, address),
    }
    return {
        "operationId": operation.operation_id,
        "type": _name(operation_pb2.OperationType, operation.type),
        "status": _name(operation_pb2.OperationStatus, operation.status),
        "ageSeconds": seconds_of(operation.freshness.age),
        "wrong": diagnosis.wrong,
        "host": _sign_document(diagnosis.host),
        "worker": _sign_document(diagnosis.worker),
        "progress": _sign_document(diagnosis.progress),
        "nextStep": step,
    }


def _sign_document(sign: Sign) -> dict[str, Any]:
    return {"state": sign.state, "wrong": sign.wrong, "why": sign.why, **sign.facts}


def _name(enum: Any, number: int) -> str | int:
    """The value's name, as in the JSON of messages; one newer than this command as its number."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return number if value is None else str(value.name)
