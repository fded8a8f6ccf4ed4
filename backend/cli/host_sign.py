"""Whether an operation's host answers, by the reason a read of it did not succeed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from backend.cli.observation import STORE_AWAY, Observation, Trouble
from backend.cli.signs import WAIT, Remedy, Sign, address_of, where

NOT_ACCEPTED = frozenset({"WORKERS_BUSY", "START_UNDER_WAY", "START_UNKNOWN"})
"""Reasons of a host that is there and has not taken the operation yet; the next read tries."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a reason says of the host."""

    state: str
    text: str
    action: str
    advice: str
    """With {where} for the host and {at} for its address."""


_ASK_AGAIN = ("ask again", "Ask again in a moment.")
_MEND_ADDRESS = (
    "mend address",
    "Put the address {at} right in the backend's settings, or update the older process.",
)
_UNKNOWN = _Kind("UNKNOWN", "unknown", *_ASK_AGAIN)
_BUSY = _Kind("BUSY", "busy", *_ASK_AGAIN)
_FAILING = _Kind("FAILING", "fails", "see log", "See the log of {where}.")
_KINDS: Mapping[str, _Kind] = {
    "": _UNKNOWN,
    "REFRESH_BUSY": _UNKNOWN,
    "TOO_MANY_CALLS": _BUSY,
    "HOST_OVERLOADED": _BUSY,
    "HOST_UNREACHABLE": _Kind(
        "SILENT", "silent", "start host", "Start {where}; if it runs, see its log."
    ),
    "WRONG_HOST": _Kind(
        "WRONG",
        "wrong",
        "bring back",
        "Bring the instance that runs the operation, with its KTRDR_HOME, back to {at}.",
    ),
    "HOST_DENIED": _Kind(
        "DENIED",
        "denies",
        "mend token",
        "Give the backend, in KTRDR_TOKEN_FILE, a token with scope write that {where} knows.",
    ),
    "TLS_HANDSHAKE_FAILED": _Kind(
        "UNTRUSTED",
        "untrusted",
        "mend certificates",
        "Put right the certificates of {where} or of the backend; the reason names the setting.",
    ),
    "TOKEN_NOT_SENT": _Kind(
        "UNTRUSTED", "untrusted", "use TLS", "Set KTRDR_TLS_CA of the backend, and TLS at {where}."
    ),
    "PROXY_LOOP": _Kind("WRONG", "wrong", *_MEND_ADDRESS),
    "MALFORMED_ANSWER": _Kind("MALFORMED", "garbled", *_MEND_ADDRESS),
    STORE_AWAY: _Kind(
        "STORE_AWAY",
        "no store",
        "mend store",
        "Make room for the records of {where}, or bring its database back; it tries again when "
        "asked.",
    ),
}


def host_sign(observation: Observation) -> Sign:
    """Whether the process that the work is with answers."""
    trouble, address = observation.trouble, address_of(observation)
    facts = {"address": address} if address else {}
    if trouble is None:
        return Sign("ANSWERS", "answers", facts=facts)
    facts |= {"reason": trouble.reason, "message": trouble.message}
    if trouble.reason in NOT_ACCEPTED:
        return Sign("ANSWERS", "answers", remedy=WAIT, facts=facts)
    kind = _kind(trouble)
    advice = kind.advice.format(where=where(observation), at=address or "of the host")
    return Sign(kind.state, kind.text, _why(trouble), Remedy(kind.action, advice), facts)


def _kind(trouble: Trouble) -> _Kind:
    kind = _KINDS.get(trouble.reason, _FAILING)
    if kind is _BUSY and "target" not in trouble.metadata:
        return _UNKNOWN  # it is the backend that was too busy to ask
    return kind


def _why(trouble: Trouble) -> str:
    """What happened. The mend is the doctor's to say: it knows which process is meant."""
    first = re.split(r"(?<=[.!?]) ", trouble.message, maxsplit=1)[0]
    return first if first.endswith((".", "!", "?")) else f"{first or 'It did not answer'}."
