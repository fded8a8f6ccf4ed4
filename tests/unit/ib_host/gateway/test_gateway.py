"""The gateway against the simulator, over a real socket."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, date, datetime

import pytest
from ib_insync.client import Client

from ib_host.gateway.gateway import IbBars
from ib_host.ib_errors import IbError, IbTimeoutError
from ib_host.simulator import answers
from ib_host.simulator.faults import FAILURES, Delay, Fail, Fault, Hang, Moment
from ib_host.simulator.server import TwsSimulator
from shared.rpc.errors import OperationCancelledError, ProcessStoppingError
from tests.support.eventually import eventually
from tests.unit.ib_host.gateway.asking import IBM, Make, bars, count, unwatched

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
