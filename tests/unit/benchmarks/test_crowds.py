from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from benchmarks.crowds import CHANNELS, DETAILS, Caller, time_to_return

FULL, GONE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE


class Ended:
    """A call that ended in an error, and that error."""

    def __init__(self, code: grpc.StatusCode, retry: int | None) -> None:
        self._code, self._retry = code, retry

    def code(self) -> grpc.StatusCode:
        return self._code

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        if self._retry is None:
            return []
        detail = AnyMessage()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=self._retry)))
        return [(DETAILS, status_pb2.Status(details=[detail]).SerializeToString())]

    def exception(self) -> Ended:
        return self

    def add_done_callback(self, call: Any) -> None:
        call(self)


class Get:
    """A method all of whose calls end alike."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended

    def future(self, request: object, timeout: float) -> Ended:
        return self._ended


@pytest.mark.parametrize("retry", [None, 0, 3])
def test_the_time_to_return_is_what_was_said(retry: int | None) -> None:
    assert retry == time_to_return(Ended(FULL, retry))


@pytest.mark.parametrize(
    ("code", "retry", "shed", "bare"),
    [(FULL, 3, 1, 0), (FULL, 0, 1, 0), (FULL, None, 0, 1), (GONE, 3, 0, 1)],
)
def test_who_is_told_when_to_come_back_was_shed(
    code: grpc.StatusCode, retry: int | None, shed: int, bare: int
) -> None:
    caller = Caller([Get(Ended(code, retry))] * CHANNELS, "op")
    caller.send()

    assert (shed, bare) == (caller.told.shed, caller.told.bare)
