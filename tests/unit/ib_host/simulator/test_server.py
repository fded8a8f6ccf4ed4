from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pandas as pd
import pytest

from ib_host.simulator import loop_thread
from ib_host.simulator.faults import (
    FAILURES,
    Cut,
    Delay,
    Drop,
    Fail,
    FarmDown,
    Fault,
    FaultPlan,
    Hang,
    LinkLost,
    Moment,
    Notice,
)
from ib_host.simulator.pacing import PacingRules
from ib_host.simulator.protocol import frame
from ib_host.simulator.server import TwsSimulator
from ib_host.simulator.source import FrameHistory
from shared.rpc.server import AddressError
from tests.support.clock import FakeClock
from tests.support.eventually import eventually
from tests.unit.ib_host.simulator.wire import IBM, WireClient, bars_request, intraday

Serving = Callable[[TwsSimulator], TwsSimulator]
Connect = Callable[..., WireClient]
DAYS = ["20130226", "20130227", "20130228", "20130301"]
HEAD = (*IBM, 0, 1, "TRADES", 2)


@pytest.fixture
def simulator(serving: Serving) -> TwsSimulator:
    return serving(TwsSimulator(clock=FakeClock()))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "tws-simulator"]


# ------------------------------------------------------------------ starting, stopping


def test_it_starts_on_a_free_port_and_stops_without_a_trace() -> None:
    simulator = TwsSimulator()
    address = simulator.start()
    client = WireClient(address)
    assert ["176"] == client.greet()[:1]

    simulator.stop()

    assert b"" == client.read_to_end()
    assert [] == threads()
    client.close()
    with pytest.raises(ConnectionRefusedError):
        WireClient(address)


def test_starting_and_stopping_twice_does_no_harm() -> None:
    simulator = TwsSimulator()
    assert simulator.start() == simulator.start()
    simulator.stop()
    simulator.stop()
    assert [] == threads()


def test_started_again_it_listens_where_it_did(connect: Connect) -> None:
    simulator = TwsSimulator(clock=FakeClock())
    address = simulator.start()
    connect(simulator).bars()
    simulator.stop()

    with simulator:
        assert address == simulator.address
        connect(simulator).bars()

        assert 2 == sum(asked.at is Moment.BARS for asked in simulator.requests)


def test_a_client_that_does_not_listen_does_not_hold_up_the_end(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)
    for number in range(40):
        client.ask_bars(number, duration="20 Y")
    eventually(lambda: len(simulator.requests) == 41)

    simulator.stop()

    assert [] == threads()


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=f"Cannot listen on 127.0.0.1:{port}"):
            TwsSimulator(port=port).start()
    assert [] == threads()


def test_a_host_that_can_be_no_name_is_named() -> None:
    with pytest.raises(AddressError, match=r"Cannot listen on a\.\.b:0"):
        TwsSimulator(host="a..b").start()
    assert [] == threads()


def test_a_start_that_takes_too_long_is_none_of_a_taken_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    here = socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    monkeypatch.setattr(loop_thread, "SWIFT", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(20) and here)
    try:
        with pytest.raises(AddressError, match=r"simulator\.example:0 within 0\.01 s"):
            TwsSimulator(host="simulator.example").start()
    finally:
        answered.set()
    eventually(lambda: threads() == [])


def test_what_needs_it_running_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"call start\(\) first"):
        TwsSimulator().announce(1100)


# ------------------------------------------------------------------------ connecting


def test_a_client_is_greeted_accepted_and_told_that_all_is_well(simulator: TwsSimulator) -> None:
    client = WireClient(simulator.address)
    assert ["176", "20260101 00:16:40 UTC"] == client.greet()
    client.send(71, 2, 1, "")

    assert ["15", "1", "DU1000001"] == client.read()
    assert ["9", "1", "1"] == client.read()
    notices = [client.read() for _ in range(3)]
    client.close()

    assert [("-1", "2104"), ("-1", "2106"), ("-1", "2158")] == [
        (notice[2], notice[3]) for notice in notices
    ]
    assert {6} == {len(notice) for notice in notices}


