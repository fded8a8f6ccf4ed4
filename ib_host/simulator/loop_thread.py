"""The thread in which a simulator's event loop runs while it serves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from ib_host.simulator.desk import Desk
from ib_host.simulator.session import Session
from shared.rpc.server import AddressError

T = TypeVar("T")
SWIFT = 30.0
"""Seconds in which the loop does what it is asked to, unless something is broken."""


class LoopThread:
    """Serves one desk on one socket, once; owned by TwsSimulator, which stops it."""

    def __init__(self, desk: Desk, host: str, port: int) -> None:
        self._desk = desk
        self._host, self._port = host, port
        self._listening: Future[int] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._sessions: set[asyncio.Task[None]] = set()
        # A daemon, so that a program that forgets to stop it can end.
        self._thread = threading.Thread(target=self._run, name="tws-simulator", daemon=True)

    def start(self) -> int:
        """Listen; return the port. Raises AddressError."""
        self._thread.start()
        wait([self._listening], SWIFT)
        if self._listening.cancel():  # still pending; the thread ends once it has got there
            raise AddressError(
                f"Cannot listen on {self._host}:{self._port} within {SWIFT:g} s: finding the "
                "address takes too long. Name it by its number, such as 127.0.0.1."
            )
        error = self._listening.exception()
        if error is None:
            return self._listening.result()
        self._thread.join()
        if not isinstance(error, OSError | UnicodeError):
            raise error
        raise AddressError(
            f"Cannot listen on {self._host}:{self._port}: the port is taken or the address "
            "is not this machine's. Choose another, or port 0 for any that is free."
        ) from error

    def stop(self) -> None:
        """End all connections and the thread."""
        self._post(self._stopping.set)
        self._thread.join()

    def call(self, work: Callable[[Desk], T]) -> T:
        """Do something with the desk in its thread and return what it returns."""
        done: Future[T] = Future()

        def carry_out() -> None:
            try:
                done.set_result(work(self._desk))
            except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
                done.set_exception(error)

        self._post(carry_out)
        return done.result(SWIFT)

    def _post(self, work: Callable[[], None]) -> None:
        if self._loop is None:
            raise RuntimeError("the simulator's loop does not run")
        self._loop.call_soon_threadsafe(work)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._listening.done():
                self._listening.set_exception(error)  # raised again by who starts it
            elif not self._listening.cancelled():
                raise

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._welcome, self._host, self._port)
        if self._listening.set_running_or_notify_cancel():  # else nobody waits for it any more
            self._listening.set_result(server.sockets[0].getsockname()[1])
            await self._stopping.wait()
        server.close()
        for session in tuple(self._sessions):
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await server.wait_closed()

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(self._desk, reader, writer)
        task = asyncio.get_running_loop().create_task(session.run())
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        # It has closed its connection, unless it was cancelled before or while it did.
        task.add_done_callback(lambda _: writer.transport.abort())
