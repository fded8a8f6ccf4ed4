"""The gateway against the simulator, over a real socket."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, date, datetime

import pytest
from ib_insync.client import Client

from ib_host.gateway import Gateway, GatewayAddress, IbBars
from ib_host.ib_errors import IbConnectionError, IbError, IbTimeoutError, IbUnreachableError
from ib_host.instruments import instrument
from ib_host.requests import HistoryRequest
from ib_host.simulator import answers
from ib_host.simulator.faults import (
    FAILURES,
    Cut,
    Delay,
    Drop,
    Fail,
    FarmDown,
    Fault,
    Hang,
    LinkLost,
    Moment,
)
from ib_host.simulator.pacing import UNPACED
from ib_host.simulator.refusals import Refusal
from ib_host.simulator.server import TwsSimulator
from shared.marketdata.ranges import TimeRange
from shared.rpc.errors import OperationCancelledError, ProcessStoppingError
from tests.support.eventually import eventually

IBM = instrument("IBM")
END = datetime(2013, 3, 2, tzinfo=UTC)
FIVE_DAYS = HistoryRequest(TimeRange(datetime(2013, 2, 23, tzinfo=UTC), END), END, "5 D", "1 day")
Make = Callable[..., Gateway]


def unwatched() -> None:
    """Let a call go on."""


@pytest.fixture
def simulator() -> Iterator[TwsSimulator]:
    with TwsSimulator(rules=UNPACED) as simulator:
        yield simulator


@pytest.fixture
def make(simulator: TwsSimulator) -> Iterator[Make]:
    """Makes gateways to the simulator and stops them after the test."""
    with ExitStack() as stack:

        def made(**how: float) -> Gateway:
            options = {"connect_timeout": 10.0, "answer_timeout": 30.0, **how}
            gateway = Gateway(GatewayAddress("127.0.0.1", simulator.port, **options))  # type: ignore[arg-type]
            stack.callback(gateway.stop)
            return gateway

        yield made


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def bars(gateway: Gateway, check: Callable[[], None] = unwatched) -> IbBars:
    (number,) = gateway.contract_ids(IBM, check)
    return gateway.bars(IBM, number, FIVE_DAYS, check, regular_hours=True)


def count(simulator: TwsSimulator, moment: Moment) -> int:
    return sum(asked.at is moment for asked in simulator.requests)


# ------------------------------------------------------------------------- answers


def test_bars_come_as_ib_dates_them(make: Make) -> None:
    found = bars(make())

    assert date(2013, 3, 1) == found.dates[-1]
    assert 5 == len(found.rows)
    assert 202.91 == found.rows[-1][3]


def test_the_head_timestamp_is_an_instant_and_no_longer_open(
    make: Make, simulator: TwsSimulator
) -> None:
    gateway = make()
    (number,) = gateway.contract_ids(IBM, unwatched)

    first = gateway.head(IBM, number, unwatched, regular_hours=True)

    assert datetime(2000, 3, 1, 14, 30, tzinfo=UTC) == first
    eventually(lambda: simulator.open_requests == 0)


def test_one_connection_serves_calls_from_several_threads(
    make: Make, simulator: TwsSimulator, aside: ThreadPoolExecutor
) -> None:
    gateway = make()
    calls = [aside.submit(bars, gateway) for _ in range(8)]

    assert [5] * 8 == [len(call.result().rows) for call in calls]
    assert 1 == count(simulator, Moment.CONNECT)
    assert gateway.is_connected


def test_several_gateways_live_side_by_side(make: Make) -> None:
    assert [5, 5] == [len(bars(gateway).rows) for gateway in (make(client_id=1), make(client_id=7))]


def test_nothing_is_connected_before_it_is_needed(make: Make, simulator: TwsSimulator) -> None:
    gateway = make()
    assert not gateway.is_connected
    assert () == simulator.client_ids


# -------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", FAILURES)
def test_every_error_of_ib_is_raised_in_its_words(
    name: str, make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Fail(FAILURES[name]), Moment.BARS))
    gateway = make()

    with pytest.raises(IbError) as raised:
        bars(gateway)

    assert FAILURES[name].code == raised.value.code
    assert 5 == len(bars(gateway).rows)


def test_a_head_timestamp_that_is_refused_is_an_error(make: Make, simulator: TwsSimulator) -> None:
    simulator.faults.add(Fault(Fail(FAILURES["no-head"]), Moment.HEAD))
    gateway = make()
    (number,) = gateway.contract_ids(IBM, unwatched)

    with pytest.raises(IbError, match="No head time stamp"):
        gateway.head(IBM, number, unwatched, regular_hours=True)


def test_a_head_timestamp_that_is_none_is_an_error_and_no_longer_open(
    make: Make, simulator: TwsSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "head_timestamp", lambda number, *_: [88, number, "yesterday"])
    gateway = make()
    (number,) = gateway.contract_ids(IBM, unwatched)

    with pytest.raises(IbError, match="No head time stamp") as raised:
        gateway.head(IBM, number, unwatched, regular_hours=True)

    assert 162 == raised.value.code
    eventually(lambda: simulator.open_requests == 0)


def test_a_defect_while_bars_are_asked_for_is_no_window_without_bars(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(Client, "reqHistoricalData", defect)

    with pytest.raises(ValueError, match="a defect"):
        bars(make())


def test_an_answer_that_cannot_be_read_is_reported_in_short(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answers, "bars", lambda number, _: [17, number, *["odd"] * 1000])

    with pytest.raises(IbTimeoutError):
        bars(make(answer_timeout=0.2))

    (said,) = [record for record in caplog.records if record.name.startswith("ib_insync")]
    assert "Error handling fields: ['17', " in said.getMessage()
    assert 300 >= len(said.getMessage())


@pytest.mark.parametrize("moment", [Moment.DETAILS, Moment.BARS])
def test_a_request_without_an_answer_ends_in_its_time_and_is_cancelled(
    moment: Moment, make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Hang(), moment))
    gateway = make(answer_timeout=0.2)

    with pytest.raises(IbTimeoutError, match=r"no answer within 0\.2 s"):
        bars(gateway)

    eventually(lambda: simulator.open_requests == 0)
    assert 5 == len(bars(gateway).rows)


def test_a_call_that_is_given_up_ends_at_once_and_is_cancelled(
    make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Hang(), Moment.BARS))
    gateway = make()

    def check() -> None:
        if simulator.open_requests:
            raise OperationCancelledError("enough")

    with pytest.raises(OperationCancelledError, match="enough"):
        bars(gateway, check)

    eventually(lambda: simulator.open_requests == 0)
    assert 5 == len(bars(gateway).rows)


def test_an_answer_that_comes_as_its_call_is_given_up_leaves_no_trace(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    gateway, asked = make(), threading.Event()

    async def refused_late() -> None:
        asked.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise IbError(162, "no data") from None

    def give_up() -> None:
        assert asked.wait(10)
        raise OperationCancelledError("enough")

    with pytest.raises(OperationCancelledError):
        gateway._call(refused_late, give_up)
    gateway.stop()
    gc.collect()

    assert [] == [record.message for record in caplog.records if record.name == "asyncio"]


# --------------------------------------------------------------------- connections


def test_client_ids_in_use_are_passed_over(make: Make, simulator: TwsSimulator) -> None:
    first, second = make(), make()
    bars(first)

    bars(second)

    assert (1, 2) == simulator.client_ids


def test_a_gateway_with_all_client_ids_in_use_is_told_of(
    make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Fail(FAILURES["326"]), Moment.CONNECT, times=0))

    with pytest.raises(IbConnectionError, match="all client ids from 1 to 16"):
        bars(make())


def test_nobody_listening_is_told_of() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    gateway = Gateway(GatewayAddress("127.0.0.1", port))
    try:
        with pytest.raises(IbUnreachableError, match="does not accept connections"):
            bars(gateway)
    finally:
        gateway.stop()


def test_a_gateway_that_does_not_say_a_word_is_given_up(
    make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Hang(), Moment.CONNECT))
    gateway = make(connect_timeout=0.2)

    with pytest.raises(IbConnectionError, match="does not answer"):
        bars(gateway)

    assert 5 == len(bars(make()).rows)


def test_being_refused_while_connecting_is_an_error_in_ibs_words(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_up = answers.start_up

    def without_executions(asked: Sequence[str]) -> Sequence[answers.Fields] | None:
        if asked[0] != "7":
            return start_up(asked)
        refusal = Refusal(321, "Executions are not for you")
        return [answers.error(int(asked[2]), refusal, 176)]

    monkeypatch.setattr(answers, "start_up", without_executions)

    with pytest.raises(IbError, match="Executions are not for you") as raised:
        bars(make())
    assert 321 == raised.value.code


@pytest.mark.parametrize("effect", [Drop(), Cut()])
def test_being_hung_up_on_while_connecting_is_noticed_at_once(
    effect: Drop | Cut, make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(effect, Moment.CONNECT))
    gateway = make(connect_timeout=300)

    with pytest.raises(IbConnectionError, match="hung up at once"):
        bars(gateway)

    assert 5 == len(bars(gateway).rows)


def test_a_gateway_that_is_too_old_is_told_of_at_once(aside: ThreadPoolExecutor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            client, _ = server.accept()
            with client:
                answer = b"100\0" + b"20240101 00:00:00 UTC\0"
                client.recv(100)
                client.sendall(len(answer).to_bytes(4, "big") + answer)
                while client.recv(100):
                    pass  # until the other side hangs up

        greeted = aside.submit(greet)
        gateway = Gateway(GatewayAddress("127.0.0.1", server.getsockname()[1], connect_timeout=300))
        try:
            with pytest.raises(IbError, match="version must be >=") as raised:
                bars(gateway)
        finally:
            gateway.stop()
        greeted.result(10)

    assert 503 == raised.value.code


@pytest.mark.parametrize("effect", [Drop(), Cut()])
@pytest.mark.parametrize("moment", [Moment.DETAILS, Moment.BARS])
def test_a_connection_that_is_lost_is_made_anew_by_the_next_call(
    effect: Drop | Cut, moment: Moment, make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(effect, moment))
    gateway = make()

    with pytest.raises(IbConnectionError, match="was lost"):
        bars(gateway)

    assert 5 == len(bars(gateway).rows)
    assert 2 == count(simulator, Moment.CONNECT)


def test_a_gateway_that_was_restarted_is_found_again(make: Make, simulator: TwsSimulator) -> None:
    gateway = make()
    bars(gateway)
    simulator.stop()
    with pytest.raises(IbConnectionError):
        bars(gateway)
    assert not gateway.is_connected
    simulator.start()

    assert 5 == len(bars(gateway).rows)


def test_a_reset_of_the_socket_is_a_lost_connection(make: Make, simulator: TwsSimulator) -> None:
    gateway = make()
    bars(gateway)

    simulator.announce(1300)

    eventually(lambda: simulator.client_ids == ())
    assert 5 == len(bars(gateway).rows)


@pytest.mark.parametrize("restored", [1101, 1102])
def test_a_lost_link_ends_what_waits_until_it_is_restored(
    restored: int, make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(LinkLost(restored, None), Moment.BARS))
    gateway = make()

    for _ in range(2):
        with pytest.raises(IbConnectionError, match="has lost IB's servers"):
            bars(gateway)
    assert not gateway.is_connected
    simulator.restore_link(restored)

    eventually(lambda: gateway.is_connected)
    assert 5 == len(bars(gateway).rows)
    assert 1 == count(simulator, Moment.CONNECT)
    eventually(lambda: simulator.open_requests == 0)


def test_a_link_that_stays_lost_is_tried_with_a_new_connection(
    make: Make, simulator: TwsSimulator
) -> None:
    gateway = make(link_timeout=0.0)
    bars(gateway)
    simulator.announce(1100)  # and no word that it is back

    eventually(lambda: not gateway.is_connected)
    assert 5 == len(bars(gateway).rows)
    assert 2 == count(simulator, Moment.CONNECT)


def test_a_farm_that_is_down_is_not_asked(make: Make, simulator: TwsSimulator) -> None:
    simulator.faults.add(Fault(FarmDown(None), Moment.BARS))
    gateway = make()
    with pytest.raises(IbError, match="HMDS server disconnect"):
        bars(gateway)

    with pytest.raises(IbConnectionError, match="service of historical data is down"):
        bars(gateway)
    simulator.restore_farm()

    eventually(lambda: _works(gateway))
    assert 2 == count(simulator, Moment.BARS)


def _works(gateway: Gateway) -> bool:
    try:
        return len(bars(gateway).rows) == 5
    except IbConnectionError:
        return False


# ----------------------------------------------------------------------- the end


def test_stopping_releases_who_waits_and_ends_the_thread(
    make: Make, simulator: TwsSimulator, aside: ThreadPoolExecutor
) -> None:
    simulator.faults.add(Fault(Hang(), Moment.BARS, times=0))
    gateway = make()
    waiting: list[Future[IbBars]] = [aside.submit(bars, gateway) for _ in range(3)]
    eventually(lambda: simulator.open_requests == 3)

    gateway.stop()

    for call in waiting:
        with pytest.raises(ProcessStoppingError):
            call.result(10)
    assert "ib-gateway" not in [thread.name for thread in threading.enumerate()]
    eventually(lambda: simulator.client_ids == ())


def test_stopping_while_it_connects_releases_who_waits(
    make: Make, simulator: TwsSimulator, aside: ThreadPoolExecutor
) -> None:
    simulator.faults.add(Fault(Hang(), Moment.CONNECT))
    gateway = make(connect_timeout=300)
    waiting = aside.submit(bars, gateway)
    eventually(lambda: count(simulator, Moment.CONNECT) == 1)

    gateway.stop()

    with pytest.raises(ProcessStoppingError):
        waiting.result(10)


def test_after_the_end_nothing_is_asked_and_ending_again_does_nothing(make: Make) -> None:
    gateway = make()
    bars(gateway)
    gateway.stop()
    gateway.stop()

    with pytest.raises(ProcessStoppingError):
        bars(gateway)
    assert not gateway.is_connected


def test_a_slow_answer_delays_no_other(
    make: Make, simulator: TwsSimulator, aside: ThreadPoolExecutor
) -> None:
    simulator.faults.add(Fault(Hang(), Moment.BARS))
    simulator.faults.add(Fault(Delay(0.0), Moment.BARS))
    gateway = make(answer_timeout=300)
    slow = aside.submit(bars, gateway)
    eventually(lambda: simulator.open_requests == 1)

    assert 5 == len(bars(gateway).rows)
    assert not slow.done()
    gateway.stop()
