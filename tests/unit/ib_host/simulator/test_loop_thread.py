"""Sessions at the end of their loop; starting and stopping is in test_server."""

from __future__ import annotations

import asyncio
from typing import cast

from ib_host.simulator.loop_thread import LoopThread
from tests.unit.ib_host.simulator.test_session import desk


class Connection:
    """A writer, and its transport, that notice being given up."""

    def __init__(self) -> None:
        self.is_aborted = False

    @property
    def transport(self) -> Connection:
        return self

    def abort(self) -> None:
        self.is_aborted = True


def test_a_connection_whose_session_never_began_is_given_up() -> None:
    connection = Connection()
    thread = LoopThread(desk(), "127.0.0.1", 0)

    async def welcome_and_cancel() -> None:
        thread._welcome(asyncio.StreamReader(), cast("asyncio.StreamWriter", connection))
        for session in tuple(thread._sessions):
            session.cancel()
        await asyncio.gather(*thread._sessions, return_exceptions=True)

    asyncio.run(welcome_and_cancel())

    assert connection.is_aborted
