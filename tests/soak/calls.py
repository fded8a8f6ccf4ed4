"""Calls to one process: each is counted, and weighed if it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import count
from time import monotonic
from typing import Any

import grpc
from google.protobuf.message import Message

from ktrdr.marketdata.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from ktrdr.training.v1.training_service_pb2_grpc import TrainingServiceStub
from shared.rpc.channel import open_channel
from shared.rpc.failed_call import FailedCall, read_failed_call
from tests.soak.fleet import Member
from tests.soak.invariants import SHED, unexpected
from tests.soak.tally import Tally

ANSWER = 60.0
"""Seconds within which every call is answered, however busy the machine."""
_CHANNELS = 3
"""Connections that the clients of one process share."""
_STUBS: Mapping[str, Callable[[grpc.Channel], Any]] = {
    "StartTraining": TrainingServiceStub,
    "StartDataLoad": MarketDataServiceStub,
}


class CallError(Exception):
    """A call that failed; `failed` says how."""

    def __init__(self, failed: FailedCall) -> None:
        super().__init__(f"{failed.code.name} {failed.reason}")
        self.failed = failed

    @property
    def not_found(self) -> bool:
        """Whether there is no such operation."""
        return self.failed.reason == "OPERATION_NOT_FOUND"

    @property
    def retry_after(self) -> float:
        """Seconds after which to come back."""
        return 1.0 if self.failed.retry_after is None else self.failed.retry_after


class Caller:
    """The clients of one process; safe to use from several threads."""

    def __init__(self, member: Member, tally: Tally) -> None:
        self.member = member
        self.tally = tally
        self._channels = [open_channel(member.address) for _ in range(_CHANNELS)]
        self._turn = count()

    def call(self, method: str, request: Message) -> Any:
        """Call a method by its name; raises CallError if that fails."""
        channel = self._channels[next(self._turn) % _CHANNELS]
        stub = _STUBS.get(method, OperationsServiceStub)(channel)
        sent_at = monotonic()
        self.tally.count("call", method)
        try:
            return getattr(stub, method)(request, timeout=ANSWER)
        except grpc.RpcError as error:
            raise self._failed(method, read_failed_call(error), sent_at) from error

    def insist(self, method: str, request: Message) -> Any:
        """Call until it is answered or the operation is not there; for reading in peace."""
        give_up_at = monotonic() + ANSWER
        while True:
            try:
                return self.call(method, request)
            except CallError as error:
                if error.not_found or monotonic() > give_up_at:
                    raise
                threading.Event().wait(min(1.0, error.retry_after))

    def _failed(self, method: str, failed: FailedCall, sent_at: float) -> CallError:
        self.tally.count("failed", method, failed.code.name, failed.reason)
        if failed.reason in SHED:
            self.tally.count("shed", method)
        was_down = self.member.absences.any_since(sent_at, connected=not failed.never_connected)
        wrong = unexpected(failed.code.name, failed.reason, was_down=was_down)
        self.tally.note(
            "a call fails only as documented",
            f"{method} at {self.member.name}",
            [f"{what}: {failed.message}" for what in wrong],
        )
        return CallError(failed)

    def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            channel.close()
