"""The simulator as the real client library sees it, over a real socket."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ib_host.simulator.faults import (
    FAILURES,
    Cut,
    Drop,
    Effect,
    Fail,
    FarmDown,
    Fault,
    Hang,
    LinkLost,
    Moment,
)
from ib_host.simulator.pacing import UNPACED
from ib_host.simulator.server import TwsSimulator
from ib_host.simulator.source import FrameHistory
from shared.marketdata.bars import COLUMNS
from shared.marketdata.sample import SampleBarSource
from tests.support.clock import FakeClock
from tests.support.eventually import eventually
from tests.support.programs import ROOT

if TYPE_CHECKING:
    import ib_insync

T = TypeVar("T")
Work = Callable[["ib_insync.IB"], Awaitable[T]]
PATIENCE = 30.0
"""Seconds an answer may take; milliseconds unless something is broken."""
SYMBOLS = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
END = datetime(2013, 3, 2, tzinfo=UTC)


def client() -> ib_insync.IB:
    """Return a new client; its library needs a current event loop when it is imported."""
    import ib_insync

    ib: ib_insync.IB = ib_insync.IB()  # type: ignore[no-untyped-call]  # the library's
    ib.RaiseRequestErrors = True
    return ib


async def connected(port: int, work: Work[T], **how: Any) -> T:
    """Connect the library's client, work with it, and disconnect."""
    ib = client()
    options = {"clientId": 1, "readonly": True, "timeout": PATIENCE, **how}
    await ib.connectAsync("127.0.0.1", port, **options)
    try:
        return await asyncio.wait_for(work(ib), PATIENCE)
    finally:
        ib.disconnect()  # type: ignore[no-untyped-call]  # the library's


def run(simulator: TwsSimulator, work: Work[T], **how: Any) -> T:
    """Do something with a client of its own."""
    return asyncio.run(connected(simulator.port, work, **how))


def stock(symbol: str = "IBM") -> ib_insync.Stock:
    import ib_insync

    return ib_insync.Stock(symbol, "SMART", "USD")


async def read(
    ib: ib_insync.IB,
    symbol: str = "IBM",
    size: str = "1 day",
    duration: str = "5 D",
    end: datetime | None = END,
    *,
    regular: bool = True,
) -> pd.DataFrame:
    """Request bars and return them as the source had them."""
    bars = await ib.reqHistoricalDataAsync(
        stock(symbol), end, duration, size, "TRADES", regular, 2, timeout=0
    )
    index = pd.DatetimeIndex([instant(bar.date) for bar in bars], name="time")
    rows = [[bar.open, bar.high, bar.low, bar.close, bar.volume] for bar in bars]
    return pd.DataFrame(rows, index=index, columns=[*COLUMNS], dtype="float64")


def instant(moment: date | datetime) -> datetime:
    """A bar's date as the instant this project has for it."""
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time(), UTC)


def made(first: datetime, count: int, freq: str) -> pd.DataFrame:
    """Bars whose prices need all their digits."""
    random = np.random.default_rng(7)
    index = pd.date_range(first, periods=count, freq=freq, name="time")
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, count)))
    columns = {"open": close / 1.001, "high": close * 1.01, "low": close / 1.01, "close": close}
    return pd.DataFrame({**columns, "volume": random.integers(1, 1 << 50, count) / 8}, index=index)


def request_error() -> type[ib_insync.RequestError]:
    import ib_insync

    return ib_insync.RequestError


def refused(code: int, text: str = "") -> Any:
    return pytest.raises(
        request_error(), check=lambda error: error.code == code and text in error.message
    )


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    async def load() -> None:
        import ib_insync  # noqa: F401  # here, where there is a loop

    asyncio.run(load())


@pytest.fixture
def simulator() -> Iterator[TwsSimulator]:
    with TwsSimulator(rules=UNPACED) as simulator:
        yield simulator