def test_what_clients_ask_when_they_connect_is_answered(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)
    asked: dict[tuple[object, ...], list[str]] = {
        (61, 1): ["62", "1"],
        (6, 2, 1, "DU1000001"): ["54", "1", "DU1000001"],
        (76, 1, 5, "DU1000001", "", 0): ["74", "1", "5"],
        (7, 3, 6, 0, "", "", "", "", "", ""): ["55", "1", "6"],
        (5, 1): ["53", "1"],
        (16, 1): ["53", "1"],
        (99, 0): ["102"],
        (62, 1, 8, "All", "tags"): ["64", "1", "8"],
        (17, 1): ["15", "1", "DU1000001"],
        (8, 1, 1): ["9", "1", "1"],
        (49, 1): ["49", "1", "1767226600"],
    }

    for message, answer in asked.items():
        client.send(*message)
        assert answer == client.read()


def test_what_needs_no_answer_gets_none(simulator: TwsSimulator, connect: Connect) -> None:
    client = connect(simulator)
    for message in ((15, 1, 0), (14, 1, 5), (6, 2, 0, "DU1000001"), (64, 1), (59, 1, 1)):
        client.send(*message)

    client.send(49, 1)

    assert "49" == client.read()[0]


def test_a_client_id_is_only_used_once_at_a_time(simulator: TwsSimulator, connect: Connect) -> None:
    first = connect(simulator, 3)
    second = WireClient(simulator.address)
    second.greet()
    second.send(71, 2, 3, "")

    assert ["4", "2", "-1", "326"] == second.read()[:4]
    assert b"" == second.read_to_end()
    second.close()
    assert 4 == len(first.bars(duration="4 D"))
    first.close()
    eventually(lambda: simulator.client_ids == ())
    assert connect(simulator, 3).bars()


def test_who_says_twice_who_it_is_is_hung_up_on(simulator: TwsSimulator, connect: Connect) -> None:
    client = connect(simulator, 1)
    client.send(71, 2, 2, "")

    assert b"" == client.read_to_end()
    eventually(lambda: simulator.client_ids == ())


def test_requests_before_saying_who_one_is_are_hung_up_on(simulator: TwsSimulator) -> None:
    client = WireClient(simulator.address)
    client.greet()
    client.ask_bars()

    assert b"" == client.read_to_end()
    client.close()


@pytest.mark.parametrize("versions", ["v157..157", "v157..163", "v157..164", "v157..176"])
def test_every_version_gets_its_shape_of_messages(simulator: TwsSimulator, versions: str) -> None:
    client = WireClient(simulator.address)
    spoken = int(client.greet(versions)[0])
    client.send(71, 2, 1, "")
    errors = [client.read() for _ in range(5)][2:]
    client.send(9, 8, 5, *IBM, 0, "", "", "")
    details, end = client.read(), client.read()
    client.close()

    assert {6 if spoken >= 166 else 5} == {len(error) for error in errors}
    assert ["52", "1", "5"] == end
    old, sizes = (2 if spoken < 164 else 0), {157: 0, 163: 1}.get(spoken, 3)
    assert 37 + old + sizes == len(details)
    assert ["5", "IBM", "STK"] == details[2 if old else 1 :][:3]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"API\0\0\0\0\x09v100..150",
        b"API\0\xff\xff\xff\xff",
        b"API\0\0\0\0\x09v157..176\xff\xff\xff\xff",
        b"API\0\0\0\0\x09v157..176\0\0\0\x0249",
        b"API\0\0\0\0\x09v157..176\0\0\0\x0549\x001\0",
    ],
)
def test_strangers_are_hung_up_on_and_harm_nobody(
    simulator: TwsSimulator, connect: Connect, data: bytes
) -> None:
    client = connect(simulator)
    stranger = WireClient(simulator.address)
    stranger.write(data)

    answer = stranger.read_to_end()
    stranger.close()

    assert b"49" not in answer
    assert 5 == len(client.bars())


@pytest.mark.parametrize("message", [(3, 1, "order"), (1, 11, 5), (0,), (20, 7), ("x",), (7,)])
def test_a_message_that_cannot_be_served_is_an_error_and_no_more(
    simulator: TwsSimulator, connect: Connect, message: tuple[object, ...]
) -> None:
    client = connect(simulator)
    client.send(*message)

    assert ["4", "2", "-1", "320"] == client.read()[:4]
    assert 5 == len(client.bars())


# ------------------------------------------------------------------------------- data


def test_bars_come_in_one_message(simulator: TwsSimulator, connect: Connect) -> None:
    client = connect(simulator)
    client.ask_bars(duration="1 D")

    assert [
        *("17", "7", "20130228 23:00:00 UTC", "20130301 23:00:00 UTC", "1"),
        *("20130301", "200.65", "202.94", "199.36", "202.91", "3308300", "-1", "-1"),
    ] == client.read()


