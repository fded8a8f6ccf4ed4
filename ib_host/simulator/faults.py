"""Faults on demand: which request suffers what, and how both are written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ib_host.simulator import refusals
from ib_host.simulator.refusals import Refusal, history


class Moment(StrEnum):
    """Where a fault strikes."""

    CONNECT = "connect"
    """When a client says who it is."""
    DETAILS = "details"
    HEAD = "head"
    BARS = "bars"
    TIME = "time"
    ANY = "any"
    """Any of the requests; not connecting."""


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer, until the request is cancelled or the connection ends."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is closed instead of an answer."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is closed in the middle of the answer's bytes."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The answer comes late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    """An error instead of an answer."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Notice:
    """A message about the whole connection goes before the answer."""

    code: int


@dataclass(frozen=True, slots=True)
class LinkLost:
    """TWS loses its servers (1100): nothing is answered until the link is back.

    It comes back after `seconds`, never by itself if None. With 1102 what was
    asked meanwhile is then answered, with 1101 it is lost.
    """

    restored: int = 1102
    seconds: float | None = 1.0


@dataclass(frozen=True, slots=True)
class FarmDown:
    """The farm of historical data is down (2105) for `seconds`, then back (2106)."""

    seconds: float | None = 1.0


Effect = Hang | Drop | Cut | Delay | Fail | Notice | LinkLost | FarmDown


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens, to which requests."""

    effect: Effect
    at: Moment = Moment.ANY
    symbol: str = ""
    """Only requests about this symbol; empty means all."""
    skip: int = 0
    """How many matching requests are spared first."""
    times: int = 1
    """How many then suffer; 0 means all."""

    def strikes(self, at: Moment, symbol: str) -> bool:
        """Whether it matches a request of this kind about this symbol."""
        in_place = self.at is at or (self.at is Moment.ANY and at is not Moment.CONNECT)
        return in_place and self.symbol in {"", symbol}


class FaultPlan:
    """The faults to come; may be added to at any time, from any thread."""

    def __init__(self, *faults: Fault) -> None:
        self._lock = threading.Lock()  # guards the list and the counts
        self._faults: list[_Counted] = [_Counted(fault) for fault in faults]

    def add(self, fault: Fault) -> None:
        """Plan one more; it counts requests from now on."""
        with self._lock:
            self._faults.append(_Counted(fault))

    def clear(self) -> None:
        """Forget all faults that have not struck yet."""
        with self._lock:
            self._faults.clear()

    def take(self, at: Moment, symbol: str = "") -> Effect | None:
        """Return what happens to this request; the fault planned first wins."""
        with self._lock:
            due = [one for one in self._faults if one.fault.strikes(at, symbol) and one.count()]
            if not due:
                return None
            due[0].struck += 1
            return due[0].fault.effect


@dataclass(slots=True)
class _Counted:
    fault: Fault
    seen: int = 0
    struck: int = 0

    def count(self) -> bool:
        """Count a matching request; whether the fault is due."""
        self.seen += 1
        return self.seen > self.fault.skip and (
            not self.fault.times or self.struck < self.fault.times
        )


FAILURES: Mapping[str, Refusal] = {
    "pacing": refusals.pacing(),
    "no-data": history("HMDS query returned no data: asked@SIMULATOR Trades"),
    "timed-out": history("Request Timed Out"),
    "query-cancelled": history("API historical data query cancelled: 0"),
    "hmds-down": history("HMDS server disconnect occurred.  Attempting reconnection..."),
    "hmds-connecting": history(
        "HMDS connection attempt failed.  Connection will be re-attempted..."
    ),
    "different-ip": history("Trading TWS session is connected from a different IP address"),
    "no-permission": history("No market data permissions for NYSE STK"),
    "invalid-step": history("invalid step: 1"),
    "best": history("BEST queries are not supported for this contract"),
    "no-head": history("No head time stamp"),
    "odd-162": history("A text that nobody has seen before"),
    "100": refusals.too_many_messages(50),
    "200": refusals.no_definition(),
    "203": Refusal(203, "The security is not available or allowed for this account"),
    "321": refusals.not_valid("Historical data bar size setting is invalid."),
    "322": refusals.too_many_open(50),
    "326": refusals.client_id_in_use(),
    "354": Refusal(354, "Requested market data is not subscribed."),
    "366": refusals.unknown_query(0),
    "420": Refusal(420, "Invalid Real-time Query:Historical data request pacing violation"),
    "10187": Refusal(10187, "Failed to request historical ticks:No market data permissions"),
    "10197": Refusal(10197, "No market data during competing live session"),
    "10299": Refusal(
        10299, "Expected what to show is MIDPOINT, please use that instead of TRADES."
    ),
    "10314": refusals.bad_end(),
}
"""Errors by the name they have in a fault's text."""


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 86400:
        raise ValueError
    return seconds


_EFFECTS: Mapping[str, Callable[[str], Effect]] = {
    "hang": lambda _: Hang(),
    "drop": lambda _: Drop(),
    "cut": lambda _: Cut(),
    "delay": lambda text: Delay(_seconds(text)),
    "notice": lambda text: Notice(int(text)),
    "1100": lambda _: LinkLost(seconds=None),
    "1101": lambda text: LinkLost(1101, _seconds(text or "1")),
    "1102": lambda text: LinkLost(1102, _seconds(text or "1")),
    "farm-down": lambda text: FarmDown(_seconds(text or "1")),
}


def parse_fault(text: str) -> Fault:
    """Read `PLACE[/SYMBOL][@SKIP][xTIMES]=EFFECT[:ARGUMENT]`; raises ValueError with the mend."""
    target, _, effect = text.partition("=")
    try:
        target, times = _suffix(target, "x", 1)
        target, skip = _suffix(target, "@", 0)
        place, _, symbol = target.partition("/")
        return Fault(_effect(effect), Moment(place), symbol, skip, times)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no fault; write PLACE[/SYMBOL][@SKIP][xTIMES]=EFFECT[:ARGUMENT], with "
            f"PLACE one of {', '.join(Moment)} and EFFECT one of {', '.join(_EFFECTS)}, "
            f"error:CODE:TEXT, {', '.join(FAILURES)}; such as bars@2=hang or head/IBM=200"
        ) from error


def _suffix(text: str, mark: str, default: int) -> tuple[str, int]:
    """Cut a number off that stands last behind a mark."""
    rest, found, number = text.rpartition(mark)
    return (rest, int(number)) if found and number.isdecimal() else (text, default)


def _effect(text: str) -> Effect:
    name, _, argument = text.partition(":")
    if name == "error":
        code, _, words = argument.partition(":")
        return Fail(Refusal(int(code), words))
    if name in FAILURES and not argument:
        return Fail(FAILURES[name])
    if name not in _EFFECTS:
        raise ValueError
    return _EFFECTS[name](argument)
