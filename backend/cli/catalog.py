"""Reading the models that a backend and its hosts hold."""

from __future__ import annotations

from backend.cli.client import Backend
from backend.cli.console import counted, note, stdout_console
from backend.cli.documents import print_document
from backend.cli.failures import CommandError, ExitCode, RpcFailedError
from backend.cli.options import Format, backend_argument
from backend.cli.table_layout import print_table
from backend.cli.tables import models_table, print_model


def list_models(address: str, limit: int, output: Format) -> None:
    """Print the newest models."""
    with Backend(address) as backend:
        found = backend.list_models(limit)
    if output is Format.JSON:
        print_document(found)
        return
    if found.models:
        print_table(stdout_console(), models_table(found.models))
    shown, total = len(found.models), found.total_count
    part = f"{shown} of " if shown < total else ""
    note(f"{part}{counted(max(shown, total), 'model')}.")
    for name in found.unreadable:
        note(f"{name} could not be read; look into its folder.")
    for host in found.unreachable:
        note(f"{host} did not answer; its models are missing here.")


def show_model(address: str, name: str, instance: str, output: Format) -> None:
    """Print one model; `instance` tells it from others of the same name."""
    with Backend(address) as backend:
        try:
            model = backend.get_model(name, instance)
        except RpcFailedError as error:
            raise _explained(error, name, backend_argument(address)) from error
    if output is Format.JSON:
        print_document(model)
    else:
        print_model(stdout_console(), model)


def _explained(error: RpcFailedError, name: str, backend: str) -> CommandError:
    """The error; of an ambiguous name with the way to tell the models apart."""
    if error.reason != "MODEL_AMBIGUOUS":
        return error
    return CommandError(
        error.message,
        exit_code=ExitCode.USAGE,
        hint=f"`ktrdr models list{backend}` shows who holds which. Name one, the beginning of its "
        f"id is enough: ktrdr models show {name} --instance ID{backend}",
    )
