"""The TWS socket protocol as a server reads it: frames, fields, requests.

A frame is a length of four bytes, big-endian, and UTF-8 fields that each end in
NUL. Knows no market data and no sockets beyond a stream to read from.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SERVER_VERSION = 176
"""Newer clients would expect other messages from a higher one, protobuf from 201 on."""
OLDEST_CLIENT = 157
"""Version from which the messages have the shape they are read in here."""
LONGEST_FRAME = 1 << 20
"""Bytes; no request comes near it, so a longer one is not TWS's protocol."""
_GREETING = b"API\0"
_VERSIONS = re.compile(r"v(\d{1,6})(?:\.\.(\d{1,6}))?(?: .*)?")


class ProtocolError(Exception):
    """What came in is not what a client of TWS sends; the text says what it is."""


@dataclass(frozen=True, slots=True)
class ContractQuery:
    """The contract of a request, as far as it was said; empty fields match all."""

    con_id: int
    symbol: str
    sec_type: str
    exchange: str
    primary_exchange: str
    currency: str
    local_symbol: str


@dataclass(frozen=True, slots=True)
class DetailsRequest:
    """Asks which contracts a query fits (message 9)."""

    request_id: int
    contract: ContractQuery


@dataclass(frozen=True, slots=True)
class BarsRequest:
    """Asks for historical bars (message 20), its fields as they came."""

    request_id: int
    contract: ContractQuery
    end: str
    """Instant before which the bars begin; empty means now."""
    bar_size: str
    duration: str
    regular_hours: bool
    """useRTH: leave out what is outside regular trading hours."""
    what: str
    """whatToShow."""
    date_format: int
    """1 for text, 2 for seconds since 1970."""
    keeps_up: bool
    """keepUpToDate: send bars as they form."""


@dataclass(frozen=True, slots=True)
class HeadRequest:
    """Asks since when there are data (message 87)."""

    request_id: int
    contract: ContractQuery
    what: str
    regular_hours: bool
    date_format: int


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Ends a request of bars (message 25) or of a head timestamp (message 90)."""

    request_id: int


@dataclass(frozen=True, slots=True)
class TimeRequest:
    """Asks for the server's time (message 49)."""


@dataclass(frozen=True, slots=True)
class StartApi:
    """Says who the client is (message 71); nothing is served before it."""

    client_id: int


@dataclass(frozen=True, slots=True)
class OtherMessage:
    """Any other message, whose fields are read where it is answered."""

    fields: tuple[str, ...]


DataRequest = DetailsRequest | BarsRequest | HeadRequest
Message = DataRequest | Cancellation | TimeRequest | StartApi | OtherMessage


def frame(fields: Sequence[object]) -> bytes:
    """Encode one message; floats keep every bit."""
    body = "".join(f"{_text(field)}\0" for field in fields).encode()
    return struct.pack(">I", len(body)) + body


async def read_greeting(reader: asyncio.StreamReader) -> int:
    """Read how a client begins; return the version to speak.

    Raises ProtocolError if it is no client of TWS, or one too old, IncompleteReadError
    if it ends before it has said so.
    """
    if await reader.readexactly(len(_GREETING)) != _GREETING:
        raise ProtocolError("the greeting is not that of a TWS client")
    match = _VERSIONS.fullmatch((await _read_body(reader)).decode(errors="replace"))
    if match is None:
        raise ProtocolError("the greeting names no versions")
    oldest, newest = int(match[1]), int(match[2] or match[1])
    version = min(SERVER_VERSION, newest)
    if version < max(oldest, OLDEST_CLIENT):
        raise ProtocolError(
            f"versions {oldest} to {newest} are not served; {OLDEST_CLIENT} to {SERVER_VERSION} are"
        )
    return version


async def read_message(reader: asyncio.StreamReader) -> list[str]:
    """Read one frame and return its fields; raises ProtocolError, IncompleteReadError."""
    body = await _read_body(reader)
    if not body.endswith(b"\0"):
        raise ProtocolError("a message does not end in NUL")
    return body[:-1].decode(errors="backslashreplace").split("\0")


def parse(fields: Sequence[str]) -> Message:
    """Read the fields of a message; raises ProtocolError if they cannot be."""
    try:
        read = _READERS.get(int(fields[0]))
        return OtherMessage(tuple(fields)) if read is None else read(fields)
    except (ValueError, IndexError) as error:
        raise ProtocolError(f"message {fields[0][:20]!r} cannot be read") from error


def _head_request(fields: Sequence[str]) -> HeadRequest:
    return HeadRequest(
        request_id=int(fields[1]),
        contract=_contract(fields, 2),
        regular_hours=_flag(fields[15]),
        what=fields[16],
        date_format=int(fields[17]),
    )


def _bars_request(fields: Sequence[str]) -> BarsRequest:
    if len(fields) < 23:
        raise IndexError
    return BarsRequest(
        request_id=int(fields[1]),
        contract=_contract(fields, 2),
        end=fields[15],
        bar_size=fields[16],
        duration=fields[17],
        regular_hours=_flag(fields[18]),
        what=fields[19],
        date_format=int(fields[20]),
        keeps_up=_flag(fields[-2]),  # from the end: legs of a combination may stand before it
    )


def _contract(fields: Sequence[str], first: int) -> ContractQuery:
    """Read the twelve fields of a contract and the one after them that goes with it."""
    con_id, symbol, sec_type, _, _, _, _, exchange, primary, currency, local, _, _ = fields[
        first : first + 13
    ]
    return ContractQuery(int(con_id or 0), symbol, sec_type, exchange, primary, currency, local)


_READERS: Mapping[int, Callable[[Sequence[str]], Message]] = {
    9: lambda fields: DetailsRequest(int(fields[2]), _contract(fields, 3)),
    20: _bars_request,
    25: lambda fields: Cancellation(int(fields[2])),
    49: lambda _: TimeRequest(),
    71: lambda fields: StartApi(int(fields[2])),
    87: _head_request,
    90: lambda fields: Cancellation(int(fields[1])),
}
"""How a message is read, by its number."""


def _flag(field: str) -> bool:
    if field not in {"0", "1"}:
        raise ValueError
    return field == "1"


def _text(field: object) -> str:
    match field:
        case bool():
            return "1" if field else "0"
        case float():
            return repr(float(field))  # numpy's floats would name their type
        case _:
            return str(field)


async def _read_body(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    if not 0 < length <= LONGEST_FRAME:
        raise ProtocolError(f"a message of {length} bytes is not one of TWS's")
    return await reader.readexactly(length)
