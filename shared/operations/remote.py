"""RemoteOperationStub: the Operations service of another process, as the domain sees it.

Over the generated stub and the one channel to the target. It knows no kind of
work, keeps no state and never asks by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from shared.operations.answer_conversion import (
    MetricsPage,
    RemotePage,
    metrics_page_from,
    operation_view_from,
    reading_from,
    remote_page_from,
    retry_after_from,
    view_from,
)
from shared.operations.conversion import STATUS_TO_PROTO, TYPE_TO_PROTO, duration, set_duration
from shared.operations.source import SourceReading
from shared.operations.store import OperationFilter
from shared.operations.views import OperationView
from shared.rpc.errors import MalformedAnswerError
from shared.rpc.host_channel import HostChannel, PendingCall

WAIT_MARGIN = 5.0
"""Seconds a wait's answer may take beyond the wait itself."""

ReadT = TypeVar("ReadT")


@dataclass(frozen=True, slots=True)
class PendingAnswer(Generic[ReadT]):
    """An answer that is on its way."""

    call: PendingCall
    read: Callable[[Any], ReadT]
    target: str

    def add_done_callback(self, call: Callable[[object], object], /) -> None:
        """Have `call` called, on any thread, when the answer is here, or now if it is."""
        self.call.add_done_callback(call)

    def done(self) -> bool:
        """Whether the answer is here, or will not come."""
        return self.call.done()

    def cancel(self) -> object:
        """Give the call up."""
        return self.call.cancel()

    def result(self) -> ReadT:
        """Wait for the answer and return what it says, or raise a KtrdrError."""
        return _understood(self.target, self.read, self.call.result())


