from __future__ import annotations

import pytest

from ib_host.instruments import instrument


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("IBM", ("IBM", "STK", "SMART", "USD", "TRADES")),
        ("BRK.B", ("BRK B", "STK", "SMART", "USD", "TRADES")),
        ("EURUSD", ("EUR", "CASH", "IDEALPRO", "USD", "MIDPOINT")),
        ("EUR.USD", ("EUR", "CASH", "IDEALPRO", "USD", "MIDPOINT")),
        ("USDUSD", ("USDUSD", "STK", "SMART", "USD", "TRADES")),
        ("GOOGLE", ("GOOGLE", "STK", "SMART", "USD", "TRADES")),
    ],
)
def test_a_symbol_is_a_pair_of_currencies_or_a_stock(
    symbol: str, expected: tuple[str, ...]
) -> None:
    found = instrument(symbol)
    assert expected == (
        found.symbol,
        found.security_type,
        found.exchange,
        found.currency,
        found.shows,
    )


@pytest.mark.parametrize("symbol", ["", "ibm", " IBM", "../IBM", "IBM\0", "I" * 21])
def test_what_cannot_be_a_symbol_is_refused_with_the_mend(symbol: str) -> None:
    with pytest.raises(ValueError, match=r"write a stock as IBM or BRK\.B"):
        instrument(symbol)
