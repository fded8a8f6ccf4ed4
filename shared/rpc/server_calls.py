"""gRPC's own counts of a server's calls (channelz).

They are read where gRPC's own channelz service reads them, as JSON. That service makes
a message of them, which takes as long again, and a busy server asks often.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # missing in the stubs

logger = logging.getLogger("ktrdr.process")

_creating = threading.Lock()
"""Held while a server is created, so that the one that is new is that one."""


class ServerCalls:
    """gRPC's counts of one server's calls."""

    def __init__(self) -> None:
        self._server: int | None = None
        self._told = False

    def count(self, create: Callable[[], grpc.Server]) -> grpc.Server:
        """Return the server that `create` makes; its calls are counted from now on.

        Raises RuntimeError unless it makes one server whose calls gRPC counts.
        """
        with _creating:
            newest = max(_servers(0), default=0)
            server = create()
            new = _servers(newest + 1)
        if len(new) != 1:
            raise RuntimeError(f"gRPC counts calls of {len(new)} new servers; one was expected")
        self._server = new[0]
        return server

    def under_way(self) -> int:
        """How many calls have reached the server and not ended; 0 without a server."""
        if self._server is None:
            return 0
        try:
            found = cygrpc.channelz_get_server(self._server)
        except ValueError:  # the server is gone
            return 0
        try:
            return _under_way(json.loads(found)["server"]["data"])
        except (ValueError, KeyError, TypeError) as error:
            self._tell(error)
            return 0

    def _tell(self, error: Exception) -> None:
        """Say once why there are no counts."""
        if not self._told:
            self._told = True
            logger.error("Calls that wait cannot be counted: %s", _unknown(error))


def _under_way(counts: dict[str, str]) -> int:
    started = int(counts["callsStarted"])
    return started - int(counts.get("callsSucceeded", 0)) - int(counts.get("callsFailed", 0))


def _servers(first: int) -> list[int]:
    """Ids of this process's servers, from `first` on, in the order they were created."""
    ids: list[int] = []
    while True:
        try:
            page: Any = json.loads(cygrpc.channelz_get_servers(first))
            ids += [int(server["ref"]["serverId"]) for server in page.get("server", ())]
        except (AttributeError, ValueError, KeyError, TypeError) as error:
            raise RuntimeError(f"gRPC's servers cannot be listed: {_unknown(error)}") from error
        if page.get("end"):
            return ids
        first = ids[-1] + 1


def _unknown(error: Exception) -> str:
    return f"{error!r} in what grpcio {grpc.__version__} tells of its servers; 1.85 is known"