# ------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("how", [{"readonly": True}, {"readonly": False}, {"clientId": 0}])
def test_a_client_connects_at_once(simulator: TwsSimulator, how: dict[str, object]) -> None:
    async def work(ib: ib_insync.IB) -> tuple[list[str], datetime]:
        return ib.managedAccounts(), await ib.reqCurrentTimeAsync()

    accounts, now = run(simulator, work, **how)

    assert ["DU1000001"] == accounts
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=PATIENCE)


def test_a_contract_is_completed(simulator: TwsSimulator) -> None:
    async def work(ib: ib_insync.IB) -> ib_insync.ContractDetails:
        contract = stock()
        await ib.qualifyContractsAsync(contract)
        assert contract.conId
        (found,) = await ib.reqContractDetailsAsync(contract)
        return found

    details = run(simulator, work)

    assert details.contract is not None
    assert "NYSE" == details.contract.primaryExchange
    assert "US/Eastern" == details.timeZoneId
    assert 5 == len(details.tradingHours.split(";"))


def test_the_head_timestamp_is_read_and_no_longer_open(simulator: TwsSimulator) -> None:
    async def work(ib: ib_insync.IB) -> Any:
        return await ib.reqHeadTimeStampAsync(stock(), "TRADES", True, 2)

    assert datetime(2000, 3, 1, 14, 30, tzinfo=UTC) == run(simulator, work)
    eventually(lambda: simulator.open_requests == 0)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_days_are_those_of_the_source_bit_for_bit(simulator: TwsSimulator, symbol: str) -> None:
    bars = run(simulator, lambda ib: read(ib, symbol, duration="20 Y"))

    expected = SampleBarSource().read(symbol, "1d", None, None)
    pd.testing.assert_frame_equal(expected, bars, check_exact=True, check_index_type=False)


@pytest.mark.parametrize(
    ("size", "timeframe", "freq", "duration"),
    [
        ("5 mins", "5m", "5min", "1 W"),
        ("1 hour", "1h", "1h", "1 M"),
        ("1 min", "1m", "1min", "1 D"),
    ],
)
def test_intraday_bars_are_those_of_the_source_bit_for_bit(
    size: str, timeframe: str, freq: str, duration: str
) -> None:
    source = made(datetime(2025, 3, 5, tzinfo=UTC), 2000, freq)  # over a change of clocks
    end = source.index[-1].to_pydatetime() + timedelta(minutes=1)

    async def work(ib: ib_insync.IB) -> pd.DataFrame:
        parts: list[pd.DataFrame] = []
        before = end
        while not parts or parts[-1].index[0] > source.index[0]:
            parts.append(await read(ib, "XYZ", size, duration, before, regular=False))
            before = parts[-1].index[0].to_pydatetime()
        return pd.concat(parts[::-1])

    with TwsSimulator(FrameHistory({("XYZ", timeframe): source})) as simulator:
        bars = run(simulator, work)

    pd.testing.assert_frame_equal(
        source, bars, check_exact=True, check_freq=False, check_index_type=False
    )


def test_a_hundred_thousand_bars_come_in_one_answer() -> None:
    source = made(datetime(2020, 1, 6, tzinfo=UTC), 100_000, "5min")

    with TwsSimulator(FrameHistory({("XYZ", "5m"): source})) as simulator:
        bars = run(
            simulator,
            lambda ib: read(
                ib, "XYZ", "5 mins", "2 Y", datetime(2021, 6, 1, tzinfo=UTC), regular=False
            ),
        )

    assert len(source) == len(bars)
    assert np.array_equal(source.to_numpy(), bars.to_numpy())


def test_requests_at_the_same_time_are_answered_each(simulator: TwsSimulator) -> None:
    async def work(ib: ib_insync.IB) -> list[pd.DataFrame]:
        return await asyncio.gather(
            *(read(ib, symbol, duration=f"{days} D") for symbol in SYMBOLS for days in range(1, 7))
        )

    assert [*range(1, 7)] * 5 == [len(bars) for bars in run(simulator, work)]