class RemoteOperationStub:
    """Operations of the process at one target.

    `timeout` is how long the answer may take, in seconds. Every method raises
    HostTimeoutError if it took longer, another HostUnreachableError if nobody
    answers, MalformedAnswerError if the answer makes no sense, and else the
    error the other process answered with, as the domain error it was there.
    """

    def __init__(self, channel: HostChannel) -> None:
        self._channel = channel
        self.target = channel.target

    def get_operation(
        self,
        operation_id: str,
        *,
        max_staleness: float | None = None,
        metrics_cursor: int = 0,
        timeout: float,
    ) -> OperationView:
        """Return a snapshot and the metrics from the cursor on, at most a page of them.

        `max_staleness` in seconds is strict, 0 reads the worker now; None leaves it
        to the other process.
        """
        request = _get_request(operation_id, max_staleness, metrics_cursor)
        answer = self._call("GetOperation", request, timeout)
        return _understood(self.target, view_from, answer, operation_id, metrics_cursor)

    def begin_get_operation(
        self,
        operation_id: str,
        *,
        max_staleness: float | None = None,
        metrics_cursor: int = 0,
        timeout: float,
    ) -> PendingAnswer[OperationView]:
        """Send what `get_operation` sends and do not wait."""
        request = _get_request(operation_id, max_staleness, metrics_cursor)
        call = self._begin("GetOperation", request, timeout)
        return self._pending(call, lambda a: view_from(a, operation_id, metrics_cursor))

    def read_operation(
        self, operation_id: str, metrics_cursor: int, max_staleness: float, *, timeout: float
    ) -> SourceReading:
        """Get the same as news for whoever stands in for the operation, which costs less."""
        request = _get_request(operation_id, max_staleness, metrics_cursor)
        answer = self._call("GetOperation", request, timeout)
        return _understood(self.target, reading_from, answer, operation_id, metrics_cursor)

    def begin_read_operation(
        self, operation_id: str, metrics_cursor: int, max_staleness: float, *, timeout: float
    ) -> PendingAnswer[SourceReading]:
        """Send what `read_operation` sends and do not wait."""
        request = _get_request(operation_id, max_staleness, metrics_cursor)
        call = self._begin("GetOperation", request, timeout)
        return self._pending(call, lambda a: reading_from(a, operation_id, metrics_cursor))

    def get_metrics(
        self, operation_id: str, cursor: int, limit: int, *, timeout: float
    ) -> MetricsPage:
        """Return a page of an operation's log."""
        request = pb.GetMetricsRequest(operation_id=operation_id, cursor=cursor, page_size=limit)
        answer = self._call("GetMetrics", request, timeout)
        return _understood(self.target, metrics_page_from, answer, cursor)

    def list_operations(
        self, wanted: OperationFilter, page_token: str, limit: int, *, timeout: float
    ) -> RemotePage:
        """Return a page of operations, newest first; the first page has no token."""
        answer = self._call("ListOperations", _list_request(wanted, page_token, limit), timeout)
        return _understood(self.target, remote_page_from, answer)

    def begin_list_operations(
        self, wanted: OperationFilter, page_token: str, limit: int, *, timeout: float
    ) -> PendingAnswer[RemotePage]:
        """Send what `list_operations` sends and do not wait."""
        call = self._begin("ListOperations", _list_request(wanted, page_token, limit), timeout)
        return self._pending(call, remote_page_from)

    def cancel_operation(
        self, operation_id: str, reason: str = "", *, timeout: float
    ) -> OperationView:
        """Ask an operation to stop and return it."""
        request = pb.CancelOperationRequest(operation_id=operation_id, reason=reason)
        answer = self._call("CancelOperation", request, timeout)
        return _understood(self.target, operation_view_from, answer.operation, operation_id)

    def wait_operation(
        self, operation_id: str, *, timeout: float
    ) -> tuple[OperationView, float | None]:
        """Wait for an operation's end for `timeout` seconds; return its latest state.

        The second value is set if it returned early for want of a place: the
        seconds after which to ask again.
        """
        return self.begin_wait_operation(operation_id, timeout=timeout).result()

    def begin_wait_operation(
        self, operation_id: str, *, timeout: float
    ) -> PendingAnswer[tuple[OperationView, float | None]]:
        """Send what `wait_operation` sends and do not wait."""
        request = pb.WaitOperationRequest(operation_id=operation_id, timeout=duration(timeout))
        call = self._begin("WaitOperation", request, timeout + WAIT_MARGIN)
        return self._pending(call, lambda a: _waited(a, operation_id))

    def close(self) -> None:
        """Close the channel, which ends what is on its way."""
        self._channel.close()

    def _call(self, method: str, request: object, timeout: float) -> Any:
        return self._channel.call(OperationsServiceStub, method, request, timeout)

    def _begin(self, method: str, request: object, timeout: float) -> PendingCall:
        return self._channel.begin(OperationsServiceStub, method, request, timeout)

    def _pending(self, call: PendingCall, read: Callable[[Any], ReadT]) -> PendingAnswer[ReadT]:
        return PendingAnswer(call, read, self.target)


def _understood(target: str, read: Callable[..., ReadT], *answer: Any) -> ReadT:
    """Read an answer of `target`; of one that makes no sense, say whose it is."""
    try:
        return read(*answer)
    except MalformedAnswerError as error:
        raise MalformedAnswerError(
            f"{target} answered what no ktrdr process of this version answers: {error.message}",
            metadata={"target": target},
        ) from error


def _get_request(
    operation_id: str, max_staleness: float | None, metrics_cursor: int
) -> pb.GetOperationRequest:
    request = pb.GetOperationRequest(operation_id=operation_id, metrics_cursor=metrics_cursor)
    if max_staleness is not None:
        request.max_staleness.SetInParent()  # also of 0
        set_duration(request.max_staleness, max_staleness)
    return request


def _list_request(wanted: OperationFilter, page_token: str, limit: int) -> pb.ListOperationsRequest:
    return pb.ListOperationsRequest(
        statuses=[STATUS_TO_PROTO[status] for status in wanted.statuses],
        types=[TYPE_TO_PROTO[type_] for type_ in wanted.types],
        page_size=limit,
        page_token=page_token,
    )


def _waited(
    answer: pb.WaitOperationResponse, operation_id: str
) -> tuple[OperationView, float | None]:
    view = operation_view_from(answer.operation, operation_id)
    return view, retry_after_from(answer)
