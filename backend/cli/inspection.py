"""Reading operations and their metrics once."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from backend.cli.client import Backend
from backend.cli.console import counted, note, stdout_console
from backend.cli.displays import print_metrics_table, why_stale
from backend.cli.documents import print_document
from backend.cli.metric_rows import write_csv
from backend.cli.options import Format, RowsFormat
from backend.cli.table_layout import print_table
from backend.cli.tables import operations_table, print_operation
from ktrdr.operations.v1 import operation_pb2, operations_service_pb2


@dataclass(frozen=True, slots=True)
class Filters:
    """Which operations to list; empty lets all through."""

    active: bool = False
    statuses: tuple[str, ...] = ()
    """Names of states, without prefix."""
    types: tuple[str, ...] = ()
    """Names of types, without prefix."""


def list_operations(address: str, filters: Filters, limit: int, output: Format) -> None:
    """Print the newest operations."""
    statuses, types = operation_pb2.OperationStatus, operation_pb2.OperationType
    request = operations_service_pb2.ListOperationsRequest(
        active_only=filters.active,
        statuses=[statuses.Value(f"OPERATION_STATUS_{name}") for name in filters.statuses],
        types=[types.Value(f"OPERATION_TYPE_{name}") for name in filters.types],
    )
    with Backend(address) as backend:
        found = backend.list_operations(request, limit)
    if output is Format.JSON:
        print_document(found)
        return
    if found.operations:
        print_table(stdout_console(), operations_table(found.operations))
    shown, total = len(found.operations), found.total_count
    part = f"{shown} of " if shown < total else ""
    count = counted(max(shown, total), "operation")
    note(f"{part}{count}; {found.active_count} active in all.")
    for host in found.unreachable:
        note(f"{host} did not answer; its operations are as last known.")
    for reason in dict.fromkeys(filter(None, map(why_stale, found.operations))):
        note(f"? as last known: {reason}")


def get_operation(
    address: str, operation_id: str, refresh: bool, max_staleness: float | None, output: Format
) -> None:
    """Print one operation."""
    with Backend(address) as backend:
        operation = backend.get_operation(
            operation_id, force_refresh=refresh, max_staleness=max_staleness
        ).operation
    if output is Format.JSON:
        print_document(operation)
    else:
        print_operation(stdout_console(), operation)


def print_metrics(address: str, operation_id: str, cursor: int, output: RowsFormat) -> None:
    """Print the metrics of an operation from the cursor on, all pages."""
    with Backend(address) as backend:
        found = backend.get_metrics(operation_id, cursor)
    if found.freshness.HasField("refresh_error") and output is not RowsFormat.JSON:
        note(f"As last known: {found.freshness.refresh_error.message}")
    if output is RowsFormat.JSON:
        print_document(found)
    elif output is RowsFormat.CSV:
        write_csv(found.metrics, sys.stdout)
    elif found.metrics:
        print_metrics_table(stdout_console(), found.metrics)
    else:
        note(f"{operation_id} has no metrics from {cursor} on.")
