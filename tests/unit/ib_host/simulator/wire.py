"""A client of the TWS protocol that shows every field, and bars to serve to it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from ib_host.simulator.protocol import frame

PATIENCE = 20.0
"""Seconds a test waits for an answer; it takes milliseconds unless something is broken."""
IBM = ("0", "IBM", "STK", "", "0.0", "", "", "SMART", "", "USD", "", "")


class WireClient:
    """One connection, read message by message."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), PATIENCE)
        self._stream = self._socket.makefile("rb")

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def greet(self, versions: str = "v157..176") -> list[str]:
        """Begin, and return what the server answers."""
        body = versions.encode()
        self.write(b"API\0" + struct.pack(">I", len(body)) + body)
        return self.read()

    def start(self, client_id: int = 1) -> list[list[str]]:
        """Greet, say who it is, and return everything up to the notices' end."""
        self.greet()
        self.send(71, 2, client_id, "")
        return [self.read() for _ in range(5)]

    def send(self, *fields: object) -> None:
        """Send one message."""
        self.write(frame(fields))

    def read(self) -> list[str]:
        """Return the fields of the next message; EOFError if the connection has ended."""
        (length,) = struct.unpack(">I", self._exactly(4))
        body = self._exactly(length)
        assert body.endswith(b"\0")
        return body[:-1].decode().split("\0")

    def read_to_end(self) -> bytes:
        """Return whatever comes until the server closes the connection."""
        return self._stream.read()

    def ask_bars(self, number: int = 7, **asked: Any) -> None:
        """Ask for bars; nothing is read."""
        self.write(bars_request(number, **asked))

    def bars(self, number: int = 7, **asked: Any) -> list[list[str]]:
        """Ask for bars and return them, eight fields each."""
        self.ask_bars(number, **asked)
        kind, _, _, _, count, *fields = self.read()
        assert kind == "17", fields
        assert len(fields) == 8 * int(count)
        return [fields[at : at + 8] for at in range(0, len(fields), 8)]

    def refusal(self, number: int = 7, **asked: Any) -> tuple[int, str]:
        """Ask for bars and return code and text of the error that comes instead."""
        self.ask_bars(number, **asked)
        kind, _, answered, code, text, *_ = self.read()
        assert (kind, answered) == ("4", str(number)), text
        return int(code), text

    def close(self) -> None:
        """End the connection."""
        self._stream.close()
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise EOFError
        return data


def bars_request(
    number: int = 7,
    end: str = "20130301-23:00:00",
    size: str = "1 day",
    duration: str = "5 D",
    *,
    contract: Sequence[str] = IBM,
    regular: int = 1,
    what: str = "TRADES",
    date_format: int = 2,
    keeps_up: int = 0,
) -> bytes:
    """A request for bars, framed."""
    asked = (end, size, duration, regular, what, date_format, keeps_up, "")
    return frame((20, number, *contract, 0, *asked))


def made_bars(index: pd.DatetimeIndex) -> pd.DataFrame:
    """Bars at these instants, each different, with prices that need all their digits."""
    close = 100 + np.sin(np.arange(len(index), dtype=float)) / 3
    columns = {
        "open": close - 0.1,
        "high": close + 0.7,
        "low": close - 0.9,
        "close": close,
        "volume": np.arange(len(index), dtype=float) + 0.5,
    }
    return pd.DataFrame(columns, index=index.rename("time"))


def intraday(first: datetime, count: int, freq: str) -> pd.DataFrame:
    """Bars one after the other, around the clock."""
    return made_bars(pd.date_range(first, periods=count, freq=freq))


def market_hours(days: pd.DatetimeIndex, freq: str) -> pd.DataFrame:
    """Bars from 9:30 to 16:00 in New York on these days."""
    parts = [
        pd.date_range(f"{day:%Y-%m-%d} 09:30", f"{day:%Y-%m-%d} 15:59", freq=freq, tz="US/Eastern")
        for day in days
    ]
    return made_bars(pd.DatetimeIndex(np.concatenate([part.tz_convert("UTC") for part in parts])))
