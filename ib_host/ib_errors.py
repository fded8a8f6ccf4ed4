"""IB's errors: what each means for a load, by its code and where need be its text.

What a message about the whole connection says is here as well: most of its codes
may also be the answer to a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class IbError(Exception):
    """IB's answer to a request is an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = " ".join(text.split())[:300]


class IbTimeoutError(Exception):
    """IB did not answer within the time given."""


class IbConnectionError(Exception):
    """IB cannot be reached, or the connection was lost before the answer; the text says how."""


class IbUnreachableError(IbConnectionError):
    """There is no connection to IB, so the request was not sent; the text says why."""


GatewayError = IbError | IbTimeoutError | IbConnectionError
"""What a question to the gateway can end with in place of an answer."""


class Verdict(StrEnum):
    """What a load does about an error."""

    RETRY = "retry"
    """Ask again after a while, a few times."""
    SKIP = "skip"
    """There are no bars in this window; go on with the next."""
    FAIL = "fail"
    """Asking again does not help; the series has failed."""
    AWAIT = "await"
    """Nothing can be had until the connection is back; wait for that, then ask again."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What an error means."""

    verdict: Verdict
    reason: str
    """For programs."""
    told: str
    """For people: what has happened and what to do about it."""
    waits: tuple[float, ...] = ()
    """Seconds before each time it is asked again; then it has failed."""
    concerns_all: bool = False
    """Whether other series would fare no better."""


_PACING = Diagnosis(
    Verdict.RETRY,
    "IB_PACING",
    "IB's limits on asking are reached. Other programs of the same IB user count too: stop them "
    "or load again in ten minutes.",
    (15, 60, 180, 400),
    concerns_all=True,
)
_TOO_MANY = Diagnosis(
    Verdict.RETRY,
    "IB_TOO_MANY_REQUESTS",
    "IB refuses to take more requests at once. Stop other programs of the same IB user or load "
    "again later.",
    (2, 5, 15, 30, 60),
    concerns_all=True,
)
_TIMED_OUT = Diagnosis(
    Verdict.RETRY,
    "IB_TIMED_OUT",
    "IB did not answer in time, several times. Load again later.",
    (5, 15, 45),
)
_CANCELLED = Diagnosis(
    Verdict.RETRY,
    "IB_QUERY_CANCELLED",
    "IB cancelled the request, several times. Load again later.",
    (1, 5, 15),
)
_ELSEWHERE = Diagnosis(
    Verdict.RETRY,
    "IB_USED_ELSEWHERE",
    "The IB user is logged in elsewhere, where its market data go. Log out there and load again.",
    (60, 120, 300, 600),
    concerns_all=True,
)
_UNKNOWN = Diagnosis(
    Verdict.RETRY,
    "IB_ERROR",
    "IB keeps refusing with an error that is not known here. Look it up in IB's list of message "
    "codes; if its text is not English, set the gateway's language to English.",
    (2, 10, 30),
)
_NO_DATA = Diagnosis(Verdict.SKIP, "IB_NO_DATA", "IB has no bars for this.")
_NO_HEAD = Diagnosis(Verdict.SKIP, "IB_NO_HEAD", "IB does not say when the bars begin.")
_AWAIT = Diagnosis(
    Verdict.AWAIT,
    "IB_UNAVAILABLE",
    "IB cannot be reached. Start the IB gateway, log in and load again.",
    concerns_all=True,
)


def _fails(reason: str, told: str, *, concerns_all: bool = False) -> Diagnosis:
    return Diagnosis(Verdict.FAIL, reason, told, concerns_all=concerns_all)


_NO_CONTRACT = _fails(
    "IB_NO_SUCH_CONTRACT",
    "IB knows no such contract, or more than one. Write a stock as IBM or BRK.B and a pair of "
    "currencies as EURUSD.",
)
_NOT_PERMITTED = _fails(
    "IB_NOT_PERMITTED",
    "The IB user may not have these data. Subscribe to them in IB's account management.",
)
_REFUSED = _fails("IB_REQUEST_REFUSED", "IB does not serve this request.")

_BY_TEXT: tuple[tuple[re.Pattern[str], Diagnosis], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), diagnosis)
    for pattern, diagnosis in (
        (r"pacing violation", _PACING),
        (r"returned no data", _NO_DATA),
        (r"no head time ?stamp", _NO_HEAD),
        (r"no market data permission|not subscribed", _NOT_PERMITTED),
        (r"different IP address|competing live session", _ELSEWHERE),
        (r"simultaneous", _TOO_MANY),
        (r"request timed out", _TIMED_OUT),
        (r"query cancell?ed", _CANCELLED),
        (r"HMDS (server|connection)|connection attempt failed", _AWAIT),
        (r"invalid step|BEST queries|length exceed", _REFUSED),
    )
)
"""What the texts of code 162, which says only that there is no history, mean."""

_BY_CODE: Mapping[int, Diagnosis] = {
    100: _TOO_MANY,
    322: _TOO_MANY,
    420: _PACING,
    10197: _ELSEWHERE,
    200: _NO_CONTRACT,
    203: _NOT_PERMITTED,
    354: _NOT_PERMITTED,
    10089: _NOT_PERMITTED,
    10090: _NOT_PERMITTED,
    10186: _NOT_PERMITTED,
    10187: _NOT_PERMITTED,
    **dict.fromkeys((166, 321, 386, 430, 10299, 10314, 10339), _REFUSED),
    **dict.fromkeys((502, 504, 507, 509, 1100, 1101, 1300, 2103, 2105, 2110, 2157), _AWAIT),
    **dict.fromkeys(
        (357, 503),
        _fails(
            "IB_GATEWAY_TOO_OLD",
            "The IB gateway is too old to be talked to. Install a current one.",
            concerns_all=True,
        ),
    ),
}
"""What is known by the code alone; 322 and 10187 have texts that say more."""


def diagnose(error: GatewayError) -> Diagnosis:
    """Return what an error of the gateway means.

    What is not known is asked again a few times: new codes and translated texts
    are mostly passing troubles.
    """
    match error:
        case IbConnectionError():
            return _AWAIT
        case IbTimeoutError():
            return _TIMED_OUT
        case IbError(code=162 | 322 | 10187 as code, text=text):
            return _by_text(text) or _BY_CODE.get(code, _UNKNOWN)
        case IbError(code=code):
            return _BY_CODE.get(code, _UNKNOWN)


def _by_text(text: str) -> Diagnosis | None:
    return next((diagnosis for pattern, diagnosis in _BY_TEXT if pattern.search(text)), None)


# -------------------------------------------------------- what concerns no request


class Signal(StrEnum):
    """What a message about the whole connection says."""

    LINK_LOST = "link lost"
    LINK_RESTORED = "link restored"
    HANG_UP = "hang up"
    FARM_LOST = "farm lost"
    FARM_RESTORED = "farm restored"
    ID_TAKEN = "client id taken"


SIGNALS: Mapping[int, Signal] = {
    1100: Signal.LINK_LOST,
    2110: Signal.LINK_LOST,
    1102: Signal.LINK_RESTORED,
    1101: Signal.LINK_RESTORED,
    1300: Signal.HANG_UP,
    2105: Signal.FARM_LOST,
    2106: Signal.FARM_RESTORED,
    2107: Signal.FARM_RESTORED,
    326: Signal.ID_TAKEN,
}
"""By code. Farms are those of historical data; all other messages are for the log."""
