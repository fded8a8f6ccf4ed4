"""The gRPC face of the operations service: messages in, messages out, nothing else.

Errors are raised, never caught: an interceptor maps them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from math import inf
from typing import TypeVar

import grpc

from ktrdr.operations.v1 import operation_pb2, operations_service_pb2_grpc
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.clock import Clock, SystemClock
from shared.operations import conversion
from shared.operations.model import ACTIVE_STATUSES, OperationStatus, OperationType
from shared.operations.service import OperationsService
from shared.operations.store import OperationFilter, SortKey
from shared.operations.views import OperationView
from shared.operations.waiting import Waiter
from shared.rpc.admission import WAIT
from shared.rpc.deadline import deadline_of
from shared.rpc.errors import FieldViolation, InvalidArgumentError
from shared.rpc.handed_call import Answer
from shared.rpc.limits import RequestLimits
from shared.rpc.paging import decode_time, decode_token, encode_token, fitting, page_size
from shared.rpc.server import ServedService
from shared.rpc.via import passed

DEFAULT_WAIT = 30.0
WaitedT = TypeVar("WaitedT")
_MAX_FILTERS = 100
"""The most states, and the most types, of one request: far more than there are."""


class OperationsServicer(operations_service_pb2_grpc.OperationsServiceServicer):
    """Serves ktrdr.operations.v1.OperationsService from an OperationsService."""

    def __init__(
        self,
        operations: OperationsService,
        clock: Clock | None = None,
        limits: RequestLimits | None = None,
    ) -> None:
        self._operations = operations
        self.limits = limits or RequestLimits()
        self._messages = conversion.OperationMessages()
        self._clock = clock or SystemClock()

    def GetOperation(  # noqa: N802  # the contract's name
        self, request: pb.GetOperationRequest, context: grpc.ServicerContext
    ) -> pb.GetOperationResponse:
        """Answer with a snapshot and, if asked, the metrics since a cursor."""
        self._check_operation_id(request.operation_id)
        _check_cursor("metrics_cursor", request.metrics_cursor)
        view = self._operations.get_operation(
            request.operation_id,
            max_staleness=_staleness(request),
            metrics_cursor=request.metrics_cursor,
            metrics_limit=self._metrics_limit(request),
            deadline=deadline_of(context, self._clock),
        )
        return self._answer(request, view)

    def prepare(self, request: pb.GetOperationRequest) -> Answer | None:
        """What GetOperation answers with if nothing has to be waited for, else None.

        Raises nothing that GetOperation would not.
        """
        _check_cursor("metrics_cursor", request.metrics_cursor)
        view = self._operations.get_at_once(
            request.operation_id,
            max_staleness=_staleness(request),
            metrics_cursor=request.metrics_cursor,
            metrics_limit=self._metrics_limit(request),
        )
        return None if view is None else partial(self._answer, request, view)

    def _metrics_limit(self, request: pb.GetOperationRequest) -> int:
        return self.limits.page_metrics if request.HasField("metrics_cursor") else 0

    def _answer(
        self, request: pb.GetOperationRequest, view: OperationView
    ) -> pb.GetOperationResponse:
        """What GetOperation answers with."""
        wants_metrics = request.HasField("metrics_cursor")
        response = pb.GetOperationResponse()
        self._messages.fill(response.operation, view)
        if wants_metrics:
            count = view.operation.metrics_count
            page = conversion.metrics_page(view.metrics, self.limits.page_bytes)
            self._operations.monitor.pulled(lambda: _size(page))
            response.metrics.extend(page)
            response.new_cursor = min(request.metrics_cursor + len(page), count)
            response.has_more = response.new_cursor < count
        if view.operation.status.terminal and not response.has_more:
            self._operations.note_told(view.operation.operation_id, passed())
        return response

    def GetMetrics(  # noqa: N802  # the contract's name
        self, request: pb.GetMetricsRequest, context: grpc.ServicerContext
    ) -> pb.GetMetricsResponse:
        """Answer with one page of the metrics log."""
        self._check_operation_id(request.operation_id)
        _check_cursor("cursor", request.cursor)
        limit = page_size(request.page_size, default=500, largest=self.limits.page_metrics)
        view = self._operations.get_metrics(
            request.operation_id,
            request.cursor,
            limit,
            deadline=deadline_of(context, self._clock),
        )
        page = conversion.metrics_page(view.metrics, self.limits.page_bytes)
        self._operations.monitor.pulled(lambda: _size(page))
        new_cursor = request.cursor + len(page)
        return pb.GetMetricsResponse(
            metrics=page,
            new_cursor=new_cursor,
            has_more=new_cursor < view.operation.metrics_count,
            freshness=conversion.freshness_to_proto(view.freshness),
        )

    def ListOperations(  # noqa: N802  # the contract's name
        self, request: pb.ListOperationsRequest, context: grpc.ServicerContext
    ) -> pb.ListOperationsResponse:
        """Answer with one page of operations, newest first."""
        wanted = _filter(request)
        limit = page_size(request.page_size, default=50, largest=self.limits.page_rows)
        page = self._operations.list_operations(
            wanted, _after(request), limit, deadline=deadline_of(context, self._clock)
        )
        rows = fitting(map(conversion.view_to_proto, page.views), self.limits.page_bytes)
        after = page.next_after
        if len(rows) < len(page.views):
            last = page.views[len(rows) - 1].operation
            after = (last.create_time, last.operation_id)
        return pb.ListOperationsResponse(
            operations=rows,
            next_page_token=_token(after, request),
            total_count=page.total_count,
            active_count=page.active_count,
            unreachable=page.unreachable,
            instance=self._operations.owner.instance_id,
            incarnation=self._operations.owner.incarnation,
        )

    def CancelOperation(  # noqa: N802  # the contract's name
        self, request: pb.CancelOperationRequest, context: grpc.ServicerContext
    ) -> pb.CancelOperationResponse:
        """Ask an operation to stop and answer with it."""
        self._check_operation_id(request.operation_id)
        if len(request.reason) > self.limits.cancel_reason:
            text = f"must be at most {self.limits.cancel_reason} characters"
            raise InvalidArgumentError.of("reason", text)
        view = self._operations.cancel_operation(
            request.operation_id,
            request.reason,
            give_up=request.give_up,
            deadline=deadline_of(context, self._clock),
        )
        return pb.CancelOperationResponse(operation=conversion.view_to_proto(view))

    def WaitOperation(  # noqa: N802  # the contract's name
        self, request: pb.WaitOperationRequest, context: grpc.ServicerContext
    ) -> pb.WaitOperationResponse:
        """Answer when the operation has ended or the time is up."""
        timeout = DEFAULT_WAIT
        if request.HasField("timeout"):
            timeout = conversion.seconds(request.timeout)
        view, retry_after = self._waited(
            self._operations.wait_operation, request.operation_id, timeout, context
        )
        response = pb.WaitOperationResponse(operation=conversion.view_to_proto(view))
        if retry_after is not None:
            response.retry_after.CopyFrom(conversion.duration(retry_after))
        return response

    def wait_in_place(
        self, operation_id: str, timeout: float | None, context: grpc.ServicerContext
    ) -> operation_pb2.Operation:
        """As WaitOperation, for callers that an answer cannot tell when to come back.

        `timeout` in seconds; None is as long as anybody may wait. Raises
        WaitLimitError if all places are taken.
        """
        seconds = self.limits.wait if timeout is None else timeout
        wait = self._operations.wait_in_place
        return conversion.view_to_proto(self._waited(wait, operation_id, seconds, context))

    def _waited(
        self,
        wait: Callable[..., WaitedT],
        operation_id: str,
        timeout: float,
        context: grpc.ServicerContext,
    ) -> WaitedT:
        """Wait on behalf of a call: it ends when the caller goes, and its answer leaves in time."""
        self._check_operation_id(operation_id)
        if timeout < 0:
            raise InvalidArgumentError.of("timeout", f"must not be negative, got {timeout} s")
        waiter = Waiter()
        if not context.add_callback(waiter.leave):
            waiter.leave()
        # The answer must leave before the caller stops listening.
        deadline = deadline_of(context, self._clock)
        margin = 0.0 if deadline == inf else 0.1
        bounded = min(timeout, self.limits.wait)
        return wait(operation_id, bounded, waiter, deadline=deadline - margin)

    def DeleteOperation(  # noqa: N802  # the contract's name
        self,
        request: pb.DeleteOperationRequest,
        context: grpc.ServicerContext,
    ) -> pb.DeleteOperationResponse:
        """Forget a finished operation."""
        self._check_operation_id(request.operation_id)
        deadline = deadline_of(context, self._clock)
        self._operations.delete_operation(request.operation_id, deadline=deadline)
        return pb.DeleteOperationResponse()

    def _check_operation_id(self, operation_id: str) -> None:
        if not operation_id:
            raise InvalidArgumentError.of("operation_id", "is required")
        if len(operation_id) > self.limits.operation_id:
            text = f"must be at most {self.limits.operation_id} characters"
            raise InvalidArgumentError.of("operation_id", text)


def _size(page: Collection[operation_pb2.Metric]) -> int:
    """Bytes of a page of metrics."""
    return sum(metric.ByteSize() for metric in page)


def _check_cursor(field: str, cursor: int) -> None:
    if cursor < 0:
        raise InvalidArgumentError.of(field, f"must not be negative, got {cursor}; start at 0")


def _staleness(request: pb.GetOperationRequest) -> float | None:
    """The strict bound in seconds; None if the caller leaves it to us."""
    if not request.HasField("max_staleness"):
        return 0.0 if request.force_refresh else None
    if request.force_refresh:
        raise InvalidArgumentError.of(
            "max_staleness", "excludes force_refresh, which is max_staleness 0; set one of them"
        )
    bound = conversion.seconds(request.max_staleness)
    if bound < 0:
        raise InvalidArgumentError.of("max_staleness", f"must not be negative, got {bound} s")
    return bound


def _filter(request: pb.ListOperationsRequest) -> OperationFilter:
    if request.active_only and request.statuses:
        raise InvalidArgumentError.of("active_only", "excludes statuses; set one of them")
    violations = _unknown("statuses", request.statuses, conversion.STATUS_FROM_PROTO)
    violations += _unknown("types", request.types, conversion.TYPE_FROM_PROTO)
    if violations:
        raise InvalidArgumentError(violations)
    statuses: Collection[OperationStatus] = [
        conversion.STATUS_FROM_PROTO[number] for number in request.statuses
    ]
    types: Collection[OperationType] = [
        conversion.TYPE_FROM_PROTO[number] for number in request.types
    ]
    if request.active_only:
        statuses = ACTIVE_STATUSES
    return OperationFilter(frozenset(statuses), frozenset(types))


def _unknown(field: str, numbers: Collection[int], known: Collection[int]) -> list[FieldViolation]:
    if len(numbers) > _MAX_FILTERS:
        text = f"{len(numbers)} values; at most {_MAX_FILTERS} are taken."
        return [FieldViolation(field, text)]
    return [
        FieldViolation(f"{field}[{index}]", f"{number} is not a value to filter by")
        for index, number in enumerate(numbers)
        if number not in known
    ]


def _filters_key(request: pb.ListOperationsRequest) -> object:
    return sorted(request.statuses), sorted(request.types), request.active_only


def _after(request: pb.ListOperationsRequest) -> SortKey | None:
    position = decode_token(request.page_token, _filters_key(request), parts=2)
    return None if position is None else (decode_time(position[0]), position[1])


def _token(after: SortKey | None, request: pb.ListOperationsRequest) -> str:
    if after is None:
        return ""
    return encode_token([after[0].isoformat(), after[1]], _filters_key(request))


def operations_service(
    servicer: OperationsServicer,
) -> ServedService:
    """The service as every process serves it."""
    return ServedService(
        "ktrdr.operations.v1.OperationsService",
        servicer,
        operations_service_pb2_grpc.add_OperationsServiceServicer_to_server,
        {"WaitOperation": WAIT},
        at_once={"GetOperation": servicer.prepare},
    )
