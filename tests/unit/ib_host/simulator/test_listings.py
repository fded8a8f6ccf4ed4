from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from ib_host.instruments import instrument
from ib_host.simulator.listings import (
    CURRENCIES,
    US_STOCKS,
    Directory,
    Listing,
    listing_of,
    stock,
)
from ib_host.simulator.protocol import ContractQuery
from ib_host.simulator.refusals import Refusal


@pytest.fixture
def directory() -> Directory:
    return Directory(map(listing_of, ["IBM", "AAPL", "EURUSD", "EURGBP"]))


def query(
    symbol: str = "",
    sec_type: str = "",
    exchange: str = "SMART",
    primary: str = "",
    currency: str = "",
    local: str = "",
    con_id: int = 0,
) -> ContractQuery:
    return ContractQuery(con_id, symbol, sec_type, exchange, primary, currency, local)


def series(found: list[Listing]) -> list[str]:
    return [each.series for each in found]


def test_a_series_is_a_stock_or_two_currencies() -> None:
    ibm, euro = listing_of("IBM"), listing_of("EURUSD")

    assert ("IBM", "STK", "SMART", "NYSE", "USD") == (
        ibm.symbol,
        ibm.sec_type,
        ibm.exchange,
        ibm.primary_exchange,
        ibm.currency,
    )
    assert ("EUR", "CASH", "IDEALPRO", "USD", "EUR.USD", "MIDPOINT") == (
        euro.symbol,
        euro.sec_type,
        euro.exchange,
        euro.currency,
        euro.local_symbol,
        euro.what,
    )
    assert "STK" == listing_of("GOOGLE").sec_type


@pytest.mark.parametrize("name", ["IBM", "BRK.B", "USDZAR", "EURILS", "EUR.TRY", "USDUSD"])
def test_a_series_is_found_by_what_the_host_asks_for_it(name: str) -> None:
    asked = instrument(name)

    listing = Directory([listing_of(name)]).the_one(
        query(
            asked.symbol,
            asked.security_type,
            exchange=asked.exchange,
            currency=asked.currency,
        )
    )

    assert (name, asked.shows) == (listing.series, listing.what)


def test_contracts_are_found_by_what_is_said_of_them(directory: Directory) -> None:
    assert ["IBM"] == series([*directory.find(query("IBM", "STK", currency="USD"))])
    assert ["IBM"] == series([*directory.find(query("IBM", exchange="NYSE", primary="NYSE"))])
    assert ["EURUSD"] == series([*directory.find(query(local="EUR.USD", exchange="IDEALPRO"))])
    assert ["EURUSD", "EURGBP"] == series([*directory.find(query("EUR", "CASH", exchange=""))])
    number = stock("IBM").con_id
    assert ["IBM"] == series([*directory.find(query(con_id=number))])


@pytest.mark.parametrize(
    "asked",
    [
        query("XYZ", "STK"),
        query("IBM", "CASH"),
        query("IBM", "STK", currency="EUR"),
        query("IBM", "STK", primary="NASDAQ"),
        query("IBM", "STK", exchange="LSE"),
        query("AAPL", con_id=stock("IBM").con_id),
        query(con_id=1),
        query(),
    ],
)
def test_what_fits_nothing_has_no_definition(directory: Directory, asked: ContractQuery) -> None:
    with pytest.raises(Refusal, check=lambda error: error.code == 200):
        directory.find(asked)


def test_a_request_for_data_needs_one_contract_and_its_exchange(directory: Directory) -> None:
    with pytest.raises(Refusal, check=lambda error: error.code == 200):
        directory.the_one(query("EUR", "CASH", exchange="IDEALPRO"))
    with pytest.raises(Refusal, check=lambda error: "enter exchange" in error.text):
        directory.the_one(query("IBM", "STK", exchange=""))

    assert "IBM@NYSE" == directory.the_one(query("IBM", "STK", exchange="NYSE")).place


def test_sessions_begin_in_the_markets_time() -> None:
    winter, summer = date(2013, 3, 1), date(2013, 7, 1)

    assert datetime(2013, 3, 1, 14, 30, tzinfo=UTC) == US_STOCKS.session_begin(winter, regular=True)
    assert datetime(2013, 7, 1, 13, 30, tzinfo=UTC) == US_STOCKS.session_begin(summer, regular=True)
    assert datetime(2013, 7, 1, 8, tzinfo=UTC) == US_STOCKS.session_begin(summer, regular=False)
    assert datetime(2013, 2, 28, 22, 15, tzinfo=UTC) == CURRENCIES.session_begin(
        winter, regular=True
    )


def test_hours_are_written_as_tws_writes_them() -> None:
    friday = date(2013, 3, 1)

    assert (
        "20130301:0930-20130301:1600;20130302:CLOSED;20130303:CLOSED;"
        "20130304:0930-20130304:1600;20130305:0930-20130305:1600"
        == US_STOCKS.text(friday, regular=True)
    )
    assert CURRENCIES.text(friday, regular=False).startswith("20130228:1715-20130301:1700;")
