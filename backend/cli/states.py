"""The states of an operation, in the words and exit codes of the command."""

from __future__ import annotations

from backend.cli.failures import ExitCode
from ktrdr.marketdata.v1 import bar_pb2
from ktrdr.operations.v1 import operation_pb2

_OUTCOMES = {
    operation_pb2.OPERATION_STATUS_COMPLETED: ExitCode.DONE,
    operation_pb2.OPERATION_STATUS_FAILED: ExitCode.FAILED,
    operation_pb2.OPERATION_STATUS_CANCELLED: ExitCode.CANCELLED,
}
STYLES = {
    "COMPLETED": "green",
    "FAILED": "bold red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "RUNNING": "cyan",
}
"""Colours of the states that have one."""


def is_terminal(operation: operation_pb2.Operation) -> bool:
    """Whether the operation has ended."""
    return operation.status in _OUTCOMES


def outcome(operation: operation_pb2.Operation) -> ExitCode:
    """The exit code that says how an operation ended; UNFINISHED if it has not.

    A load that could not load every symbol asked for is COMPLETED, but not DONE.
    """
    load = load_result(operation)
    if load is not None and load.symbols_failed:
        return ExitCode.FAILED
    return _OUTCOMES.get(operation.status, ExitCode.UNFINISHED)


def load_result(operation: operation_pb2.Operation) -> bar_pb2.DataLoadResult | None:
    """The result of a completed load; None for anything else."""
    result = bar_pb2.DataLoadResult()
    return result if operation.result.Unpack(result) else None


def status_name(operation: operation_pb2.Operation) -> str:
    """The state as one word; a state newer than this command as its number."""
    return _enum_name(operation_pb2.OperationStatus.DESCRIPTOR, operation.status, "STATUS")


def type_name(operation: operation_pb2.Operation) -> str:
    """The type as one word; a type newer than this command as its number."""
    return _enum_name(operation_pb2.OperationType.DESCRIPTOR, operation.type, "TYPE")


def _enum_name(descriptor: object, number: int, what: str) -> str:
    value = getattr(descriptor, "values_by_number", {}).get(number)
    prefix = f"OPERATION_{what}_"
    return value.name.removeprefix(prefix) if value else f"{what}_{number}"
