"""Channels to ktrdr servers, with the options that both ends agree on."""

from __future__ import annotations

import grpc

from shared.rpc.security import PLAIN, ClientSecurity

KEEPALIVE_MS = 30_000
"""How often an idle connection is probed. Servers allow pings twice as often."""

# Without the backoff settings a restarted server stays unreachable for up to
# half a minute. A proxy meant for the web has no place before our servers.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.enable_http_proxy", 0),
    # A new channel is a new connection: shared, it would inherit the old one's backoff.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str, security: ClientSecurity = PLAIN) -> grpc.Channel:
    """Return a channel to a server; it connects when first used, and is the caller's to close.

    It sends no token by itself: `security.metadata` goes with each call.
    """
    if security.credentials is None:
        return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    return grpc.secure_channel(address, security.credentials(), options=CHANNEL_OPTIONS)
