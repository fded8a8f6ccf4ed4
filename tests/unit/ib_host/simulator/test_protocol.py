from __future__ import annotations

import asyncio
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ib_host.simulator.protocol import (
    LONGEST_FRAME,
    BarsRequest,
    Cancellation,
    ContractQuery,
    DetailsRequest,
    HeadRequest,
    OtherMessage,
    ProtocolError,
    StartApi,
    TimeRequest,
    frame,
    parse,
    read_greeting,
    read_message,
)

IBM = ContractQuery(8314, "IBM", "STK", "SMART", "NYSE", "USD", "IBM")
C12 = ["8314", "IBM", "STK", "", "0.0", "", "", "SMART", "NYSE", "USD", "IBM", "IBM"]
END = ["20130301-23:00:00", "1 day", "5 D", "1", "TRADES", "2"]


def stream(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def greet(data: bytes) -> int:
    async def read() -> int:
        return await read_greeting(stream(data))

    return asyncio.run(read())


def receive(data: bytes) -> list[str]:
    async def read() -> list[str]:
        return await read_message(stream(data))

    return asyncio.run(read())


def greeting(versions: str) -> bytes:
    return b"API\0" + struct.pack(">I", len(versions)) + versions.encode()


def test_a_frame_has_a_length_and_fields_that_end_in_nul() -> None:
    assert b"\0\0\0\x0b4\x002\x00IBM\x001\x00\0" == frame([4, 2, "IBM", True, ""])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_every_bit(number: float) -> None:
    assert number == float(receive(frame([1, number]))[1])
    assert number == float(receive(frame([1, np.float64(number)]))[1])


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_what_is_framed_is_read_back(fields: list[str]) -> None:
    assert fields == receive(frame(fields))


@pytest.mark.parametrize(
    ("versions", "spoken"),
    [
        ("v157..176", 176),
        ("v100..178", 176),
        ("v100..157", 157),
        ("v165", 165),
        ("v157..176 +PACEAPI", 176),
    ],
)
def test_the_newest_version_both_know_is_spoken(versions: str, spoken: int) -> None:
    assert spoken == greet(greeting(versions))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not that of a TWS client"),
        (greeting("v100..156"), "not served"),
        (greeting("v177..200"), "not served"),
        (greeting("176"), "names no versions"),
        (greeting("v" + "1" * 5000), "names no versions"),
        (greeting("v157.." + "1" * 5000), "names no versions"),
        (b"API\0\xff\xff\xff\xff", "4294967295 bytes"),
    ],
)
def test_another_greeting_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        greet(data)


def test_a_connection_that_ends_early_is_noticed() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        receive(frame([71, 2, 1, ""])[:-3])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (struct.pack(">I", 3) + b"49\0"[:2] + b"1", "does not end in NUL"),
        (struct.pack(">I", 0), "0 bytes"),
        (struct.pack(">I", LONGEST_FRAME + 1), "bytes"),
    ],
)
def test_a_frame_that_is_none_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        receive(data)


def test_a_request_for_bars_is_read() -> None:
    fields = ["20", "7", *C12, "0", *END, "0", ""]

    expected = BarsRequest(
        7, IBM, "20130301-23:00:00", "1 day", "5 D", True, "TRADES", 2, keeps_up=False
    )
    assert expected == parse(fields)


def test_legs_of_a_combination_do_not_shift_what_follows() -> None:
    bag = [*C12[:2], "BAG", *C12[3:]]
    legs = ["2", "1", "1", "BUY", "SMART", "2", "1", "SELL", "SMART"]

    request = parse(["20", "7", *bag, "0", *END, *legs, "1", ""])

    assert isinstance(request, BarsRequest)
    assert request.keeps_up


def test_the_other_requests_are_read() -> None:
    assert DetailsRequest(3, IBM) == parse(["9", "8", "3", *C12, "0", "", "", ""])
    assert HeadRequest(4, IBM, "TRADES", True, 2) == parse(
        ["87", "4", *C12, "0", "1", "TRADES", "2"]
    )
    assert Cancellation(7) == parse(["25", "1", "7"])
    assert Cancellation(4) == parse(["90", "4"])
    assert TimeRequest() == parse(["49", "1"])
    assert StartApi(5) == parse(["71", "2", "5", ""])
    assert OtherMessage(("61", "1")) == parse(["61", "1"])


@pytest.mark.parametrize(
    "fields",
    [
        ["", "1"],
        ["x"],
        ["71"],
        ["20", "7", *C12],
        ["20", "seven", *C12, "0", *END, "0", ""],
        ["87", "4", *C12, "0", "yes", "TRADES", "2"],
        ["9", "8", "3", "number", *C12[1:], "0", "", ""],
    ],
)
def test_what_cannot_be_read_is_refused(fields: list[str]) -> None:
    with pytest.raises(ProtocolError, match="cannot be read"):
        parse(fields)


@given(
    st.sampled_from(["9", "20", "25", "49", "71", "87", "90", "1"]),
    st.lists(st.sampled_from(["0", "1", "", "x", "-1", "1e9", "IBM"]), max_size=30),
)
def test_whatever_a_client_sends_is_read_or_refused(number: str, fields: list[str]) -> None:
    try:
        what = type(parse([number, *fields])).__name__
    except ProtocolError as error:
        what = str(error)

    expected = {"9": "Details", "20": "Bars", "25": "Cancel", "49": "Time", "71": "StartApi"}
    expected |= {"87": "Head", "90": "Cancel", "1": "Other"}
    assert what.startswith((expected[number], f"message '{number}' cannot be read"))
