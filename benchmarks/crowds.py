"""Crowds of clients, each a process of its own with a few connections."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import monotonic, perf_counter
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from shared.operations.conversion import seconds

CHANNELS = 4
DETAILS = "grpc-status-details-bin"


def stubs(stack: ExitStack, address: str) -> list[OperationsServiceStub]:
    """The operations service, over a few connections."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        stack.enter_context(grpc.insecure_channel(address, options)) for _ in range(CHANNELS)
    ]
    for channel in channels:
        grpc.channel_ready_future(channel).result(10)
    return [OperationsServiceStub(channel) for channel in channels]


def time_to_return(error: Any) -> float | None:
    """The seconds after which a refused caller may come back; None if that is not said."""
    retry = error_details_pb2.RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(retry):
                    return seconds(retry.retry_delay)
    return None


# --------------------------------------------------------------------- waiting


class Waiters:
    """Clients that wait for one operation, over and over."""

    def __init__(self, waits: list[Any], operation_id: str, clients: int) -> None:
        self._waits = waits
        self._request = pb.WaitOperationRequest(operation_id=operation_id)
        self._clients = clients
        self._lock = threading.Lock()  # guards the fields below
        self._due: list[tuple[float, int]] = []
        self._calls: dict[int, Any] = {}
        self._polite = True
        self._resting = False
        self.ended: Counter[str] = Counter()

    def run(self, order: Callable[[], str | None], *, polite: bool) -> None:
        """Have every client wait, again and again until there is an order."""
        with self._lock:
            self._polite, self._resting, self.ended = polite, False, Counter()
            self._due = [(0.0, client) for client in range(self._clients)]
        wake = threading.Event()
        while order() is None:
            self._send_due()
            wake.wait(0.002)
        with self._lock:
            self._resting = True
            calls = list(self._calls.values())
        for call in calls:
            call.cancel()

    def _send_due(self) -> None:
        while True:
            with self._lock:
                if not self._due or self._due[0][0] > monotonic():
                    return
                client = heapq.heappop(self._due)[1]
            call = self._waits[client % CHANNELS].future(self._request, timeout=60)
            with self._lock:
                self._calls[client] = call
            call.add_done_callback(lambda call, client=client: self._done(call, client))

    def _done(self, call: Any, client: int) -> None:
        how, pause = _outcome(call)
        with self._lock:
            if self._resting:
                return
            self._calls.pop(client, None)
            self.ended[how] += 1
            heapq.heappush(self._due, (monotonic() + pause * self._polite, client))


def _outcome(call: Any) -> tuple[str, float]:
    """How a wait ended, and the seconds after which its client should wait again."""
    if call.cancelled():
        return "cancelled by the client", 0.0
    error = call.exception()
    if error is None:
        answer = call.result()
        early = answer.HasField("retry_after")
        return ("answered early", seconds(answer.retry_after)) if early else ("waited", 0.0)
    after = time_to_return(error)
    if after is None:
        return f"{error.code().name} without details", 0.5
    return error.code().name, after


def waiters(told: Connection, address: str, operation_id: str, clients: int) -> None:
    """Wait, as politely as told, until told to rest; say how the waits ended."""
    with ExitStack() as stack:
        crowd = Waiters(
            [stub.WaitOperation for stub in stubs(stack, address)], operation_id, clients
        )
        told.send(address)
        while (how := told.recv()) is not None:
            crowd.run(lambda: told.recv() if told.poll(0) else None, polite=how == "polite")
            told.send(dict(crowd.ended))


# --------------------------------------------------------------------- calling


@dataclass(frozen=True, slots=True)
class Asked:
    """How to call: so many at once, or so many a second."""

    seconds: float
    at_once: int = 0
    rate: float = 0.0


@dataclass(slots=True)
class Told:
    """What became of the calls."""

    asked: int = 0
    accepted: int = 0
    shed: int = 0
    bare: int = 0
    """Refused without a time to come back, or ended in another error."""
    took: list[float] = field(default_factory=list)
    """Seconds of each accepted call."""


class Caller:
    """Strict reads of one operation, without waiting for answers."""

    def __init__(self, gets: list[Any], operation_id: str) -> None:
        self._gets = gets
        self._request = pb.GetOperationRequest(operation_id=operation_id, force_refresh=True)
        self._lock = threading.Lock()  # guards told, whose `asked` is the sender's alone
        self.told = Told()

    def send(self, then: Callable[[], None] = lambda: None) -> None:
        """Send a call; `then` is called once it has ended."""
        self.told.asked += 1
        began = perf_counter()
        call = self._gets[self.told.asked % CHANNELS].future(self._request, timeout=30)

        def done(call: Any) -> None:
            self._note(call, perf_counter() - began)
            then()

        call.add_done_callback(done)

    def _note(self, call: Any, took: float) -> None:
        error = call.exception()
        with self._lock:
            if error is None:
                self.told.accepted += 1
                self.told.took.append(took)
            elif _shed(error):
                self.told.shed += 1
            else:
                self.told.bare += 1

    @property
    def ended(self) -> int:
        """Calls that have ended."""
        with self._lock:
            return self.told.accepted + self.told.shed + self.told.bare


def _shed(error: Any) -> bool:
    """Whether a call was refused for want of room, with a time to come back, be it at once."""
    full: bool = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return full and time_to_return(error) is not None


def caller(told: Connection, address: str, operation_id: str) -> None:
    """Call as asked, and tell what became of it."""
    with ExitStack() as stack:
        gets = [stub.GetOperation for stub in stubs(stack, address)]
        told.send(address)
        while (asked := told.recv()) is not None:
            calls = Caller(gets, operation_id)
            (_at_once if asked.at_once else _at_a_rate)(calls, asked)
            pause = threading.Event()
            while calls.ended < calls.told.asked:
                pause.wait(0.01)
            told.send(calls.told)


def _at_once(calls: Caller, asked: Asked) -> None:
    """Keep so many calls under way."""
    free = threading.Semaphore(asked.at_once)
    end = monotonic() + asked.seconds
    while monotonic() < end:
        free.acquire()
        calls.send(then=free.release)


def _at_a_rate(calls: Caller, asked: Asked) -> None:
    """Send so many calls a second, whatever becomes of them."""
    began, pause = monotonic(), threading.Event()
    while (now := monotonic()) < began + asked.seconds:
        if calls.told.asked < (now - began) * asked.rate:
            calls.send()
        else:
            pause.wait(0.001)