def test_a_client_in_a_thread_with_a_loop_of_its_own_is_served(simulator: TwsSimulator) -> None:
    loop = asyncio.new_event_loop()

    def turn() -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        asked = connected(simulator.port, read)
        bars = asyncio.run_coroutine_threadsafe(asked, loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    assert 5 == len(bars)


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        ({"symbol": "XYZ"}, 200, "No security definition"),
        ({"size": "1 sec"}, 321, "Legal ones are"),
        ({"duration": "366 D"}, 321, "must be made in years"),
        ({"size": "5 mins"}, 162, "HMDS query returned no data: IBM@SMART Trades"),
        ({"end": datetime(1999, 1, 1, tzinfo=UTC)}, 162, "returned no data"),
    ],
)
def test_what_tws_refuses_is_refused(
    simulator: TwsSimulator, asked: dict[str, Any], code: int, text: str
) -> None:
    with refused(code, text):
        run(simulator, lambda ib: read(ib, **asked))


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_reaches_the_client(simulator: TwsSimulator, name: str) -> None:
    simulator.faults.add(Fault(Fail(FAILURES[name]), Moment.BARS))

    with refused(FAILURES[name].code, FAILURES[name].text):
        run(simulator, read)


def test_the_pacing_rules_hold_by_their_clock() -> None:
    clock = FakeClock()

    async def work(ib: ib_insync.IB) -> None:
        await ib.reqHeadTimeStampAsync(stock(), "TRADES", True, 2)
        with refused(162, "pacing violation"):
            await ib.reqHeadTimeStampAsync(stock(), "TRADES", True, 2)
        clock.advance(15)
        await ib.reqHeadTimeStampAsync(stock(), "TRADES", True, 2)

    with TwsSimulator(clock=clock) as simulator:
        run(simulator, work)

        heads = [asked for asked in simulator.requests if asked.at is Moment.HEAD]
        assert 3 == len(heads)


# ------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("effect", [Drop(), Cut()])
def test_a_connection_that_ends_fails_the_request_and_can_be_had_again(
    simulator: TwsSimulator, effect: Effect
) -> None:
    simulator.faults.add(Fault(effect, Moment.BARS))

    async def work(ib: ib_insync.IB) -> pd.DataFrame:
        with pytest.raises(ConnectionError):
            await read(ib)
        await ib.connectAsync("127.0.0.1", simulator.port, clientId=2, readonly=True)
        return await read(ib)

    assert 5 == len(run(simulator, work))


def test_a_request_that_hangs_can_be_given_up(simulator: TwsSimulator) -> None:
    simulator.faults.add(Fault(Hang(), Moment.BARS))

    async def work(ib: ib_insync.IB) -> int:
        bars = await ib.reqHistoricalDataAsync(
            stock(), END, "5 D", "1 day", "TRADES", True, 2, timeout=0.2
        )
        assert [] == list(bars)
        return len(await read(ib))

    assert 5 == run(simulator, work)
    eventually(lambda: simulator.open_requests == 0)


def test_a_client_id_in_use_is_told(simulator: TwsSimulator) -> None:
    async def work(_: ib_insync.IB) -> int:
        second, told = client(), asyncio.get_running_loop().create_future()
        second.errorEvent += lambda _id, code, *_: told.set_result(code)
        attempt = asyncio.create_task(
            second.connectAsync("127.0.0.1", simulator.port, clientId=1, timeout=PATIENCE)
        )
        code: int = await told
        attempt.cancel()  # the library would wait for all of its time
        with pytest.raises(asyncio.CancelledError):
            await attempt
        return code

    assert 326 == run(simulator, work)


@pytest.mark.parametrize(
    ("effect", "told"),
    [(LinkLost(1102, 0.02), [1100, 1102]), (FarmDown(0.02), [2105, 162, 2106])],
)
def test_what_is_lost_and_restored_is_told(
    simulator: TwsSimulator, effect: Effect, told: list[int]
) -> None:
    simulator.faults.add(Fault(effect, Moment.BARS))

    async def work(ib: ib_insync.IB) -> list[int]:
        codes: list[int] = []
        whole = asyncio.Event()

        def note(_id: int, code: int, *_: object) -> None:
            codes.append(code)
            if code == told[-1]:
                whole.set()

        ib.errorEvent += note
        try:
            assert 5 == len(await read(ib))
        except request_error():
            assert isinstance(effect, FarmDown)
        await whole.wait()
        assert 5 == len(await read(ib))
        return codes

    assert told == run(simulator, work)