def test_currencies_have_no_volume(serving: Serving, connect: Connect) -> None:
    bars = intraday(datetime(2013, 3, 1, tzinfo=UTC), 3, "1h")
    simulator = serving(TwsSimulator(FrameHistory({("EURUSD", "1h"): bars})))
    euro = ("0", "EUR", "CASH", "", "0.0", "", "", "IDEALPRO", "", "USD", "", "")

    rows = connect(simulator).bars(size="1 hour", duration="1 D", contract=euro, what="MIDPOINT")

    assert 3 == len(rows)
    assert {("-1", "-1", "-1")} == {tuple(row[5:]) for row in rows}


def test_a_request_without_time_zone_gets_a_warning_and_its_bars(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)

    assert 2174 == client.refusal(end="20130301 18:00:00")[0]
    assert "17" == client.read()[0]


def test_several_requests_are_answered_each(simulator: TwsSimulator, connect: Connect) -> None:
    client = connect(simulator)
    for number in range(20):
        client.ask_bars(number, duration=f"{number + 1} D")

    counts = {answer[1]: int(answer[4]) for answer in (client.read() for _ in range(20))}

    assert {str(number): number + 1 for number in range(20)} == counts


def test_a_number_in_use_is_refused(simulator: TwsSimulator, connect: Connect) -> None:
    simulator.faults.add(Fault(Hang(), Moment.BARS))
    client = connect(simulator)
    client.ask_bars(7)

    assert 102 == client.refusal(7)[0]


