"""Addresses: which of them lead to this machine alone."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

_SCHEMES = ("ipv4:", "ipv6:", "dns:")
"""Names that gRPC lets precede an address."""


def is_local(address: str) -> bool:
    """Whether nobody on another machine is at `host:port`, as listener or as caller.

    Also reads what gRPC calls targets, such as `dns:///localhost:50051`. A name
    that is not localhost is not looked up, and counts as another machine's.
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in _SCHEMES:
        if address.startswith(scheme):
            address = address.removeprefix(scheme).rpartition("/")[2]
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        found = ip_address(host)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_loopback