@settings(max_examples=25, deadline=None)
@given(
    skip=st.integers(0, 7),
    effect=st.sampled_from([Drop(), Cut(), *(Fail(failure) for failure in FAILURES.values())]),
)
def test_a_fault_at_any_request_harms_no_other(skip: int, effect: Effect) -> None:
    simulator = TwsSimulator(rules=UNPACED)

    async def work(ib: ib_insync.IB) -> int:
        failures = 0
        for days in range(1, 9):
            try:
                assert days == len(await read(ib, duration=f"{days} D"))
            except request_error():
                failures += 1
            except ConnectionError:
                failures += 1
                await ib.connectAsync("127.0.0.1", simulator.port, clientId=2, readonly=True)
        return failures

    with simulator:
        simulator.faults.add(Fault(effect, Moment.BARS, skip=skip))
        assert 1 == run(simulator, work)
        eventually(lambda: simulator.open_requests == 0)


def test_a_simulator_started_again_serves_its_clients_again(simulator: TwsSimulator) -> None:
    async def work(ib: ib_insync.IB) -> int:
        ended = asyncio.Event()
        ib.disconnectedEvent += ended.set
        simulator.stop()
        await ended.wait()
        with pytest.raises(ConnectionRefusedError):
            await ib.connectAsync("127.0.0.1", simulator.port, clientId=1, readonly=True)
        simulator.start()
        await ib.connectAsync("127.0.0.1", simulator.port, clientId=1, readonly=True)
        return len(await read(ib))

    assert 5 == run(simulator, work)


# ---------------------------------------------------------------------------- as a program


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The simulator as a process; ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ib_host.simulator", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_program_says_where_it_is_ready_and_ends_when_told(how: signal.Signals) -> None:
    with program("--port", "0", "--fault", "bars=no-data") as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("simulator ready on ").strip()
        port = int(address.removeprefix("127.0.0.1:"))

        async def work(ib: ib_insync.IB) -> int:
            with refused(162, "returned no data"):
                await read(ib)
            return len(await read(ib))

        assert 5 == asyncio.run(connected(port, work))
        process.send_signal(how)
        rest, log = process.communicate(timeout=PATIENCE)

    assert (0, "", "") == (process.returncode, rest, log)


def test_the_program_serves_a_folder_of_csv_files(tmp_path: Path) -> None:
    source = made(datetime(2025, 3, 5, 14, 30, tzinfo=UTC), 50, "5min")
    source.to_csv(tmp_path / "XYZ_5m.csv")

    with program("--port", "0", "--csv", str(tmp_path)) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        asked = ("XYZ", "5 mins", "1 D", datetime(2025, 3, 5, 23, tzinfo=UTC))
        bars = asyncio.run(connected(port, lambda ib: read(ib, *asked)))

    assert np.array_equal(source.to_numpy(), bars.to_numpy())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--csv", "/nowhere"], "/nowhere has no bars; name a folder of files such as IBM_5m.csv"),
        (["--fault", "bars=explode"], "is no fault; write PLACE[/SYMBOL]"),
        (["--host", "192.0.2.1", "--port", "0"], "Cannot listen on 192.0.2.1:0"),
        (["--port", "70000"], "must be 0 to 65535"),
        (["--pacing", "some"], "invalid choice"),
    ],
)
def test_the_program_does_not_start_on_what_it_cannot_use(arguments: list[str], why: str) -> None:
    with program(*arguments) as process:
        out, errors = process.communicate(timeout=PATIENCE)

    assert (2, "") == (process.returncode, out)
    assert why in " ".join(errors.split())
    assert "Traceback" not in errors