def test_a_source_that_fails_is_an_error_for_the_client(
    serving: Serving, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(FrameHistory):
        def frame(self, symbol: str, timeframe: str) -> pd.DataFrame:
            raise OSError("the disk is gone")

    source = Failing({("IBM", "1d"): intraday(datetime(2013, 3, 1, tzinfo=UTC), 1, "1D")})
    client = connect(serving(TwsSimulator(source)))

    assert 162 == client.refusal()[0]
    assert "the disk is gone" in caplog.text


# ----------------------------------------------------------------------------- limits


def test_a_request_ends_when_it_is_cancelled(simulator: TwsSimulator, connect: Connect) -> None:
    simulator.faults.add(Fault(Hang(), Moment.BARS))
    client = connect(simulator)
    client.ask_bars(7)
    eventually(lambda: simulator.open_requests == 1)
    client.send(25, 1, 7)

    answer = client.read()

    assert ["4", "2", "7", "162"] == answer[:4]
    assert answer[4].endswith("API historical data query cancelled: 7")
    assert 0 == simulator.open_requests
    assert 5 == len(client.bars(7))


def test_a_request_that_is_cancelled_at_once_never_begins(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)
    for _ in range(10):
        client.ask_bars(7)
        client.send(25, 1, 7)
    client.send(49, 1)

    kinds: list[str] = []
    while not kinds or kinds[-1] != "49":
        kinds.append(client.read()[0])
    assert set(kinds) <= {"4", "17", "49"}
    assert 0 == simulator.open_requests


def test_cancelling_what_is_not_open_is_an_error(simulator: TwsSimulator, connect: Connect) -> None:
    client = connect(simulator)
    client.send(25, 1, 99)

    assert ["4", "2", "99", "366"] == client.read()[:4]


def test_a_head_timestamp_stays_open_until_it_is_cancelled(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)
    client.send(87, 4, *HEAD)

    assert ["88", "4", "951921000"] == client.read()
    assert 1 == simulator.open_requests
    client.send(90, 4)
    eventually(lambda: simulator.open_requests == 0)


def test_more_open_requests_than_allowed_are_refused(serving: Serving, connect: Connect) -> None:
    hang = FaultPlan(Fault(Hang(), Moment.BARS, times=3))
    simulator = serving(TwsSimulator(rules=PacingRules(open_limit=3), faults=hang))
    first, second = connect(simulator, 1), connect(simulator, 2)
    for number in (1, 2):
        first.ask_bars(number)
    second.ask_bars(3)
    eventually(lambda: simulator.open_requests == 3)

    assert (322, "Only 3 simultaneous API historical data requests allowed") == second.refusal(4)
    first.close()
    eventually(lambda: simulator.open_requests == 1)
    assert 5 == len(second.bars(5))


def test_head_timestamps_are_paced_and_days_are_not(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)
    assert client.bars(7) == client.bars(7)
    client.send(87, 4, *HEAD)
    assert "88" == client.read()[0]
    client.send(87, 5, *HEAD)

    answer = client.read()

    assert ["4", "2", "5", "162"] == answer[:4]
    assert "pacing violation" in answer[4]


def test_pacing_is_the_users_whatever_the_connection(serving: Serving, connect: Connect) -> None:
    clock = FakeClock()
    simulator = serving(TwsSimulator(clock=clock, rules=PacingRules(paces_all_bars=True)))
    first, second = connect(simulator, 1), connect(simulator, 2)
    first.bars()

    assert "pacing violation" in second.refusal()[1]
    clock.advance(15)
    assert 5 == len(second.bars())


def test_a_flood_of_messages_ends_the_connection(simulator: TwsSimulator, connect: Connect) -> None:
    client = connect(simulator)
    for _ in range(101):
        client.send(49, 1)

    assert b"Max rate of messages per second has been exceeded:max=50" in client.read_to_end()


def test_a_client_that_keeps_sending_still_reads_why_its_connection_ends(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)

    client.write(frame((49, 1)) * 200_000)

    assert b"Max rate of messages per second has been exceeded:max=50" in client.read_to_end()


# ----------------------------------------------------------------------------- faults


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_can_be_had(simulator: TwsSimulator, connect: Connect, name: str) -> None:
    simulator.faults.add(Fault(Fail(FAILURES[name]), Moment.BARS))
    client = connect(simulator)

    assert (FAILURES[name].code, FAILURES[name].text) == client.refusal()
    assert 5 == len(client.bars())


def test_a_failure_that_is_had_again_and_again_keeps_no_trace_of_it(
    simulator: TwsSimulator, connect: Connect
) -> None:
    hmds_down = FAILURES["hmds-down"]
    for effect in (Fail(hmds_down), FarmDown(seconds=None)):
        simulator.faults.add(Fault(effect, Moment.BARS))
    client = connect(simulator)
    client.refusal()
    client.ask_bars()
    assert ["2105", "162"] == [client.read()[3], client.read()[3]]
    client.refusal()

    assert hmds_down.__traceback__ is None


def test_a_dropped_request_ends_the_connection(simulator: TwsSimulator, connect: Connect) -> None:
    simulator.faults.add(Fault(Drop(), Moment.BARS))
    client = connect(simulator)
    client.ask_bars()

    assert b"" == client.read_to_end()
    eventually(lambda: simulator.client_ids == ())


def test_a_cut_answer_ends_in_the_middle(simulator: TwsSimulator, connect: Connect) -> None:
    whole = connect(simulator, 2)
    whole.ask_bars()
    length = sum(len(field) + 1 for field in whole.read()) + 4
    simulator.faults.add(Fault(Cut(), Moment.BARS))
    client = connect(simulator)
    client.ask_bars()

    assert length // 2 == len(client.read_to_end())


def test_a_delayed_answer_comes_and_delays_no_other(
    simulator: TwsSimulator, connect: Connect
) -> None:
    simulator.faults.add(Fault(Delay(0.2), Moment.BARS))
    client = connect(simulator)
    client.write(bars_request(1) + bars_request(2))

    assert ["2", "1"] == [client.read()[1], client.read()[1]]


def test_a_notice_goes_before_the_answer(simulator: TwsSimulator, connect: Connect) -> None:
    simulator.faults.add(Fault(Notice(2103), Moment.BARS))
    client = connect(simulator)
    client.ask_bars()

    assert ["-1", "2103"] == client.read()[2:4]
    assert "17" == client.read()[0]


def test_while_the_link_is_lost_nothing_is_answered(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)
    simulator.lose_link()
    assert "1100" == client.read()[3]
    client.ask_bars()
    eventually(lambda: simulator.open_requests == 1)

    simulator.restore_link(1102)

    assert "1102" == client.read()[3]
    assert "17" == client.read()[0]


def test_a_link_restored_with_loss_forgets_what_was_asked(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)
    simulator.lose_link()
    client.ask_bars(7)
    eventually(lambda: simulator.open_requests == 1)

    simulator.restore_link(1101)

    assert ["1100", "1101"] == [client.read()[3], client.read()[3]]
    client.ask_bars(8)
    assert ["17", "8"] == client.read()[:2]
    assert 1 == simulator.open_requests


@pytest.mark.parametrize("code", [1101, 1102])
def test_a_link_can_be_lost_by_a_request_for_a_while(
    simulator: TwsSimulator, connect: Connect, code: int
) -> None:
    simulator.faults.add(Fault(LinkLost(code, 0.01), Moment.BARS))
    client = connect(simulator)
    client.ask_bars()

    assert ["1100", str(code)] == [client.read()[3], client.read()[3]]
    if code == 1102:
        assert "17" == client.read()[0]
    client.send(49, 1)
    assert "49" == client.read()[0]


def test_while_the_farm_is_down_requests_for_data_fail(
    simulator: TwsSimulator, connect: Connect
) -> None:
    simulator.faults.add(Fault(FarmDown(seconds=None), Moment.BARS))
    client = connect(simulator)
    client.ask_bars()
    assert "2105" == client.read()[3]
    assert "HMDS server disconnect" in client.read()[4]
    assert "HMDS server disconnect" in client.refusal()[1]
    client.send(9, 8, 5, *IBM, 0, "", "", "")
    assert ["10", "52"] == [client.read()[0], client.read()[0]]

    simulator.restore_farm()

    assert "2106" == client.read()[3]
    assert 5 == len(client.bars())


def test_the_farm_can_be_taken_down_and_brought_back(
    simulator: TwsSimulator, connect: Connect
) -> None:
    client = connect(simulator)
    simulator.lose_farm()
    assert "2105" == client.read()[3]
    client.send(87, 4, *HEAD)
    assert ["4", "2", "4", "162"] == client.read()[:4]

    simulator.restore_farm()

    assert "2106" == client.read()[3]
    client.send(87, 5, *HEAD)
    assert ["88", "5"] == client.read()[:2]


def test_a_link_that_is_there_is_not_restored(simulator: TwsSimulator, connect: Connect) -> None:
    client = connect(simulator)

    simulator.restore_link(1102)

    assert 5 == len(client.bars())


def test_asking_for_the_time_can_fail(simulator: TwsSimulator, connect: Connect) -> None:
    simulator.faults.add(Fault(Fail(FAILURES["354"]), Moment.TIME))
    client = connect(simulator)
    client.send(49, 1)
    client.send(49, 1)

    assert ["4", "2", "-1", "354"] == client.read()[:4]
    assert "49" == client.read()[0]


def test_a_client_that_leaves_in_the_middle_harms_nobody(
    simulator: TwsSimulator, connect: Connect
) -> None:
    leaving, staying = connect(simulator, 1), connect(simulator, 2)
    for number in range(20):
        leaving.ask_bars(number, duration="20 Y")
    leaving.close()

    eventually(lambda: simulator.client_ids == (2,))
    assert 5 == len(staying.bars())
    assert 0 == simulator.open_requests


@pytest.mark.parametrize(
    ("effect", "rest"),
    [(Drop(), b""), (Fail(FAILURES["326"]), b"326"), (Cut(), b"15")],
)
def test_connecting_can_fail(simulator: TwsSimulator, effect: Drop, rest: bytes) -> None:
    simulator.faults.add(Fault(effect, Moment.CONNECT))
    client = WireClient(simulator.address)
    client.greet()
    client.send(71, 2, 1, "")

    assert rest in client.read_to_end()
    client.close()
    assert () == simulator.client_ids


def test_connecting_can_hang(simulator: TwsSimulator) -> None:
    simulator.faults.add(Fault(Hang(), Moment.CONNECT))
    client = WireClient(simulator.address)
    client.greet()
    client.send(71, 2, 1, "")
    client.send(49, 1)
    eventually(lambda: len(simulator.requests) == 1)

    simulator.stop()

    assert b"" == client.read_to_end()
    client.close()


def test_everybody_can_be_hung_up_on_and_come_back(
    simulator: TwsSimulator, connect: Connect
) -> None:
    clients = [connect(simulator, number) for number in (1, 2)]

    simulator.hang_up()

    assert [b"", b""] == [client.read_to_end() for client in clients]
    eventually(lambda: simulator.client_ids == ())
    assert connect(simulator, 1).bars()


def test_the_journal_says_what_was_asked_and_what_happened(
    simulator: TwsSimulator, connect: Connect
) -> None:
    simulator.faults.add(Fault(Fail(FAILURES["no-data"]), Moment.BARS))
    connect(simulator, 4).refusal(size="1W", duration="2 W")

    connected, asked = simulator.requests

    assert (Moment.CONNECT, 4) == (connected.at, connected.client_id)
    assert (Moment.BARS, "IBM", "1W", "2 W", "20130301-23:00:00", "TRADES", True) == (
        asked.at,
        asked.symbol,
        asked.bar_size,
        asked.duration,
        asked.end,
        asked.what,
        asked.regular_hours,
    )
    assert Fail(FAILURES["no-data"]) == asked.effect
