"""Backend ↔ IB host ↔ ib_insync ↔ a simulated TWS, each on a real socket of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.rpc import code_pb2
from grpc import StatusCode

from ib_host.__main__ import build_ib_host
from ib_host.gateway.connection import GatewayAddress
from ib_host.gateway.gateway import Gateway
from ib_host.pacing import UNLIMITED, Pacing
from ib_host.provider import IbProvider, Patience
from ib_host.settings import IbHostSettings
from ib_host.simulator.faults import FAILURES, Drop, Fail, Fault, Hang, Moment
from ib_host.simulator.pacing import UNPACED
from ib_host.simulator.server import TwsSimulator
from ib_host.simulator.source import FrameHistory, HistorySource
from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as operations_pb
from shared.instance import Instance
from shared.marketdata.store import BarStore
from shared.operations.conversion import timestamp
from shared.operations.memory_store import MemoryOperationStore
from shared.process import Process, stop
from tests.integration.loads import (
    FROM,
    QUICK,
    ROWS,
    TO,
    assert_same,
    bars,
    keys,
    load,
    load_whole,
    loaded_in,
    operations,
)
from tests.integration.refusals import refused
from tests.integration.running import (
    BARS,
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    RunningBackend,
    result_of,
    running_backend,
)
from tests.support.eventually import eventually
from tests.support.hosts import new_instance
from tests.support.relay import Relay

PATIENCE = 30.0
"""Seconds that the simulator has for an answer; milliseconds unless a fault says otherwise."""
GOOG_HANGS = Fault(Hang(), Moment.BARS, symbol="GOOG", skip=1, times=0)
"""GOOG comes as far as its first answer, and no further."""


@dataclass(slots=True)
class Chain:
    """The processes, and the network between the first two."""

    simulator: TwsSimulator
    home: Path
    host: Process
    instance: Instance
    relay: Relay
    front: RunningBackend

    def asked(self, moment: Moment = Moment.BARS) -> list[str]:
        """The symbols that IB was asked for, in order."""
        return [each.symbol for each in self.simulator.requests if each.at is moment]

    def held(self) -> str:
        """Start a load, IBM whole and GOOG for ever; return its id once GOOG is asked for."""
        self.simulator.faults.add(GOOG_HANGS)
        operation_id = load(self.front, request_id="held")
        eventually(lambda: self.front.epochs(operation_id) == [1])
        eventually(lambda: self.asked().count("GOOG") == 2)
        return operation_id

    def look(self, operation_id: str) -> operation_pb2.Operation:
        """The operation as far as it can be had."""
        request = operations_pb.GetOperationRequest(operation_id=operation_id)
        operation: operation_pb2.Operation = self.front.operations.GetOperation(request).operation
        return operation

    def lead_to(self, target: str) -> None:
        """Let another process be at the host's address, as the backend sees it."""
        self.relay.lead_to(target)


@contextmanager
def serving(
    simulator: TwsSimulator, home: Path, instance: Instance, **settings: Any
) -> Iterator[tuple[Process, str]]:
    """Serve an IB host over the simulator; give it with its address."""
    gateway = Gateway(GatewayAddress("127.0.0.1", simulator.port, answer_timeout=PATIENCE))
    provider = IbProvider(
        gateway,
        Pacing(UNLIMITED),
        patience=Patience(outage=PATIENCE, scale=0.01),
        regular_hours=False,
    )
    values: Mapping[str, Any] = {"home": home, "OPERATIONS_CACHE_TTL": 0.0, **settings}
    host = build_ib_host(
        IbHostSettings(ib_host_address="127.0.0.1:0", **values),
        instance,
        MemoryOperationStore(),
        provider,
    )
    address = host.server.bind()
    host.operations.advertise(address)
    host.server.start()
    try:
        yield host, address
    finally:
        stop(host.server, host.operations, host.pools, grace=0.0)
        gateway.stop()


@contextmanager
def chained(home: Path, source: HistorySource | None = None, **settings: Any) -> Iterator[Chain]:
    """Serve all of it; settings are the IB host's."""
    with ExitStack() as serve:
        simulator = serve.enter_context(TwsSimulator(source, rules=UNPACED))
        instance = new_instance()
        host, address = serve.enter_context(
            serving(simulator, home / "ib_host", instance, **settings)
        )
        relay = serve.enter_context(closing(Relay(address)))
        front = serve.enter_context(backend_on(home / "backend", relay.address))
        yield Chain(simulator, home, host, instance, relay, front)


