"""What the server sends: one function per message, each returning its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from ib_host.simulator.history import Bars
from ib_host.simulator.listings import Listing
from ib_host.simulator.refusals import SYSTEM_TEXTS, Refusal

ACCOUNT = "DU1000001"
"""The account of a demo user; clients want one."""
FIRST_ORDER_ID = 1
SYSTEM = -1
"""The request id of messages about the whole connection."""
_ORDER_TYPES = "LMT,MKT"

Fields = Sequence[object]


def greeting(version: int, now: datetime) -> Fields:
    """Conclude the handshake."""
    return [version, f"{now:%Y%m%d %H:%M:%S} UTC"]


def managed_accounts() -> Fields:
    """Name the accounts."""
    return [15, 1, ACCOUNT]


def next_id() -> Fields:
    """Give the first free order id."""
    return [9, 1, FIRST_ORDER_ID]


def error(request_id: int, refusal: Refusal, version: int) -> Fields:
    """Refuse a request, or say something about the connection."""
    rejected: Fields = [""] if version >= 166 else []
    return [4, 2, request_id, refusal.code, refusal.text, *rejected]


def notice(code: int, version: int) -> Fields:
    """Say something about the connection."""
    return error(SYSTEM, Refusal(code, SYSTEM_TEXTS.get(code, f"Notice {code}")), version)


def current_time(now: datetime) -> Fields:
    """Tell the time."""
    return [49, 1, int(now.timestamp())]


def head_timestamp(request_id: int, head: datetime, date_format: int) -> Fields:
    """Tell since when there are data."""
    text = str(int(head.timestamp())) if date_format == 2 else f"{head:%Y%m%d-%H:%M:%S}"
    return [88, request_id, text]


def bars(request_id: int, answer: Bars) -> Fields:
    """Send bars, all in one message."""
    start, end = (f"{at:%Y%m%d %H:%M:%S} UTC" for at in (answer.start, answer.end))
    frame = answer.frame
    columns: list[Sequence[object]] = [answer.dates]
    columns += [frame[name].tolist() for name in ("open", "high", "low", "close")]
    unknown = ["-1"] * len(frame)
    volumes = [_volume(number) for number in frame["volume"].tolist()]
    columns.append(volumes if answer.has_volume else unknown)
    columns += [unknown, unknown]  # the average price and the number of trades
    rows = (field for row in zip(*columns, strict=True) for field in row)
    return [17, request_id, start, end, len(frame), *rows]


def _volume(number: float) -> object:
    """Write whole numbers as such: older clients read nothing else."""
    return int(number) if number.is_integer() else number


def details(request_id: int, listing: Listing, now: datetime, version: int) -> Fields:
    """Describe one contract."""
    today = now.astimezone(listing.hours.zone).date()
    old = version < 164
    return [
        *([10, 8] if old else [10]),
        request_id,
        listing.symbol,
        listing.sec_type,
        "",  # last trade date
        0.0,  # strike
        "",  # right
        listing.exchange,
        listing.currency,
        listing.local_symbol,
        listing.trading_class,  # as the market's name
        listing.trading_class,
        listing.con_id,
        listing.min_tick,
        *([100] if old else []),  # multiplier of sizes
        "",  # multiplier
        _ORDER_TYPES,
        ",".join(dict.fromkeys(filter(None, (listing.exchange, listing.primary_exchange)))),
        1,  # price magnifier
        0,  # number of the underlying
        listing.long_name.encode("ascii", "backslashreplace").decode(),
        listing.primary_exchange,
        "",  # contract month
        "",  # industry
        "",  # category
        "",  # subcategory
        listing.hours.time_zone,
        listing.hours.text(today, regular=False),
        listing.hours.text(today, regular=True),
        "",  # rule of the economic value
        0,  # multiplier of the economic value
        0,  # other identifiers
        1,  # aggregation group
        "",  # symbol of the underlying
        "",  # type of the underlying
        "26",  # market rule
        "",  # real expiration date
        "COMMON" if listing.sec_type == "STK" else "",
        *_size_rules(version),
    ]


def details_end(request_id: int) -> Fields:
    """Say that there are no more contracts."""
    return [52, 1, request_id]


def _size_rules(version: int) -> Fields:
    """Smallest size, its step, the suggested one: as many as the version has."""
    if version >= 164:
        return [1.0, 1.0, 100.0]
    return [100.0] if version == 163 else []


_START_UP: Mapping[int, Callable[[Sequence[str]], Sequence[Fields]]] = {
    5: lambda _: [[53, 1]],  # open orders
    6: lambda asked: [[54, 1, ACCOUNT]] if asked[2] == "1" else [],  # account updates: on or off
    7: lambda asked: [[55, 1, asked[2]]],  # executions
    8: lambda _: [next_id()],
    16: lambda _: [[53, 1]],  # open orders of all clients
    17: lambda _: [managed_accounts()],
    61: lambda _: [[62, 1]],  # positions
    62: lambda asked: [[64, 1, asked[2]]],  # account summary
    76: lambda asked: [[74, 1, asked[2]]],  # account updates by model
    99: lambda _: [[102]],  # completed orders
    **dict.fromkeys((14, 15, 59, 63, 64, 77), lambda _: []),  # settings, and ends of the above
}


def start_up(asked: Sequence[str]) -> Sequence[Fields] | None:
    """Answer what clients ask about accounts and orders when they connect: there are none.

    None if the message is not one of those; an empty answer if it needs none. Raises
    IndexError if fields are missing.
    """
    answer = _START_UP.get(int(asked[0]))
    return answer and answer(asked)
