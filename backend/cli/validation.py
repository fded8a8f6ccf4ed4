"""Checking a strategy file without a backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backend.cli.console import counted, note, stdout_console
from backend.cli.documents import print_document
from backend.cli.failures import ExitCode
from backend.cli.options import Format
from shared.rpc.errors import InvalidArgumentError
from shared.training.strategy import load_strategy


def validate_strategy(
    path: Path, text: str, overrides: Mapping[str, str], output: Format
) -> ExitCode:
    """Check a strategy and print each fault; USAGE if there is one."""
    try:
        strategy = load_strategy(text, dict(overrides))
    except InvalidArgumentError as error:
        return _print_faults(path, error, output)
    if output is Format.JSON:
        print_document({"valid": True, "name": strategy.name, "violations": []})
    else:
        stdout_console().print(f"{path} is valid: strategy {strategy.name}.", soft_wrap=True)
    return ExitCode.DONE


def _print_faults(path: Path, error: InvalidArgumentError, output: Format) -> ExitCode:
    if output is Format.JSON:
        faults = [{"field": v.field, "description": v.description} for v in error.violations]
        print_document({"valid": False, "violations": faults})
        return ExitCode.USAGE
    faults_text = counted(len(error.violations), "fault")
    note(f"Error: {path} is not a valid strategy ({faults_text}):")
    for violation in error.violations:
        note(f"  - {violation}")
    return ExitCode.USAGE
