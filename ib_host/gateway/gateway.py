"""The gateway: plain calls from any thread, carried out on a thread with an event loop.

Each call has its own time limit and can be given up at any moment. A connection
is made when it is first needed and made anew when it has been lost; asking again
is for the caller, who knows where to go on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar

from ib_host.gateway.connection import Connection, GatewayAddress, connect
from ib_host.ib_errors import IbError
from ib_host.instruments import Instrument
from ib_host.requests import HistoryRequest
from shared.rpc.errors import ProcessStoppingError

T = TypeVar("T")
Check = Callable[[], None]
"""Called often while a call waits; what it raises ends the call."""

_NAP = 0.05
"""Seconds after which a waiting call looks again whether it should be given up."""


@dataclass(frozen=True, slots=True)
class IbBars:
    """The answer to a request for bars, as IB dates them."""

    dates: Sequence[date | datetime]
    rows: Sequence[tuple[float, float, float, float, float]]
    """Open, high, low, close, volume; the volume of midpoints is -1."""


class Gateway:
    """A connection to one IB gateway; all methods may be called from any thread.

    Calls raise IbError for IB's errors, IbTimeoutError without an answer in
    time, IbUnreachableError if there is no connection, IbConnectionError if it
    is lost meanwhile, ProcessStoppingError once `stop` has been called, and
    whatever their check raises.
    """

    def __init__(self, address: GatewayAddress) -> None:
        self.address = address
        self._lock = threading.Lock()  # guards starting and stopping
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._connection: Connection | None = None  # of the loop's thread
        self._connecting: asyncio.Lock | None = None

    def contract_ids(self, instrument: Instrument, check: Check) -> Sequence[int]:
        """Return the numbers of the contracts an instrument stands for; one if it is clear."""
        return self._call(lambda: self._contract_ids(instrument), check)

    def head(
        self, instrument: Instrument, contract_id: int, check: Check, *, regular_hours: bool
    ) -> datetime:
        """Return when the first bar there is of a contract starts (aware)."""
        return self._call(lambda: self._head(instrument, contract_id, regular_hours), check)

    def bars(
        self,
        instrument: Instrument,
        contract_id: int,
        request: HistoryRequest,
        check: Check,
        *,
        regular_hours: bool,
    ) -> IbBars:
        """Return the bars a request asks for; there may be more of them before and after."""
        return self._call(
            lambda: self._bars(instrument, contract_id, request, regular_hours), check
        )

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to the gateway, and from it to IB."""
        connection = self._connection
        return connection is not None and connection.is_up

    def stop(self) -> None:
        """End the connection and the thread; calls that wait end with ProcessStoppingError."""
        with self._lock:
            self._stopped = True
            thread, loop = self._thread, self._loop
        if thread is not None and loop is not None:
            with suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(loop.stop)
            thread.join()

    # ----------------------------------------------------------- between the threads

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]], check: Check) -> T:
        future = self._submit(work)
        try:
            while not concurrent.futures.wait([future], timeout=_NAP).done:
                check()
        except BaseException:
            future.cancel()  # on the loop this cancels the request with IB as well
            raise
        try:
            answer = future.result()
        except concurrent.futures.CancelledError:
            raise _stopping() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _submit(
        self, work: Callable[[], Coroutine[Any, Any, T]]
    ) -> concurrent.futures.Future[T | Exception]:
        with self._lock:  # so that nothing is handed to a loop that has been told to stop
            if self._stopped:
                raise _stopping()
            if self._loop is None:
                self._start()
            assert self._loop is not None  # noqa: S101  # for the type checker
            return asyncio.run_coroutine_threadsafe(_answered(work()), self._loop)

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop,), name="ib-gateway", daemon=True
        )
        self._thread.start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        # The library asks for the thread's current loop, already while it is imported.
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(self._end())
            asyncio.set_event_loop(None)
            loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        # First the tasks: the library would leave them waiting when it disconnects.
        await asyncio.gather(*others, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()

    # ------------------------------------------------------------- on the loop's thread

    async def _contract_ids(self, instrument: Instrument) -> Sequence[int]:
        connection = await self._connected()
        found = await connection.contracts(instrument)
        return [each.contract.conId for each in found]

    async def _head(
        self, instrument: Instrument, contract_id: int, regular_hours: bool
    ) -> datetime:
        connection = await self._connected()
        answer = await connection.head(instrument, contract_id, regular_hours)
        if not isinstance(answer, datetime) or answer.tzinfo is None:
            raise IbError(162, "No head time stamp")
        return answer

    async def _bars(
        self, instrument: Instrument, contract_id: int, request: HistoryRequest, regular: bool
    ) -> IbBars:
        connection = await self._connected()
        bars = await connection.bars(instrument, contract_id, request, regular)
        return IbBars(
            [bar.date for bar in bars],
            [(bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in bars],
        )

    async def _connected(self) -> Connection:
        """Return a connection that reaches IB, made now if need be."""
        if self._connecting is None:
            self._connecting = asyncio.Lock()  # so that several callers share one connection
        async with self._connecting:
            connection = self._connection
            if connection is not None and connection.is_usable():
                return connection
            if connection is not None:
                await connection.close()
            self._connection = None
            self._connection = await connect(self.address)
            return self._connection


async def _answered(work: Coroutine[Any, Any, T]) -> T | Exception:
    """What a call comes to, an error too: asyncio logs those that nobody waits for any more."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001  # raised by whoever waits
        return error


def _stopping() -> ProcessStoppingError:
    return ProcessStoppingError("The process is stopping and asks IB for nothing more.")
