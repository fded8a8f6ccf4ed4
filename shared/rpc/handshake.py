"""Handshakes that failed: what gRPC says of a connection that could not be made safe, in words."""

from __future__ import annotations

from collections.abc import Mapping

_ENCRYPTED: Mapping[str, str] = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS. Set KTRDR_TLS_CERT and KTRDR_TLS_KEY there, "
    "or leave KTRDR_TLS_CA unset here.",
    "certificate has expired": "its certificate has expired. Renew it there, or its authority's.",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not from an authority in KTRDR_TLS_CA. Set "
    "that to the file of the authority that issued it.",
    "Hostname Verification": "its certificate is for other names than the one in this address. "
    "Use a name or an address that stands in it, or have one issued for this.",
    "Socket closed": "it broke off the TLS handshake. If it asks for certificates, set "
    "KTRDR_TLS_CERT and KTRDR_TLS_KEY to one from an authority in its KTRDR_TLS_CLIENT_CA; "
    "else look at its log.",
    "andshake failed": "the TLS handshake failed. Look at its log, and at the certificates on "
    "both sides.",
}
"""Meanings by mark in gRPC's words; the first that is found counts."""
_CLOSED = (
    "it closed the connection at once. If it speaks TLS, set KTRDR_TLS_CA to the file of the "
    "authority that issued its certificate; if it is a container's port, the process in it may "
    "not listen yet."
)
_PLAIN: Mapping[str, str] = {"Socket closed": _CLOSED, "Connection reset by peer": _CLOSED}


def handshake_problem(message: str, *, encrypted: bool) -> str:
    """Return why no connection came about and the mend, from gRPC's words; empty if unknown.

    `message` is of a call whose connection was never made; `encrypted` says
    whether TLS was spoken on this side.
    """
    known = _ENCRYPTED if encrypted else _PLAIN
    return next((words for mark, words in known.items() if mark in message), "")
