"""What a call leaves behind is freed at once: nothing of it waits for a garbage collection.

Until then it would keep what gRPC holds for the call, and the thread that takes
all calls in would stop to collect it.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import models_service_pb2, training_service_pb2
from shared.rpc.server import ServerLimits
from tests.integration.hosted import Hosted, hosted
from tests.integration.running import SMALL
from tests.support.rpc import TIMEOUT, probe, served

CALLS = 30
Ask = Callable[[Hosted, str], Any]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path) as pair:
        yield pair


def garbage_of(call: Callable[[], Any]) -> int:
    """What so many calls leave to the garbage collector, at least.

    The threads of others leave something now and then, but not each time.
    """
    for _ in range(3):  # what is made once is no garbage
        with suppress(grpc.RpcError):
            call()
    return min(_left_by(call) for _ in range(3))


def _left_by(call: Callable[[], Any]) -> int:
    gc.collect()
    gc.freeze()  # what there is before counts as used: collecting is quick, and finds the same
    gc.disable()
    try:
        for _ in range(CALLS):
            with suppress(grpc.RpcError):
                call()
        return gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()


def start(pair: Hosted, _: str) -> Any:
    request = training_service_pb2.StartTrainingRequest(strategy_yaml=SMALL)
    return pair.running.training.StartTraining(request)


def wait(pair: Hosted, operation_id: str) -> Any:
    request = pb.WaitOperationRequest(operation_id=operation_id, timeout=Duration(nanos=1_000_000))
    return pair.running.operations.WaitOperation(request)


def models(pair: Hosted, _: str) -> Any:
    return pair.running.models.ListModels(models_service_pb2.ListModelsRequest())


def listing(pair: Hosted, _: str) -> Any:
    return pair.running.operations.ListOperations(pb.ListOperationsRequest())


def metrics(pair: Hosted, operation_id: str, cursor: int) -> Any:
    request = pb.GetMetricsRequest(operation_id=operation_id, cursor=cursor)
    return pair.running.operations.GetMetrics(request)


ANSWERED: dict[str, Ask] = {
    "an operation": lambda pair, id_: pair.look(id_, metrics_cursor=0),
    "an operation, strictly": lambda pair, id_: pair.look(id_, force_refresh=True),
    "metrics": lambda pair, id_: metrics(pair, id_, 0),
    "a listing": listing,
    "a wait": wait,
}
REFUSED: dict[str, Ask] = {
    "an operation there is not": lambda pair, _: pair.look("op_training_20260101_000000_abcdef"),
    "an operation without a name": lambda pair, _: pair.look(""),
    "metrics beyond the last": lambda pair, id_: metrics(pair, id_, 10**6),
}
UNREACHABLE: dict[str, Ask] = {
    "an operation": lambda pair, id_: pair.look(id_, metrics_cursor=0),
    "an operation, strictly": lambda pair, id_: pair.look(id_, force_refresh=True),
    "a listing": listing,
    "a wait": wait,
    "a start": start,
    "models": lambda pair, _: pair.running.models.ListModels(
        models_service_pb2.ListModelsRequest()
    ),
}


def test_a_call_that_leaves_something_is_noticed() -> None:
    def leave() -> None:
        ring: list[object] = []
        ring.append(ring)

    assert garbage_of(leave) >= CALLS


@pytest.mark.parametrize("ask", (ANSWERED | REFUSED).values(), ids=ANSWERED | REFUSED)
def test_a_call_leaves_no_garbage(pair: Hosted, ask: Ask) -> None:
    operation_id, _ = pair.training()
    assert garbage_of(lambda: ask(pair, operation_id)) < CALLS


@pytest.mark.parametrize("ask", UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_call_for_which_the_host_is_out_of_reach_leaves_no_garbage(
    pair: Hosted, ask: Ask
) -> None:
    operation_id, _ = pair.training()
    pair.lead_to("127.0.0.1:1")
    assert garbage_of(lambda: ask(pair, operation_id)) < CALLS


def test_a_call_for_which_there_is_no_place_leaves_no_garbage() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold(request: Any, context: grpc.ServicerContext) -> bytes:
        entered.set()
        assert go_on.wait(TIMEOUT)
        return b"answer"

    with served([probe({"Hold": hold})], ServerLimits(read=1)) as wire:
        held = wire.begin("Hold")
        assert entered.wait(TIMEOUT)
        try:
            assert garbage_of(lambda: wire.failure("Hold")) < CALLS
        finally:
            go_on.set()
        assert held.result() == b"answer"
