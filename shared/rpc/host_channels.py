"""The channels of a process to others: one per target, made when it is first needed."""

from __future__ import annotations

import threading

from shared.rpc.call_tracing import CallTracer
from shared.rpc.host_channel import HostChannel
from shared.rpc.security import PLAIN, ClientSecurity


class HostChannels:
    """Hands out the one channel to each target; safe to use from several threads."""

    def __init__(
        self,
        instance: str,
        security: ClientSecurity = PLAIN,
        tracer: CallTracer | None = None,
    ) -> None:
        """All as HostChannel's, the same for all targets."""
        self._tracer = tracer
        self._instance = instance
        self._security = security
        self._lock = threading.Lock()  # guards the fields below
        self._channels: dict[str, HostChannel] = {}
        self._closed = False

    def to(self, target: str) -> HostChannel:
        """Return the channel to a target; it connects when first used.

        After the end it is a closed one, as all of them are.
        """
        known = self._channels.get(target)  # an unguarded look: files may be read for a new one
        if known is not None:
            return known
        made = HostChannel(target, self._instance, self._security, self._tracer)
        with self._lock:
            channel, closed = self._channels.setdefault(target, made), self._closed
        if closed or channel is not made:
            made.close()  # the end, or another caller, was quicker
        return channel

    def close(self) -> None:
        """Close all of them; calls on their way end."""
        with self._lock:
            self._closed = True
            channels = list(self._channels.values())
        for channel in channels:
            channel.close()
