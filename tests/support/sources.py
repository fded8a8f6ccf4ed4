"""A source of operations that runs elsewhere, as scripted by a test."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from shared.operations.model import FreshnessSource, Hop, Metric, Operation, Progress
from shared.operations.source import OwnerState, SourceReading
from shared.rpc.errors import HostTimeoutError

_PATIENCE = 10.0
"""Seconds after which a test that forgot to open a gate fails."""


@dataclass(frozen=True, slots=True)
class ReadCall:
    """How a read was asked for."""

    cursor: int
    limit: int
    max_staleness: float
    timeout: float


class FakeRead:
    """A read that has been sent; it is carried out on a thread of its own.

    Whoever takes the result joins the thread, unless it is that thread that takes it:
    it calls what waits for the answer, and ends.
    """

    def __init__(self, carry_out: Callable[[], SourceReading]) -> None:
        self._answer: Future[SourceReading] = Future()
        self._thread = threading.Thread(target=self._run, args=(carry_out,), daemon=True)
        self._thread.start()

    def _run(self, carry_out: Callable[[], SourceReading]) -> None:
        try:
            self._answer.set_result(carry_out())
        except BaseException as error:  # noqa: BLE001  # raised again by `result`
            self._answer.set_exception(error)

    def add_done_callback(self, call: Callable[[object], object], /) -> None:
        """Call once it is answered, or now if it is."""
        self._answer.add_done_callback(call)

    def result(self) -> SourceReading:
        """Return or raise what the test has set."""
        try:
            return self._answer.result(_PATIENCE)
        finally:
            if self._thread is not threading.current_thread():
                self._thread.join(_PATIENCE)


class FakeWait:
    """A wait at the owner that the test ends."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.cancelled = False
        self._end: Future[float | None] = Future()

    def add_done_callback(self, call: Callable[[object], object], /) -> None:
        """Call at the end, or now if it has ended."""
        self._end.add_done_callback(lambda _: call(self))

    def done(self) -> bool:
        """Whether it has ended."""
        return self._end.done()

    def result(self) -> float | None:
        """Raise the error it ended with, if any; else say when to come back, if early."""
        return self._end.result(_PATIENCE)

    def cancel(self) -> bool:
        """Note that nobody waits any more."""
        self.cancelled = True
        self.end()
        return True

    def end(self, error: BaseException | None = None, retry_after: float | None = None) -> None:
        """End the wait, as the owner's answer would; what has ended stays as it is."""
        with suppress(InvalidStateError):
            if error is None:
                self._end.set_result(retry_after)
            else:
                self._end.set_exception(error)


@dataclass
class FakeRemoteSource:
    """The owner of an operation as its log and state, with gates and failures.

    A read answers with what the fields say; `script` holds what the next reads
    do instead: return a reading or raise. While `gate` is closed, reads block,
    and `arrived` counts those that do.
    """

    operation: Operation | None = None
    log: list[Metric] = field(default_factory=list)
    progress: Progress | None = None
    age: float = 0.0
    page: int = 1000
    target: str | None = "host:50052"
    kind: FreshnessSource = FreshnessSource.REMOTE
    may_wait: bool = True
    path: tuple[Hop, ...] = ()
    error: BaseException | None = None
    script: deque[SourceReading | BaseException] = field(default_factory=deque)
    after_read: Callable[[], None] | None = None
    calls: list[ReadCall] = field(default_factory=list)
    begun: list[ReadCall] = field(default_factory=list)
    """The reads of listings, which are not waited for one by one."""
    cancels: list[tuple[str, float]] = field(default_factory=list)
    cancel_error: BaseException | None = None
    waits: list[FakeWait] = field(default_factory=list)
    on_wait: Callable[[FakeWait], None] | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self.gate.set()

    def read(self, cursor: int, limit: int, max_staleness: float, timeout: float) -> SourceReading:
        """Note the call and do what the test has set."""
        self.calls.append(ReadCall(cursor, limit, max_staleness, timeout))
        return self._answer(cursor, limit)

    def begin_read(
        self, cursor: int, limit: int, max_staleness: float, timeout: float, /
    ) -> FakeRead:
        """Note the call; a thread does what the test has set."""
        self.begun.append(ReadCall(cursor, limit, max_staleness, timeout))
        return FakeRead(lambda: self._answer(cursor, limit))

    def cancel(self, reason: str, timeout: float) -> None:
        """Note the call, or raise `cancel_error`."""
        if self.cancel_error is not None:
            raise self.cancel_error
        self.cancels.append((reason, timeout))

    def begin_wait(self, timeout: float, /) -> FakeWait:
        """Hand out a wait that the test ends, itself or by `on_wait`."""
        wait = FakeWait(timeout)
        self.waits.append(wait)
        if self.on_wait is not None:
            self.on_wait(wait)
        return wait

    def reading(self, cursor: int, limit: int = 1000) -> SourceReading:
        """What a read of the present state brings."""
        metrics: Sequence[Metric] = self.log[cursor : cursor + min(limit, self.page)]
        return SourceReading(
            cursor=cursor,
            metrics=tuple(metrics),
            metrics_count=len(self.log),
            progress=self.progress,
            age=self.age,
            operation=None if self.operation is None else state_of(self.operation),
            path=self.path,
        )

    def _answer(self, cursor: int, limit: int) -> SourceReading:
        self.arrived.release()
        assert self.gate.wait(_PATIENCE), "the test never opened the gate"
        answer = self.script.popleft() if self.script else self.error
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            answer = self.reading(cursor, limit)
        if self.after_read is not None:
            self.after_read()
        return answer


def state_of(operation: Operation) -> OwnerState:
    """What the owner of this operation decides about it."""
    return OwnerState(
        operation.status,
        operation.start_time,
        operation.end_time or (operation.update_time if operation.status.terminal else None),
        operation.cancel_time,
        operation.cancel_reason,
        operation.result,
        operation.error,
    )


def timed_out() -> HostTimeoutError:
    """What a source raises when its time ran out."""
    return HostTimeoutError("The host did not answer in time.")
