"""Forgetting finished operations, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.cli.client import Backend
from backend.cli.console import note, stdout_console
from backend.cli.documents import print_document
from backend.cli.failures import ExitCode, RpcFailedError
from backend.cli.options import Format, backend_argument

_ACTIVE = "OPERATION_ACTIVE"


@dataclass(slots=True)
class _Outcome:
    """What has become of the operations that were named."""

    deleted: list[str] = field(default_factory=list)
    refused: dict[str, RpcFailedError] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """DONE if all are gone; how the others failed, if none is and all failed alike."""
        codes = {error.exit_code for error in self.refused.values()}
        if ExitCode.UNREACHABLE in codes:
            return ExitCode.UNREACHABLE
        if len(codes) == 1 and not self.deleted:
            return codes.pop()
        return ExitCode.FAILED if codes else ExitCode.DONE


def delete_operations(address: str, operation_ids: Sequence[str], output: Format) -> ExitCode:
    """Delete each of the operations and say what became of it."""
    outcome = _Outcome()
    with Backend(address) as backend:
        for operation_id in dict.fromkeys(operation_ids):
            try:
                _delete(backend, operation_id, outcome)
            except RpcFailedError as error:
                outcome.refused[operation_id] = error
    if output is Format.JSON:
        print_document(_document(outcome))
    else:
        _print(outcome, address)
    return outcome.exit_code


def _delete(backend: Backend, operation_id: str, outcome: _Outcome) -> None:
    """Delete one; a backend that is gone is not asked for the others."""
    for error in outcome.refused.values():
        if not error.reason:
            raise error
    backend.delete_operation(operation_id)
    outcome.deleted.append(operation_id)


def _print(outcome: _Outcome, address: str) -> None:
    console = stdout_console()
    for operation_id in outcome.deleted:
        console.print(f"Deleted {operation_id}", soft_wrap=True)
    if outcome.deleted:
        note("The models and bars that the work has made are not touched.")
    for operation_id, error in outcome.refused.items():
        note(f"Not deleted: {operation_id or repr('')}: {error.message}")
        for detail in error.details:
            note(f"  - {detail}")
        if error.reason == _ACTIVE:
            typed = f"{operation_id} --wait{backend_argument(address)}"
            note(f"  Stop it first: ktrdr operations cancel {typed}")
    hints = dict.fromkeys(error.hint for error in outcome.refused.values() if error.hint)
    for hint in hints:
        note(hint)


def _document(outcome: _Outcome) -> dict[str, object]:
    refused = [
        {
            "operationId": operation_id,
            "reason": error.reason,
            "message": error.told or error.message,
        }
        for operation_id, error in outcome.refused.items()
    ]
    return {"deleted": outcome.deleted, "refused": refused}
