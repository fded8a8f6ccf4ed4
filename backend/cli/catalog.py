"""Reading the models a backend holds."""

from __future__ import annotations

from backend.cli.client import Backend
from backend.cli.console import counted, note, stdout_console
from backend.cli.documents import print_document
from backend.cli.options import Format
from backend.cli.tables import models_table, print_model


def list_models(address: str, limit: int, output: Format) -> None:
    """Print the newest models."""
    with Backend(address) as backend:
        found = backend.list_models(limit)
    if output is Format.JSON:
        print_document(found)
        return
    if found.models:
        stdout_console().print(models_table(found.models))
    shown, total = len(found.models), found.total_count
    part = f"{shown} of " if shown < total else ""
    note(f"{part}{counted(max(shown, total), 'model')}.")
    for name in found.unreadable:
        note(f"{name} could not be read; look into its folder.")


def show_model(address: str, name: str, output: Format) -> None:
    """Print one model."""
    with Backend(address) as backend:
        model = backend.get_model(name)
    if output is Format.JSON:
        print_document(model)
    else:
        print_model(stdout_console(), model)
