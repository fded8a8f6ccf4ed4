"""Contracts: what is listed where, with which hours, and which of them a request means."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ib_host.instruments import currencies, stock_symbol
from ib_host.simulator.protocol import ContractQuery
from ib_host.simulator.refusals import no_definition, not_valid


@dataclass(frozen=True, slots=True)
class Hours:
    """When a market trades, in its own time; Monday to Friday."""

    time_zone: str
    opens: time
    """Begin of the whole session; after noon it is that of the day before."""
    closes: time
    regular_opens: time
    regular_closes: time

    @property
    def zone(self) -> ZoneInfo:
        """The market's time zone."""
        return ZoneInfo(self.time_zone)

    @property
    def begins_day_before(self) -> bool:
        """Whether the session of a date begins on the evening before it."""
        return self.opens >= time(12)

    @property
    def day_shift(self) -> timedelta:
        """What to add to the market's time so that its date is that of the session."""
        if not self.begins_day_before:
            return timedelta()
        return timedelta(hours=24 - self.opens.hour, minutes=-self.opens.minute)

    def session_begin(self, day: date, *, regular: bool) -> datetime:
        """Return when the session of a date begins, aware."""
        opens = self.regular_opens if regular else self.opens
        first = day - timedelta(days=1) if self.begins_day_before and opens >= time(12) else day
        return datetime.combine(first, opens, self.zone)

    def text(self, today: date, *, regular: bool) -> str:
        """Write the hours of five days as TWS does in contract details."""
        return ";".join(
            self._day_text(today + timedelta(days=n), regular=regular) for n in range(5)
        )

    def _day_text(self, day: date, *, regular: bool) -> str:
        if day.weekday() >= 5:
            return f"{day:%Y%m%d}:CLOSED"
        begin = self.session_begin(day, regular=regular)
        closes = self.regular_closes if regular else self.closes
        return f"{begin:%Y%m%d:%H%M}-{datetime.combine(day, closes):%Y%m%d:%H%M}"


US_STOCKS = Hours("US/Eastern", time(4), time(20), time(9, 30), time(16))
CURRENCIES = Hours("US/Eastern", time(17, 15), time(17), time(17, 15), time(17))


@dataclass(frozen=True, slots=True)
class Listing:
    """One contract, with the name of its series in the source of bars."""

    series: str
    con_id: int
    symbol: str
    sec_type: str
    exchange: str
    primary_exchange: str
    currency: str
    local_symbol: str
    trading_class: str
    long_name: str
    what: str
    """What its bars show: TRADES, MIDPOINT, ..."""
    min_tick: float
    hours: Hours

    @property
    def place(self) -> str:
        """How TWS names it in errors."""
        return f"{self.local_symbol}@{self.exchange}"


_NYSE = frozenset({"IBM"})
"""Of the embedded sample; the others are listed at NASDAQ."""


def stock(series: str) -> Listing:
    """Return a US stock such as IBM or BRK.B; its number follows from its name."""
    symbol = stock_symbol(series)
    return Listing(
        series=series,
        con_id=_number(series),
        symbol=symbol,
        sec_type="STK",
        exchange="SMART",
        primary_exchange="NYSE" if symbol in _NYSE else "NASDAQ",
        currency="USD",
        local_symbol=symbol,
        trading_class="NMS",
        long_name=symbol,
        what="TRADES",
        min_tick=0.01,
        hours=US_STOCKS,
    )


def currency_pair(series: str, base: str, quote: str) -> Listing:
    """Return a pair of currencies; its bars are midpoints, without volume."""
    return Listing(
        series=series,
        con_id=_number(series),
        symbol=base,
        sec_type="CASH",
        exchange="IDEALPRO",
        primary_exchange="",
        currency=quote,
        local_symbol=f"{base}.{quote}",
        trading_class=f"{base}.{quote}",
        long_name=f"{base}.{quote}",
        what="MIDPOINT",
        min_tick=0.00005,
        hours=CURRENCIES,
    )


def listing_of(series: str) -> Listing:
    """Return what a series is taken for by its name, as ib_host.instruments.instrument does."""
    pair = currencies(series)
    return currency_pair(series, *pair) if pair else stock(series)


class Directory:
    """The contracts there are."""

    def __init__(self, listings: Iterable[Listing]) -> None:
        self._listings: Mapping[int, Listing] = {each.con_id: each for each in listings}

    def find(self, query: ContractQuery) -> Sequence[Listing]:
        """Return the contracts a query fits; raises Refusal 200 if there is none."""
        found = [each for each in self._listings.values() if _fits(each, query)]
        if not found:
            raise no_definition()
        return [_as_asked(each, query) for each in found]

    def the_one(self, query: ContractQuery) -> Listing:
        """Return the only contract a query fits; raises Refusal 200, or 321 if it is incomplete."""
        if not query.exchange:
            raise not_valid("Please enter exchange")
        found = self.find(query)
        if len(found) > 1:
            raise no_definition()
        return found[0]


def _fits(listing: Listing, query: ContractQuery) -> bool:
    if query.con_id and query.con_id != listing.con_id:
        return False
    if not query.con_id and not (query.symbol or query.local_symbol):
        return False
    places = {"", listing.exchange, listing.primary_exchange}
    wanted = (
        (query.symbol, listing.symbol),
        (query.sec_type, listing.sec_type),
        (query.currency, listing.currency),
        (query.local_symbol, listing.local_symbol),
        (query.primary_exchange, listing.primary_exchange),
    )
    return query.exchange in places and all(asked in {"", had} for asked, had in wanted)


def _as_asked(listing: Listing, query: ContractQuery) -> Listing:
    """Route to the exchange that was asked for, where there are several."""
    return replace(listing, exchange=query.exchange) if query.exchange else listing


def _number(name: str) -> int:
    return zlib.crc32(name.encode()) % 900_000_000 + 1
