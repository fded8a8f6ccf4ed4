from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import grpc

from benchmarks.remote import Crowd, ask, crowd_targets
from ktrdr.operations.v1 import operations_service_pb2 as pb

WELL = Crowd(
    took=10.0, answers=1000, cached=995, late=0, excused=0, shed=0, failed=0, calls=9, pulls=9
)


class Unavailable(grpc.RpcError):
    """How a call ends whose server has gone."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


def test_a_client_goes_on_after_a_failed_call_and_counts_it() -> None:
    tally, end, calls = Counter[str](), threading.Event(), 0

    def get(_: pb.GetOperationRequest, timeout: float) -> pb.GetOperationResponse:
        nonlocal calls
        assert timeout > 0
        calls += 1
        if calls == 3:
            end.set()
            return pb.GetOperationResponse()
        raise Unavailable

    ask(get, pb.GetOperationRequest(), tally, threading.Barrier(1), end)

    assert (2, 1) == (tally["failed"], tally["answers"])


def test_a_crowd_whose_calls_fail_misses_its_target() -> None:
    failing = replace(WELL, failed=1)

    assert [] == [target.wanted for target in crowd_targets(WELL) if not target.met]
    assert ["no call fails"] == [t.wanted for t in crowd_targets(failing) if not t.met]