@contextmanager
def backend_on(home: Path, target: str) -> Iterator[RunningBackend]:
    """Serve a backend that has its bars from the IB host at an address."""
    with running_backend(
        home, data_source="ib", IB_HOST_SERVICE_URL=target, cache_ttl=0.0
    ) as running:
        yield running


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with chained(tmp_path) as chain:
        yield chain


def made(first: datetime, count: int, freq: str) -> pd.DataFrame:
    """Bars whose prices need all their digits, with a gap of weeks."""
    random = np.random.default_rng(7)
    index = pd.date_range(first, periods=count, freq=freq, name="time")
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, count)))
    columns = {"open": close / 1.001, "high": close * 1.01, "low": close / 1.01, "close": close}
    frame = pd.DataFrame({**columns, "volume": random.integers(1, 1 << 50, count) / 8}, index=index)
    return frame.drop(frame.index[count // 3 : count // 2])


def same(expected: pd.DataFrame, actual: pd.DataFrame) -> None:
    assert_same(expected, actual, check_exact=True, check_freq=False, check_index_type=False)


# ----------------------------------------------------------------------------------- bit for bit


def test_days_that_came_all_the_way_are_those_of_the_source_bit_for_bit(chain: Chain) -> None:
    result = loaded_in(load_whole(chain.front))

    assert list(ROWS.items()) == [(one.symbol, one.rows_loaded) for one in result.symbols]
    for symbol in ROWS:
        same(BARS.read(symbol, "1d", FROM, TO), bars(chain.front, symbol))
    listed = chain.front.market_data.ListSeries(pb.ListSeriesRequest())
    assert [("GOOG", "1d"), ("IBM", "1d")] == keys(listed)


@pytest.mark.parametrize(
    ("timeframe", "source"),
    [
        ("5m", made(datetime(2025, 3, 5, tzinfo=UTC), 5000, "5min")),  # over a change of clocks
        ("1h", made(datetime(2024, 8, 5, tzinfo=UTC), 4000, "1h")),
    ],
)
def test_bars_within_the_day_are_those_of_the_source_bit_for_bit(
    tmp_path: Path, timeframe: str, source: pd.DataFrame
) -> None:
    last = source.index[-1].to_pydatetime()
    with chained(tmp_path, FrameHistory({("XYZ", timeframe): source})) as chain:
        operation = load_whole(
            chain.front,
            symbols=["XYZ"],
            timeframe=timeframe,
            start_time=None,
            end_time=timestamp(last.replace(year=last.year + 1)),
        )
        assert len(source) == loaded_in(operation).total_rows_loaded
        same(source, bars(chain.front, "XYZ", timeframe))
        middle = source.index[len(source) // 2].to_pydatetime()
        same(
            source[middle:][:10],
            bars(chain.front, "XYZ", timeframe, start_time=timestamp(middle), limit=10),
        )


def test_the_backend_keeps_no_bars_itself(chain: Chain) -> None:
    load_whole(chain.front)

    assert [] == BarStore(chain.front.home / "data").series()
    assert [("GOOG", "1d"), ("IBM", "1d")] == BarStore(chain.home / "ib_host" / "data").series()


def test_a_training_in_the_backend_reads_what_the_ib_host_has_loaded(chain: Chain) -> None:
    load_whole(chain.front, symbols=["IBM"])
    operation = chain.front.ended(
        chain.front.train(symbols=["IBM"], timeframes=["1d"], seed=7, overrides=QUICK)
    )

    assert COMPLETED == operation.status, operation.error.message
    with running_backend(chain.home / "other") as other:
        load_whole(other, symbols=["IBM"])
        there = other.ended(
            other.train(symbols=["IBM"], timeframes=["1d"], seed=7, overrides=QUICK)
        )
    assert result_of(there).test == result_of(operation).test


# ------------------------------------------------------------------------------ seen by its own id


def test_a_load_is_seen_through_the_backend_under_the_backends_id(chain: Chain) -> None:
    operation_id = chain.held()
    answer = chain.front.get(operation_id, metrics_cursor=0)
    shown = answer.operation

    assert ("op_data_held", RUNNING) == (shown.operation_id, shown.status)
    assert "Loading GOOG (2/2)" == shown.progress.message
    assert ROWS["IBM"] < shown.progress.items_processed < sum(ROWS.values())
    assert 50 < shown.progress.percentage < 100
    assert "host_data_op_data_held" == shown.metadata["host_operation_id"]
    assert "held" in shown.metadata["session_id"]
    (metric,) = answer.metrics
    assert ("symbol", {"symbol": "IBM"}) == (metric.kind, dict(metric.labels))
    assert ROWS["IBM"] == metric.values["rows_loaded"]  # noqa: PD011  # no frame
    listed = chain.front.operations.ListOperations(operations_pb.ListOperationsRequest())
    assert ["op_data_held"] == [each.operation_id for each in listed.operations]


def test_a_load_that_is_cancelled_ends_at_ib_too_and_the_next_fetches_the_rest(
    chain: Chain,
) -> None:
    operation_id = chain.held()
    chain.front.cancel(operation_id, "enough")
    end = chain.front.ended(operation_id)

    assert (CANCELLED, "enough") == (end.status, end.cancel_reason)
    eventually(lambda: chain.simulator.open_requests == 0)
    same(BARS.read("IBM", "1d", FROM, TO), bars(chain.front, "IBM"))
    before = len(chain.asked())
    kept = len(bars(chain.front, "GOOG"))
    chain.simulator.faults.clear()

    result = loaded_in(load_whole(chain.front))
    assert {"GOOG"} == set(chain.asked()[before:])
    assert [0, ROWS["GOOG"] - kept] == [one.rows_loaded for one in result.symbols]
    same(BARS.read("GOOG", "1d", FROM, TO), bars(chain.front, "GOOG"))


def test_a_load_that_is_repeated_asks_ib_for_nothing(chain: Chain) -> None:
    load_whole(chain.front)
    before = len(chain.simulator.requests)
    result = loaded_in(load_whole(chain.front))

    assert 0 == result.total_rows_loaded
    assert list(ROWS.values()) == [one.row_count for one in result.symbols]
    assert before == len(chain.simulator.requests)


def test_a_repeated_request_finds_its_operation_and_starts_nothing(chain: Chain) -> None:
    operation_id = chain.held()

    assert operation_id == load(chain.front, request_id="held")
    assert 1 == operations(chain.front)
    refusal = refused(lambda: load(chain.front, request_id="held", symbols=["IBM"]))
    assert (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED") == (refusal.code, refusal.reason)


# ---------------------------------------------------------------------------------- what goes wrong


def test_a_symbol_that_ib_does_not_know_does_not_lose_the_others(chain: Chain) -> None:
    operation = load_whole(chain.front, symbols=["IBM", "NOPE"])
    result = loaded_in(operation)

    assert COMPLETED == operation.status
    assert 1 == result.symbols_loaded
    (failed,) = result.symbols_failed
    assert ("NOPE", "IB_NO_SUCH_CONTRACT") == (failed.symbol, failed.reason)
    assert "IB knows no such contract" in failed.error
    same(BARS.read("IBM", "1d", FROM, TO), bars(chain.front, "IBM"))


def test_a_connection_to_ib_that_breaks_costs_nothing_but_time(chain: Chain) -> None:
    chain.simulator.faults.add(Fault(Drop(), Moment.BARS, skip=3))
    chain.simulator.faults.add(Fault(Fail(FAILURES["pacing"]), Moment.BARS, skip=6))
    result = loaded_in(load_whole(chain.front))

    assert list(ROWS.values()) == [one.rows_loaded for one in result.symbols]
    for symbol in ROWS:
        same(BARS.read(symbol, "1d", FROM, TO), bars(chain.front, symbol))


def test_a_symbol_that_cannot_be_one_of_ibs_is_refused_by_the_host_with_the_field(
    chain: Chain,
) -> None:
    refusal = refused(lambda: load(chain.front, symbols=["IBM", "i/b"]))

    assert StatusCode.INVALID_ARGUMENT == refusal.code
    assert ["symbols[1]"] == list(refusal.fields)
    assert 0 == operations(chain.front)


def test_while_the_ib_host_is_down_nothing_can_be_started_or_read(chain: Chain) -> None:
    load_whole(chain.front, symbols=["IBM"])
    before = operations(chain.front)
    chain.relay.cut()
    for call in (
        lambda: load(chain.front, request_id="abc"),
        lambda: bars(chain.front, "IBM"),
        lambda: chain.front.market_data.ListSeries(pb.ListSeriesRequest()),
    ):
        refusal = refused(call)
        assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
        assert chain.relay.address in refusal.message
    assert before == operations(chain.front)

    chain.relay.restore()
    assert "op_data_abc" == load_whole(chain.front, request_id="abc").operation_id


def test_while_the_ib_host_is_down_the_last_known_state_of_a_load_is_shown(chain: Chain) -> None:
    operation_id = chain.held()
    before = chain.front.operation(operation_id)
    chain.relay.cut()
    known = chain.look(operation_id)

    assert (RUNNING, before.progress) == (known.status, known.progress)
    error = known.freshness.refresh_error
    assert ("HOST_UNREACHABLE", code_pb2.UNAVAILABLE) == (error.reason, error.code)
    refusal = refused(lambda: chain.front.operation(operation_id))
    assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
    chain.relay.restore()
    assert not chain.front.operation(operation_id).freshness.HasField("refresh_error")


def test_a_load_that_ended_while_the_ib_host_could_not_be_reached_is_known_afterwards(
    chain: Chain,
) -> None:
    operation_id = chain.held()
    chain.relay.cut()
    chain.host.operations.cancel_operation(f"host_data_{operation_id}", "at the host")
    chain.relay.restore()

    assert CANCELLED == chain.front.ended(operation_id).status


def test_an_ib_host_that_was_restarted_has_lost_the_load_but_kept_its_bars(chain: Chain) -> None:
    operation_id = chain.held()
    chain.host.server.stop(0.0)  # records nothing, as one that was killed
    again = Instance(chain.instance.id, new_instance().incarnation)
    chain.simulator.faults.clear()
    with serving(chain.simulator, chain.home / "ib_host", again) as (_, address):
        chain.lead_to(address)
        lost = chain.front.operation(operation_id)
        assert (FAILED, "OPERATION_LOST") == (lost.status, lost.error.reason)
        same(BARS.read("IBM", "1d", FROM, TO), bars(chain.front, "IBM"))
        chain.relay.cut()


# ------------------------------------------------------------------------------------------- loops


def test_a_backend_that_is_its_own_ib_host_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    with closing(Relay("127.0.0.1:1")) as relay, backend_on(tmp_path, relay.address) as running:
        relay.point_at(running.address)
        for call in (
            lambda: load(running, request_id="abc"),
            lambda: bars(running, "IBM"),
            lambda: running.market_data.ListSeries(pb.ListSeriesRequest()),
        ):
            refusal = refused(call)
            assert (StatusCode.FAILED_PRECONDITION, "PROXY_LOOP") == (refusal.code, refusal.reason)
        assert 0 == operations(running)


def test_two_backends_that_are_each_others_ib_host_refuse_and_keep_nothing(tmp_path: Path) -> None:
    with (
        closing(Relay("127.0.0.1:1")) as relay,
        backend_on(tmp_path / "one", relay.address) as one,
        backend_on(tmp_path / "two", one.address) as two,
    ):
        relay.point_at(two.address)
        for running in (one, two):
            refusal = refused(lambda running=running: load(running, request_id="abc"))  # type: ignore[misc]  # mypy knows no default
            assert (StatusCode.FAILED_PRECONDITION, "PROXY_LOOP") == (refusal.code, refusal.reason)
            assert [0, 0] == [operations(one), operations(two)]


def test_readers_who_leave_while_the_ib_host_is_frozen_give_their_places_back(
    chain: Chain,
) -> None:
    load_whole(chain.front)
    streams = next(p for p in chain.front.backend.server._pools if p.class_ == "stream")
    chain.relay.freeze()
    request = pb.ReadBarsRequest(symbol="IBM", timeframe="1d")
    calls = [chain.front.market_data.ReadBars(request) for _ in range(4)]
    eventually(lambda: streams._taken == len(calls))
    for call in calls:
        call.cancel()

    eventually(lambda: streams._taken == 0)
    chain.relay.thaw()
    assert ROWS["IBM"] == len(bars(chain.front, "IBM"))
