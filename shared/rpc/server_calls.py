"""gRPC's own counts of a server's calls (channelz)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz import ChannelzServicer

logger = logging.getLogger("ktrdr.process")

_CHANNELZ: Any = ChannelzServicer
"""It is asked without a call, which its types do not foresee."""
_creating = threading.Lock()
"""Held while a server is created, so that the one that is new is that one."""


class ServerCalls:
    """gRPC's counts of one server's calls."""

    def __init__(self) -> None:
        self._request: channelz_pb2.GetServerRequest | None = None
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
        self._request = channelz_pb2.GetServerRequest(server_id=new[0])
        return server

    def under_way(self) -> int:
        """How many calls have reached the server and not ended; 0 without a server."""
        if self._request is None:
            return 0
        asking = _Asking()
        found = _CHANNELZ.GetServer(self._request, asking)
        if found is None:
            self._tell(asking)
            return 0
        counts = found.server.data
        return int(counts.calls_started - counts.calls_succeeded - counts.calls_failed)

    def _tell(self, asking: _Asking) -> None:
        """Say once why there are no counts, unless it is that the server is gone."""
        if asking.code is not grpc.StatusCode.NOT_FOUND and not self._told:
            self._told = True
            logger.error("Calls that wait cannot be counted: %s", asking)


class _Asking:
    """Asks gRPC's own servicer without a call, and hears why it has no answer."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self._details = ""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Take the code of an error."""
        self.code = code

    def set_details(self, details: str) -> None:
        """Take the words of an error."""
        self._details = details

    def __str__(self) -> str:
        return f"{self._details}; install the grpcio-channelz that fits grpcio {grpc.__version__}"


def _servers(first: int) -> list[int]:
    """Ids of this process's servers, from `first` on, in the order they were created."""
    ids: list[int] = []
    while True:
        request, asking = channelz_pb2.GetServersRequest(start_server_id=first), _Asking()
        page = _CHANNELZ.GetServers(request, asking)
        if page is None:
            raise RuntimeError(f"gRPC's servers cannot be listed: {asking}")
        ids += [server.ref.server_id for server in page.server]
        if page.end:
            return ids
        first = ids[-1] + 1
