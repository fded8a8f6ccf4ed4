"""One connection to IB through its client library, from its making to its end.

The only module that knows the library. Everything here happens on the thread of
the gateway's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ib_host.ib_errors import (
    SIGNALS,
    IbConnectionError,
    IbError,
    IbTimeoutError,
    IbUnreachableError,
    Signal,
)
from ib_host.instruments import Instrument
from ib_host.requests import HistoryRequest

if TYPE_CHECKING:
    from ib_insync import IB, Contract

logger = logging.getLogger("ktrdr.ib")

_IDS_TRIED = 16
"""Client ids that are tried, from the one asked for on."""
_LAST_BYTES = 1.0
"""Seconds a connection gets to end in good order."""
_LONGEST_MESSAGE = 300
"""Characters of a message of the library's that are logged."""
_EPOCH_DATES = 2
"""The library's name for dates as seconds since 1970, which no setting of the gateway changes."""


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where the gateway is, and how long it gets."""

    host: str
    port: int
    client_id: int = 1
    connect_timeout: float = 10.0
    """Seconds to accept a connection."""
    answer_timeout: float = 60.0
    """Seconds to answer a request."""
    link_timeout: float = 60.0
    """Seconds to say that IB's servers are reached again; then a new connection is tried."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Connection:
    """One connection; lives on the loop's thread."""

    def __init__(self, address: GatewayAddress, client_id: int) -> None:
        import ib_insync

        # It reports as errors what is part of life here, and what is not is reported by us, except
        # for answers that it cannot read: those look as if none had come.
        logging.getLogger("ib_insync").setLevel(logging.CRITICAL)
        decoder = logging.getLogger("ib_insync.Decoder")
        decoder.setLevel(logging.ERROR)
        decoder.addFilter(_cut_short)  # the same one is added once
        self._library = ib_insync
        self._address = address
        self._client_id = client_id
        self._ib: IB = ib_insync.IB()  # type: ignore[no-untyped-call]  # the library's
        self._ib.RaiseRequestErrors = True  # else errors look like answers without bars
        self._ib.errorEvent += self._take
        # Below what the library is typed for.
        self._client: Any = self._ib.client
        self._wrapper: Any = self._ib.wrapper
        self._client.apiError += self._hear
        self._client.conn.disconnected += self._notice_end
        self._waiting: set[asyncio.Future[Any]] = set()
        self._link_lost_at: float | None = None
        self._farm_lost_at: float | None = None
        self._ended = asyncio.Event()
        self._id_is_taken = False
        self._last_words = ""

    async def open(self) -> bool:
        """Connect; return False if the client id is taken.

        Raises IbUnreachableError, or IbError if IB refuses what the library asks
        first; 503 means that the gateway is too old.
        """
        connecting = asyncio.ensure_future(
            self._ib.connectAsync(
                self._address.host,
                self._address.port,
                clientId=self._client_id,
                timeout=self._address.connect_timeout,
                readonly=True,
            )
        )
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            # The library does not notice that it has been hung up on and waits for its timeout.
            await asyncio.wait({connecting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if self._id_is_taken:
                return False
            if not connecting.done():
                self._raise_refusal()
            await connecting
        except self._library.RequestError as error:
            raise IbError(error.code, error.message) from None
        except (OSError, TimeoutError) as error:
            raise IbUnreachableError(self._why(error)) from error
        finally:
            for task in (connecting, ended):
                task.cancel()
            await asyncio.gather(connecting, ended, return_exceptions=True)
        return True

    @property
    def is_up(self) -> bool:
        """Whether requests can be sent and are likely to be answered."""
        return self._ib.isConnected() and self._link_lost_at is None

    def is_usable(self) -> bool:
        """Whether requests can be sent.

        Raises IbUnreachableError while the gateway, as it has told, tries to
        reach IB; not for ever, since the message that it does may be missed.
        """
        if not self._ib.isConnected() or self._is_late(self._link_lost_at):
            return False
        if self._link_lost_at is not None:
            raise IbUnreachableError(_NO_LINK)
        if self._farm_lost_at is not None and not self._is_late(self._farm_lost_at):
            raise IbUnreachableError(_NO_FARM)
        return True

    def _is_late(self, lost_at: float | None) -> bool:
        return lost_at is not None and _now() - lost_at >= self._address.link_timeout

    async def close(self) -> None:
        """Disconnect, and return when the socket is closed."""
        self._ib.errorEvent -= self._take
        with suppress(ConnectionError, OSError):
            self._ib.disconnect()  # type: ignore[no-untyped-call]  # the library's
        end = _now() + _LAST_BYTES
        socket = self._client.conn
        while socket.transport is not None and _now() < end:
            await asyncio.sleep(0.001)
        if socket.transport is not None:
            socket.transport.abort()
            await asyncio.sleep(0)

    # -------------------------------------------------------------------- requests

    async def contracts(self, instrument: Instrument) -> Sequence[Any]:
        """Return the details of the contracts an instrument stands for."""
        contract = self._contract(instrument, 0)
        client = self._client
        return await self._ask(  # type: ignore[no-any-return]  # the library's
            contract,
            lambda number: client.reqContractDetails(number, contract),
            None,
        )

    async def head(self, instrument: Instrument, contract_id: int, regular: bool) -> object:
        """Return the head timestamp; it counts as open until it is cancelled, so it is."""
        contract = self._contract(instrument, contract_id)
        client = self._client
        try:
            return await self._ask(
                contract,
                lambda number: client.reqHeadTimeStamp(
                    number, contract, instrument.shows, regular, _EPOCH_DATES
                ),
                client.cancelHeadTimeStamp,
                cancel_when_done=True,
            )
        except ValueError as error:  # the library's, of a text that is no time
            raise IbError(162, f"No head time stamp: {error}") from None

    async def bars(
        self, instrument: Instrument, contract_id: int, request: HistoryRequest, regular: bool
    ) -> Sequence[Any]:
        """Return the library's bars."""
        contract = self._contract(instrument, contract_id)
        client = self._client
        end = f"{request.end:%Y%m%d-%H:%M:%S}"  # UTC, since the range is
        return await self._ask(  # type: ignore[no-any-return]  # the library's
            contract,
            lambda number: client.reqHistoricalData(
                number,
                contract,
                end,
                request.duration,
                request.bar_size,
                instrument.shows,
                regular,
                _EPOCH_DATES,
                False,
                [],
            ),
            client.cancelHistoricalData,
        )

    async def _ask(
        self,
        contract: Contract,
        send: Callable[[int], None],
        cancel: Callable[[int], None] | None,
        *,
        cancel_when_done: bool = False,
    ) -> Any:
        """Return what the library makes of the answer to a request; its errors become ours."""
        try:
            return await self._answer(contract, send, cancel, cancel_when_done)
        except self._library.RequestError as error:
            raise IbError(error.code, error.message) from None
        except TimeoutError:
            raise IbTimeoutError(f"no answer within {self._address.answer_timeout:g} s") from None
        except ConnectionError as error:
            raise self._as_ours(error) from None

    async def _answer(
        self,
        contract: Contract,
        send: Callable[[int], None],
        cancel: Callable[[int], None] | None,
        cancel_when_done: bool,
    ) -> Any:
        """Send a request, wait for its answer, and cancel it with IB if none came.

        Not through the library's own coroutines: they do not tell the request's
        number, without which it cannot be cancelled.
        """
        number = self._client.getReqId()
        answer = self._wrapper.startReq(number, contract)
        self._waiting.add(answer)
        answer.add_done_callback(self._waiting.discard)
        is_open = True
        try:
            send(number)
            result = await asyncio.wait_for(answer, self._address.answer_timeout)
            is_open = cancel_when_done
        except self._library.RequestError:
            is_open = False
            raise
        finally:
            answer.cancel()  # or the library fails it when nobody listens any more
            if cancel is not None and is_open:
                self._cancel(cancel, number)
        return result

    def _as_ours(self, error: ConnectionError) -> IbConnectionError:
        if isinstance(error, _LinkLostError):
            return IbConnectionError(_NO_LINK)
        return IbConnectionError(f"the connection to the IB gateway at {self._address} was lost")

    def _cancel(self, cancel: Callable[[int], None], number: int) -> None:
        if self._ib.isConnected():
            with suppress(ConnectionError):
                cancel(number)

    def _contract(self, instrument: Instrument, contract_id: int) -> Contract:
        return self._library.Contract(
            conId=contract_id,
            symbol=instrument.symbol,
            secType=instrument.security_type,
            exchange=instrument.exchange,
            currency=instrument.currency,
        )

    # -------------------------------------------------------------------- messages

    def _take(self, number: int, code: int, text: str, _contract: object) -> None:
        """Take an error or message of IB's; those of requests end them, in the library."""
        logger.info("IB says %d (request %d): %s", code, number, text)
        match SIGNALS.get(code):
            case Signal.LINK_LOST:
                self._link_lost_at = _now()
                self._give_up(_LinkLostError(text))
            case Signal.LINK_RESTORED:
                self._link_lost_at = None
                self._give_up(_LinkLostError(text))  # asked again rather than waited for
            case Signal.FARM_LOST:
                self._farm_lost_at = _now()
            case Signal.FARM_RESTORED:
                self._farm_lost_at = None
            case Signal.HANG_UP:
                self._give_up(ConnectionError(text))
                # Not within the library's reading of a message.
                asyncio.get_running_loop().call_soon(self._ib.disconnect)
            case Signal.ID_TAKEN:
                self._id_is_taken = True
                self._ended.set()

    def _hear(self, words: str) -> None:
        self._last_words = words
        self._ended.set()

    def _notice_end(self, _words: str) -> None:
        self._ended.set()

    def _raise_refusal(self) -> None:
        """Raise what being hung up on before the connection was made means."""
        if "version" in self._last_words:
            raise IbError(503, self._last_words)
        raise IbUnreachableError(f"the IB gateway at {self._address} hung up at once")

    def _give_up(self, error: ConnectionError) -> None:
        """End what waits for an answer that may never come."""
        for answer in tuple(self._waiting):
            if not answer.done():
                answer.set_exception(error)

    def _why(self, error: Exception) -> str:
        where = f"the IB gateway at {self._address}"
        if isinstance(error, ConnectionRefusedError):
            return f"{where} does not accept connections"
        if isinstance(error, TimeoutError):
            return f"{where} does not answer"
        return f"{where} cannot be reached ({error})"


def _cut_short(record: logging.LogRecord) -> bool:
    """Cut a message that may hold a whole answer."""
    record.msg, record.args = record.getMessage()[:_LONGEST_MESSAGE], None
    return True


_NO_LINK = "the IB gateway has lost IB's servers"
_NO_FARM = "IB's service of historical data is down"


def _now() -> float:
    return asyncio.get_running_loop().time()


class _LinkLostError(ConnectionError):
    """The gateway is there, but it has lost IB's servers."""


async def connect(address: GatewayAddress) -> Connection:
    """Return an open connection with the first client id that is free."""
    for client_id in range(address.client_id, address.client_id + _IDS_TRIED):
        connection = Connection(address, client_id)
        try:
            is_accepted = await connection.open()
        except BaseException:
            await connection.close()
            raise
        if is_accepted:
            logger.info("Connected to the IB gateway at %s as client %d", address, client_id)
            return connection
        await connection.close()
        logger.info("Client id %d is in use at %s", client_id, address)
    last = address.client_id + _IDS_TRIED - 1
    raise IbUnreachableError(
        f"the IB gateway at {address} has other programs with all client ids from "
        f"{address.client_id} to {last}"
    )
