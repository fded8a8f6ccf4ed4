"""Instruments: what a symbol stands for at IB, a stock or a pair of currencies."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CURRENCIES = frozenset(
    {
        *("AUD", "CAD", "CHF", "CNH", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS"),
        *("JPY", "MXN", "NOK", "NZD", "PLN", "SEK", "SGD", "TRY", "USD", "ZAR"),
    }
)
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9. -]{0,19}")


@dataclass(frozen=True, slots=True)
class Instrument:
    """What a symbol stands for at IB."""

    symbol: str
    security_type: str
    exchange: str
    currency: str
    shows: str
    """What its bars are made of: trades, or midpoints where trades are not told."""


def instrument(symbol: str) -> Instrument:
    """Return what a symbol stands for: a pair of currencies, else a stock in the USA.

    Raises ValueError with the mend if it cannot be a symbol.
    """
    if not _SYMBOL.fullmatch(symbol):
        raise ValueError(
            f"IB has no symbol {symbol[:40]!r}: write a stock as IBM or BRK.B and a pair of "
            "currencies as EURUSD, in capital letters."
        )
    if pair := currencies(symbol):
        return Instrument(pair[0], "CASH", "IDEALPRO", pair[1], "MIDPOINT")
    return Instrument(stock_symbol(symbol), "STK", "SMART", "USD", "TRADES")


def currencies(symbol: str) -> tuple[str, str] | None:
    """Return the two currencies of a pair, such as EURUSD or EUR.USD; None if it is none."""
    base, quote = symbol[:3], symbol[3:].removeprefix(".")
    return (base, quote) if base != quote and {base, quote} <= _CURRENCIES else None


def stock_symbol(symbol: str) -> str:
    """Return how IB writes a stock: its class of shares after a space, as BRK B."""
    return symbol.replace(".", " ")
