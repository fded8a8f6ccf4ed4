"""One client's connection: its handshake, its requests, and what befalls them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from ib_host.simulator import answers, refusals
from ib_host.simulator.answers import Fields
from ib_host.simulator.desk import Asked, Desk
from ib_host.simulator.faults import (
    FAILURES,
    Cut,
    Delay,
    Drop,
    Effect,
    Fail,
    FarmDown,
    Hang,
    LinkLost,
    Moment,
    Notice,
)
from ib_host.simulator.pacing import MessageRate
from ib_host.simulator.protocol import (
    BarsRequest,
    Cancellation,
    DataRequest,
    DetailsRequest,
    HeadRequest,
    OtherMessage,
    ProtocolError,
    StartApi,
    TimeRequest,
    frame,
    parse,
    read_greeting,
    read_message,
)
from ib_host.simulator.refusals import Refusal
from ib_host.simulator.replies import asked, reply

logger = logging.getLogger("ktrdr.simulator")

WELL = (2104, 2106, 2158)
"""What TWS tells a new client: all farms are well."""

_LAST_BYTES = 1.0
"""Seconds a client gets to take what was sent before the connection ended."""
_UNHEARD = 65_536
"""Bytes taken at once of what a client sends after its conversation is over."""


class _HangUpError(Exception):
    """Ends the connection on purpose."""


class Session:
    """Serves one connection; lives in the thread of the event loop.

    Every request is answered by a task of its own, so that one that hangs
    delays no other.
    """

    def __init__(
        self, desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._desk = desk
        self._reader = reader
        self._writer = writer
        self._rate = MessageRate(desk.pacing.rules, desk.clock)
        self._version = 0
        self._client_id: int | None = None
        """None until the client has been accepted."""
        self._is_deaf = False
        """Whether a fault has this client wait for being accepted, for ever."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[int, tuple[DataRequest, asyncio.Task[None]]] = {}
        self._open_heads: set[int] = set()
        """Head timestamps that were answered and not cancelled, which TWS counts as open."""

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        try:
            await self._converse()
        except (asyncio.IncompleteReadError, ConnectionError):
            logger.info("Client %s is gone", self._client_id)
        except (ProtocolError, _HangUpError) as error:
            logger.info("Hung up on client %s: %s", self._client_id, error)
        finally:
            await self._end()

    def notify(self, code: int) -> None:
        """Tell the client something about the whole connection."""
        self._send(answers.notice(code, self._version))

    def hang_up(self) -> None:
        """Close the connection once what was sent has gone out."""
        self._writer.close()

    # ------------------------------------------------------------------ the conversation

    async def _converse(self) -> None:
        self._version = await read_greeting(self._reader)
        self._send(answers.greeting(self._version, self._desk.clock.now()))
        while True:
            fields = await read_message(self._reader)
            try:
                self._rate.count()
            except Refusal as refusal:
                self._refuse(answers.SYSTEM, refusal)
                raise _HangUpError(refusal.text) from None
            if not self._is_deaf:
                await self._take(fields)

    async def _take(self, fields: Sequence[str]) -> None:
        try:
            message = parse(fields)
        except ProtocolError as error:
            self._refuse_unread(str(error))
            return
        match message:
            case StartApi(client_id=client_id):
                await self._start_api(client_id)
            case _ if self._client_id is None:
                raise ProtocolError("a request came before the client said who it is")
            case Cancellation(request_id=request_id):
                self._cancel(request_id)
            case TimeRequest():
                self._spawn(self._tell_time)
            case OtherMessage(fields=fields):
                self._answer_other(fields)
            case DetailsRequest() | BarsRequest() | HeadRequest():
                self._begin(message)

    async def _start_api(self, client_id: int) -> None:
        if self._client_id is not None:
            raise ProtocolError("the client said twice who it is")
        effect = self._strike(Asked(Moment.CONNECT, client_id))
        if isinstance(effect, Hang):
            self._is_deaf = True
            return
        try:
            await self._suffer(effect)
            if client_id in self._desk.clients:
                raise refusals.client_id_in_use()
        except Refusal as refusal:
            self._refuse(answers.SYSTEM, refusal)
            raise _HangUpError(refusal.text) from None
        # First, since another client may ask for the same id while this one is slow to read.
        self._client_id = client_id
        self._desk.clients[client_id] = self
        await self._deliver([answers.managed_accounts(), answers.next_id()], effect)
        for code in WELL:
            self.notify(code)

    def _answer_other(self, fields: Sequence[str]) -> None:
        try:
            messages = answers.start_up(fields)
        except IndexError:
            messages = None
        if messages is None:
            self._refuse_unread(f"message {fields[0][:20]!r} is not served")
        for message in messages or ():
            self._send(message)

    async def _tell_time(self) -> None:
        effect = self._strike(Asked(Moment.TIME, self._client_id or 0))
        messages = [answers.current_time(self._desk.clock.now())]
        try:
            await self._suffer(effect)
        except Refusal as refusal:
            messages = [answers.error(answers.SYSTEM, refusal, self._version)]
        await self._deliver(messages, effect)

    # ---------------------------------------------------------------------- the requests

    def _begin(self, request: DataRequest) -> None:
        number = request.request_id
        if number in self._running or number in self._open_heads:
            self._refuse(number, Refusal(102, "Duplicate ticker ID."))
            return
        task = self._spawn(partial(self._serve, request))
        self._running[number] = (request, task)

    async def _serve(self, request: DataRequest) -> None:
        effect = self._strike(asked(request, self._client_id or 0))
        number, messages = request.request_id, list[Fields]()
        try:
            if not isinstance(request, DetailsRequest):
                self._desk.pacing.open((self, number))
            await self._suffer(effect)
            await self._desk.link.reach()
            messages += reply(self._desk, request, self._version)
            if isinstance(request, HeadRequest):
                self._open_heads.add(number)
        except Refusal as refusal:
            messages = [answers.error(number, refusal, self._version)]
        except _HangUpError:
            raise
        except Exception:  # or the client would wait forever
            logger.exception("A request could not be answered: %s", request)
            unexpected = refusals.history("HMDS internal error, see the simulator's log")
            messages = [answers.error(number, unexpected, self._version)]
        # Not in a `finally`: who cancels has done it, and the number may be in use again.
        self._running.pop(number, None)
        if number not in self._open_heads:
            self._desk.pacing.close((self, number))
        await self._deliver(messages, effect)

    def _cancel(self, number: int) -> None:
        if number in self._open_heads:
            self._open_heads.discard(number)
            self._desk.pacing.close((self, number))
            return
        if number not in self._running:
            self._refuse(number, refusals.unknown_query(number))
            return
        request, task = self._running.pop(number)
        task.cancel()
        self._desk.pacing.close((self, number))
        if isinstance(request, BarsRequest):
            self._refuse(number, refusals.query_cancelled(number))

    # ------------------------------------------------------------------------ the faults

    def _strike(self, request: Asked) -> Effect | None:
        """Write a request down, with the fault it is to suffer."""
        effect = self._desk.faults.take(request.at, request.symbol)
        self._desk.note(request, effect)
        return effect

    async def _suffer(self, effect: Effect | None) -> None:
        """Carry out what happens before the answer; raises Refusal if that is an error."""
        match effect:
            case Hang():
                await asyncio.Event().wait()
            case Drop():
                raise _HangUpError("as planned")
            case Delay(seconds=seconds):
                await asyncio.sleep(seconds)
            case Fail(refusal=refusal):
                raise refusal.anew()
            case Notice(code=code):
                self._desk.announce(code)
            case LinkLost(restored=restored, seconds=seconds):
                self._desk.lose_link(restored, seconds)
            case FarmDown(seconds=seconds):
                self._desk.lose_farm(seconds)
                raise FAILURES["hmds-down"].anew()

    async def _deliver(self, messages: Sequence[Fields], effect: Effect | None) -> None:
        """Send an answer; only half of its bytes if the fault says so."""
        data = b"".join(frame(message) for message in messages)
        if isinstance(effect, Cut):
            self._writer.write(data[: len(data) // 2])
            raise _HangUpError("as planned, in the middle of an answer")
        self._writer.write(data)
        with suppress(ConnectionError):  # the reading side notices as well, and ends the session
            await self._writer.drain()

    # ----------------------------------------------------------------------------- the rest

    def _send(self, fields: Fields) -> None:
        self._writer.write(frame(fields))

    def _refuse(self, number: int, refusal: Refusal) -> None:
        self._send(answers.error(number, refusal, self._version))

    def _refuse_unread(self, why: str) -> None:
        self._refuse(answers.SYSTEM, Refusal(320, f"Error reading request: {why}"))

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._or_hang_up(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _or_hang_up(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except _HangUpError as error:
            logger.info("Hung up on client %s: %s", self._client_id, error)
            self.hang_up()

    async def _end(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        # Before anything is waited for: a simulator that stops cancels this too.
        for number in {*self._running, *self._open_heads}:
            self._desk.pacing.close((self, number))
        if self._client_id is not None:
            del self._desk.clients[self._client_id]
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_LAST_BYTES):
                try:
                    await self._hear_out()
                finally:
                    self._writer.close()
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except ConnectionError:
            logger.debug("Client %s left without listening to the end", self._client_id)

    async def _hear_out(self) -> None:
        """Send no more, and take what the client still sends until it closes.

        A socket closed with something unread resets its connection, and the client
        would lose what it was told last.
        """
        if self._writer.can_write_eof():
            self._writer.write_eof()
        while await self._reader.read(_UNHEARD):
            pass
