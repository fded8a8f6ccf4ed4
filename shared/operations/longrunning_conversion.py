"""From the contract's operations to those of google.longrunning; nothing is lost on the way."""

from __future__ import annotations

from google.longrunning import operations_pb2 as lro
from google.rpc import error_details_pb2, status_pb2

from ktrdr.operations.v1 import operation_pb2 as pb
from shared.operations.conversion import STATUS_FROM_PROTO
from shared.rpc.errors import Code
from shared.rpc.status import DOMAIN

COLLECTION = "operations"
"""The parent of all operations; their names are `operations/{operation_id}`."""


def to_longrunning(operation: pb.Operation) -> lro.Operation:
    """Convert an operation; its `metadata` is the whole of it, packed."""
    converted = lro.Operation(
        name=f"{COLLECTION}/{operation.operation_id}",
        done=STATUS_FROM_PROTO[operation.status].terminal,
    )
    converted.metadata.Pack(operation)
    outcome = operation.WhichOneof("outcome")
    if outcome == "result":
        converted.response.CopyFrom(operation.result)
    elif outcome == "error":
        converted.error.CopyFrom(_status(operation))
    return converted


def id_in(name: str) -> str:
    """The operation_id in a name, which may also be the bare id."""
    return name.removeprefix(f"{COLLECTION}/")


def _status(operation: pb.Operation) -> status_pb2.Status:
    """Why it failed, or CANCELLED, as the standard has it, whatever was on its way out."""
    error = operation.error
    cancelled = operation.status == pb.OPERATION_STATUS_CANCELLED
    status = status_pb2.Status(
        code=Code.CANCELLED if cancelled else error.code, message=error.message
    )
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata)
    )
    status.details.add().Pack(info)
    return status
