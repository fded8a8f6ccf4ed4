"""The backend as the command sees it: one method per RPC, each with a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from google.protobuf import duration_pb2
from google.protobuf.message import Message

from backend.cli.connection import Connection
from ktrdr.operations.v1 import operation_pb2, operations_service_pb2, operations_service_pb2_grpc
from ktrdr.training.v1 import (
    model_pb2,
    models_service_pb2,
    models_service_pb2_grpc,
    training_service_pb2,
    training_service_pb2_grpc,
)

DEADLINE = 10.0
"""Seconds within which a call must be answered."""
START_DEADLINE = 30.0
"""Seconds for StartTraining, which reads prices to check the request."""
LONGEST_WAIT = 30.0
"""Seconds that one WaitOperation may wait."""
_PAGE = 500


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as protobuf writes them."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


class Backend:
    """The backend at one address; every method raises RpcFailedError."""

    def __init__(self, address: str) -> None:
        """Raises CommandError if certificates or token of the environment cannot be used."""
        self.address = address
        self._connection = Connection(address)
        channel = self._connection.channel
        self._operations = operations_service_pb2_grpc.OperationsServiceStub(channel)
        self._training = training_service_pb2_grpc.TrainingServiceStub(channel)
        self._models = models_service_pb2_grpc.ModelsServiceStub(channel)

    def __enter__(self) -> Self:
        """Use the connection in a with statement, which closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._connection.channel.close()

    def start_training(
        self, request: training_service_pb2.StartTrainingRequest
    ) -> operation_pb2.Operation:
        """Start a training, or find the one the same request_id has started."""
        response: training_service_pb2.StartTrainingResponse = self._call(
            self._training.StartTraining, request, START_DEADLINE
        )
        return response.operation

    def get_operation(
        self,
        operation_id: str,
        *,
        metrics_cursor: int | None = None,
        force_refresh: bool = False,
        max_staleness: float | None = None,
        deadline: float = DEADLINE,
    ) -> operations_service_pb2.GetOperationResponse:
        """Look at an operation and, with a cursor, at the metrics since then."""
        request = operations_service_pb2.GetOperationRequest(
            operation_id=operation_id,
            force_refresh=force_refresh,
            max_staleness=None if max_staleness is None else duration(max_staleness),
            metrics_cursor=metrics_cursor,
        )
        response: operations_service_pb2.GetOperationResponse = self._call(
            self._operations.GetOperation, request, deadline
        )
        return response

    def get_metrics(
        self, operation_id: str, cursor: int
    ) -> operations_service_pb2.GetMetricsResponse:
        """All metrics from the cursor on, page after page, as one response."""
        whole = operations_service_pb2.GetMetricsResponse(new_cursor=cursor)
        while True:
            request = operations_service_pb2.GetMetricsRequest(
                operation_id=operation_id, cursor=whole.new_cursor
            )
            page: operations_service_pb2.GetMetricsResponse = self._call(
                self._operations.GetMetrics, request
            )
            whole.metrics.extend(page.metrics)
            whole.new_cursor = page.new_cursor
            whole.freshness.CopyFrom(page.freshness)
            if not (page.has_more and page.metrics):
                return whole

    def list_operations(
        self, request: operations_service_pb2.ListOperationsRequest, limit: int
    ) -> operations_service_pb2.ListOperationsResponse:
        """The newest `limit` operations that the request's filters let through."""
        whole = operations_service_pb2.ListOperationsResponse()
        while True:
            request.page_size = min(limit - len(whole.operations), _PAGE)
            request.page_token = whole.next_page_token
            page: operations_service_pb2.ListOperationsResponse = self._call(
                self._operations.ListOperations, request
            )
            whole.operations.extend(page.operations)
            whole.next_page_token = page.next_page_token
            whole.total_count, whole.active_count = page.total_count, page.active_count
            whole.unreachable.extend(set(page.unreachable) - set(whole.unreachable))
            whole.instance, whole.incarnation = page.instance, page.incarnation
            if not page.next_page_token or len(whole.operations) >= limit:
                return whole

    def cancel_operation(
        self, operation_id: str, reason: str, *, give_up: bool = False
    ) -> operation_pb2.Operation:
        """Ask an operation to stop; with `give_up`, end it if its owner does not answer."""
        request = operations_service_pb2.CancelOperationRequest(
            operation_id=operation_id, reason=reason, give_up=give_up
        )
        response: operations_service_pb2.CancelOperationResponse = self._call(
            self._operations.CancelOperation, request
        )
        return response.operation

    def delete_operation(self, operation_id: str) -> None:
        """Forget a finished operation."""
        request = operations_service_pb2.DeleteOperationRequest(operation_id=operation_id)
        self._call(self._operations.DeleteOperation, request)

    def wait_operation(
        self, operation_id: str, timeout: float
    ) -> operations_service_pb2.WaitOperationResponse:
        """Wait for an operation's end for at most LONGEST_WAIT seconds."""
        timeout = min(timeout, LONGEST_WAIT)
        request = operations_service_pb2.WaitOperationRequest(
            operation_id=operation_id, timeout=duration(timeout)
        )
        response: operations_service_pb2.WaitOperationResponse = self._call(
            self._operations.WaitOperation, request, timeout + DEADLINE
        )
        return response

    def get_model(self, name: str, instance: str = "") -> model_pb2.Model:
        """One model; with `instance` that of the process whose id begins like this."""
        request = models_service_pb2.GetModelRequest(name=name, instance=instance)
        response: models_service_pb2.GetModelResponse = self._call(self._models.GetModel, request)
        return response.model

    def list_models(self, limit: int) -> models_service_pb2.ListModelsResponse:
        """The newest `limit` models."""
        whole = models_service_pb2.ListModelsResponse()
        while True:
            request = models_service_pb2.ListModelsRequest(
                page_size=min(limit - len(whole.models), _PAGE), page_token=whole.next_page_token
            )
            page: models_service_pb2.ListModelsResponse = self._call(
                self._models.ListModels, request
            )
            whole.models.extend(page.models)
            whole.next_page_token, whole.total_count = page.next_page_token, page.total_count
            whole.unreadable.extend(set(page.unreadable) - set(whole.unreadable))
            whole.unreachable.extend(set(page.unreachable) - set(whole.unreachable))
            if not page.next_page_token or len(whole.models) >= limit:
                return whole

    def _call(
        self, method: Callable[..., Any], request: Message, deadline: float = DEADLINE
    ) -> Any:
        return self._connection.call(method, request, deadline)
