"""The standard front door: google.longrunning.Operations, for clients that know no ktrdr.

Each method is the contract's own, asked and answered in the standard's words.
"""

from __future__ import annotations

import grpc
from google.longrunning import operations_pb2 as lro
from google.longrunning import operations_pb2_grpc
from google.protobuf.empty_pb2 import Empty

from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations import conversion
from shared.operations.filter_expression import filter_of
from shared.operations.longrunning_conversion import COLLECTION, id_in, to_longrunning
from shared.operations.servicer import OperationsServicer
from shared.rpc.admission import WAIT
from shared.rpc.errors import InvalidArgumentError
from shared.rpc.server import ServedService

SERVICE_NAME = "google.longrunning.Operations"


class LongrunningServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc]  # without stubs, it is Any
    """Serves google.longrunning.Operations in front of the contract's servicer."""

    def __init__(self, operations: OperationsServicer) -> None:
        self._operations = operations

    def GetOperation(  # noqa: N802  # the standard's name
        self, request: lro.GetOperationRequest, context: grpc.ServicerContext
    ) -> lro.Operation:
        """Answer with an operation, as fresh as the cache's TTL demands."""
        asked = pb.GetOperationRequest(operation_id=self._operation_id(request.name))
        return to_longrunning(self._operations.GetOperation(asked, context).operation)

    def ListOperations(  # noqa: N802  # the standard's name
        self, request: lro.ListOperationsRequest, context: grpc.ServicerContext
    ) -> lro.ListOperationsResponse:
        """Answer with one page of operations, newest first.

        Those whose host does not answer are in it as last known, so a page is
        always whole; the hosts are named if the caller wants to know.
        """
        if request.name not in {"", COLLECTION}:
            raise InvalidArgumentError.of("name", f"must be {COLLECTION!r}, or left empty")
        wanted = filter_of(request.filter)
        if wanted is None:
            return lro.ListOperationsResponse()
        asked = pb.ListOperationsRequest(
            statuses=[conversion.STATUS_TO_PROTO[status] for status in wanted.statuses],
            types=[conversion.TYPE_TO_PROTO[type_] for type_ in wanted.types],
            page_size=request.page_size,
            page_token=request.page_token,
        )
        listed = self._operations.ListOperations(asked, context)
        return lro.ListOperationsResponse(
            operations=map(to_longrunning, listed.operations),
            next_page_token=listed.next_page_token,
            unreachable=listed.unreachable if request.return_partial_success else (),
        )

    def CancelOperation(  # noqa: N802  # the standard's name
        self, request: lro.CancelOperationRequest, context: grpc.ServicerContext
    ) -> Empty:
        """Ask an operation to stop."""
        asked = pb.CancelOperationRequest(operation_id=self._operation_id(request.name))
        self._operations.CancelOperation(asked, context)
        return Empty()

    def WaitOperation(  # noqa: N802  # the standard's name
        self, request: lro.WaitOperationRequest, context: grpc.ServicerContext
    ) -> lro.Operation:
        """Answer when the operation has ended or the time is up; fail if there is no room to wait.

        The standard cannot say in an answer when to come back, only in an error.
        """
        timeout = conversion.seconds(request.timeout) if request.HasField("timeout") else None
        operation_id = self._operation_id(request.name)
        return to_longrunning(self._operations.wait_in_place(operation_id, timeout, context))

    def DeleteOperation(  # noqa: N802  # the standard's name
        self, request: lro.DeleteOperationRequest, context: grpc.ServicerContext
    ) -> Empty:
        """Forget a finished operation."""
        asked = pb.DeleteOperationRequest(operation_id=self._operation_id(request.name))
        self._operations.DeleteOperation(asked, context)
        return Empty()

    def _operation_id(self, name: str) -> str:
        operation_id, longest = id_in(name), self._operations.limits.operation_id
        if not operation_id:
            raise InvalidArgumentError.of("name", f"is required: {COLLECTION}/OPERATION_ID")
        if len(operation_id) > longest:
            text = f"must name an operation_id of at most {longest} characters"
            raise InvalidArgumentError.of("name", text)
        return operation_id


def longrunning_service(operations: OperationsServicer) -> ServedService:
    """The standard service as every process serves it, in front of the contract's servicer."""
    return ServedService(
        SERVICE_NAME,
        LongrunningServicer(operations),
        operations_pb2_grpc.add_OperationsServicer_to_server,
        {"WaitOperation": WAIT},  # as the contract's own
        reads=frozenset({"GetOperation", "ListOperations", "WaitOperation"}),
    )
