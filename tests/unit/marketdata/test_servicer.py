from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf, isfinite
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pandas as pd
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from ktrdr.marketdata.v1 import market_data_service_pb2_grpc
from shared.marketdata.conversion import CHUNK_ROWS, frame_from_chunks
from shared.marketdata.launcher import LoadOrder
from shared.marketdata.request import LoadMode, LoadRequest
from shared.marketdata.servicer import MarketDataServicer, market_data_service
from shared.marketdata.store import BarStore
from shared.operations.conversion import timestamp
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.service import OperationsService
from shared.operations.starts import Launch
from shared.rpc.errors import FieldViolation
from shared.rpc.paging import encode_token
from tests.support.eventually import eventually
from tests.support.rpc import TIMEOUT, code_of, failure_of, required, served, status_in
from tests.unit.marketdata.frames import ScriptedProvider, bars_at, daily, day, days
from tests.unit.operations.fakes import ME

assert_same = pd.testing.assert_frame_equal
SERVICE = "ktrdr.marketdata.v1.MarketDataService"
NEVER = Timestamp(seconds=10**15)
AFTER_ALL = Timestamp(seconds=253_402_300_799)
BEFORE_ALL = Timestamp(seconds=-62_135_596_800)


class NoLaunch:
    """A launch whose work nobody does."""

    elsewhere: ClassVar[bool] = False

    def reserve(self) -> None:
        """Take nothing."""

    def begin(self, operation_id: str) -> None:
        """Begin nothing."""

    def release(self) -> None:
        """Give nothing back."""


@dataclass(slots=True)
class Orders:
    """A launcher that remembers what it is to launch."""

    orders: list[LoadOrder] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)

    def launch(self, order: LoadOrder, deadline: float = inf) -> Launch:
        """Remember, and launch nothing."""
        self.orders.append(order)
        self.deadlines.append(deadline)
        return NoLaunch()


class KnowingProvider(ScriptedProvider):
    """Says which symbols it lacks, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__({})
        self.checks = 0

    def check(self, symbols: Sequence[str], timeframe: str) -> list[FieldViolation]:
        self.checks += 1
        return [
            FieldViolation(f"symbols[{index}]", "is not had here.")
            for index, symbol in enumerate(symbols)
            if symbol == "NOPE"
        ]


@dataclass(frozen=True, slots=True)
class Served:
    """The service on a real socket, and what lies behind it."""

    stub: Any
    store: BarStore
    launcher: Orders
    provider: KnowingProvider

    def start(self, **fields: Any) -> pb.StartDataLoadResponse:
        answer: pb.StartDataLoadResponse = self.stub.StartDataLoad(_load(**fields), timeout=TIMEOUT)
        return answer

    def read(self, **fields: Any) -> list[pb.ReadBarsResponse]:
        return list(self.stub.ReadBars(_read(**fields), timeout=TIMEOUT))

    def frame(self, **fields: Any) -> pd.DataFrame:
        return frame_from_chunks(answer.chunk for answer in self.read(**fields))

    def page(self, **fields: Any) -> pb.ListSeriesResponse:
        request = pb.ListSeriesRequest(**fields)
        answer: pb.ListSeriesResponse = self.stub.ListSeries(request, timeout=TIMEOUT)
        return answer


def _load(**fields: Any) -> pb.StartDataLoadRequest:
    return pb.StartDataLoadRequest(**{"symbols": ["AAA"], "timeframe": "1d", **fields})


def _read(**fields: Any) -> pb.ReadBarsRequest:
    return pb.ReadBarsRequest(**{"symbol": "AAA", "timeframe": "1d", **fields})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    operations = OperationsService(MemoryOperationStore(), ME)
    store, launcher, provider = BarStore(tmp_path), Orders(), KnowingProvider()
    servicer = MarketDataServicer(operations, launcher, store, provider, id_prefix="op_data_")
    with served([market_data_service(servicer)]) as wire:
        stub = market_data_service_pb2_grpc.MarketDataServiceStub(wire.channel)
        yield Served(stub, store, launcher, provider)


def bad_fields(call: Any) -> Mapping[str, str]:
    """Make a call that must be refused for its fields; return what is wrong with each."""
    error = failure_of(call)
    assert grpc.StatusCode.INVALID_ARGUMENT == error.code()
    bad = required(status_in(error), error_details_pb2.BadRequest)
    return {violation.field: violation.description for violation in bad.field_violations}


# ----------------------------------------------------------------- StartDataLoad


def test_a_start_launches_what_was_asked_for(service: Served) -> None:
    answer = service.start(
        request_id="night",
        symbols=["AAA", "BBB"],
        start_time=timestamp(day(0)),
        end_time=timestamp(day(9)),
        mode=pb.LOAD_MODE_FULL,
    )
    request = LoadRequest(("AAA", "BBB"), "1d", day(0), day(9), LoadMode.FULL)
    assert [LoadOrder("night", request)] == service.launcher.orders
    assert "op_data_night" == answer.operation.operation_id
    assert "night" == answer.session_id
    assert "AAA,BBB" == answer.operation.metadata["symbols"]


def test_what_is_left_open_stays_open_and_the_mode_is_missing(service: Served) -> None:
    service.start()
    (order,) = service.launcher.orders
    assert LoadRequest(("AAA",), "1d", None, None, LoadMode.MISSING) == order.request


def test_an_unspecified_mode_is_the_same_request_as_missing(service: Served) -> None:
    first = service.start(request_id="same")
    again = service.start(request_id="same", mode=pb.LOAD_MODE_MISSING)
    assert first.operation.operation_id == again.operation.operation_id


def test_a_start_without_an_id_gets_one_of_its_own(service: Served) -> None:
    first, second = service.start(), service.start()
    assert first.session_id != second.session_id
    assert f"op_data_{first.session_id}" == first.operation.operation_id


def test_the_launcher_is_told_when_the_caller_stops_listening(service: Served) -> None:
    service.start()
    service.stub.StartDataLoad(_load())
    timed, endless = service.launcher.deadlines
    assert isfinite(timed)
    assert inf == endless


@pytest.mark.parametrize("request_id", ["a", "x" * 128, "A.b_c-9", "0"])
def test_ids_within_the_rule_are_taken(service: Served, request_id: str) -> None:
    assert request_id == service.start(request_id=request_id).session_id


BAD_LOADS: list[tuple[dict[str, Any], str, str]] = [
    ({"request_id": "-x"}, "request_id", "letters"),
    ({"request_id": "x" * 129}, "request_id", "128"),
    ({"request_id": "op_data_" + "x" * 128}, "request_id", "128"),
    ({"request_id": "a b"}, "request_id", "letters"),
    ({"request_id": "a\n"}, "request_id", "letters"),
    ({"request_id": "../up"}, "request_id", "letters"),
    ({"symbols": []}, "symbols", "at least one"),
    ({"symbols": [f"S{number}" for number in range(101)]}, "symbols", "at most 100"),
    ({"symbols": [""]}, "symbols[0]", "1 to 32"),
    ({"symbols": ["AAA", "x" * 33]}, "symbols[1]", "1 to 32"),
    ({"symbols": ["漢" * 22]}, "symbols[0]", "64 bytes"),
    ({"symbols": ["AAA", "A\x00"]}, "symbols[1]", "printable"),
    ({"symbols": ["AAA", "BBB", "AAA"]}, "symbols[2]", "twice"),
    ({"symbols": ["AAA", "NOPE"]}, "symbols[1]", "not had"),
    ({"timeframe": ""}, "timeframe", "1m 5m"),
    ({"timeframe": "1D"}, "timeframe", "'1D'"),
    ({"timeframe": "x" * 500}, "timeframe", "1m 5m"),
    ({"start_time": NEVER}, "start_time", "9999"),
    ({"end_time": NEVER}, "end_time", "9999"),
    ({"start_time": timestamp(day(1)), "end_time": timestamp(day(1))}, "end_time", "after"),
    ({"start_time": timestamp(day(2)), "end_time": timestamp(day(1))}, "end_time", "after"),
    ({"mode": 9}, "mode", "must be LOAD_MODE_MISSING or LOAD_MODE_FULL, got 9"),
    ({"mode": -1}, "mode", "-1"),
]


@pytest.mark.parametrize(
    ("fields", "bad", "says"),
    BAD_LOADS,
    ids=[f"{index}-{bad}" for index, (_, bad, _) in enumerate(BAD_LOADS)],
)
def test_a_bad_field_of_a_start_is_refused_by_name_and_nothing_begins(
    service: Served, fields: dict[str, Any], bad: str, says: str
) -> None:
    found = bad_fields(lambda: service.start(**fields))
    assert [bad] == list(found)
    assert says in found[bad]
    assert [] == service.launcher.orders


def test_every_bad_field_of_a_start_is_named_at_once(service: Served) -> None:
    found = bad_fields(
        lambda: service.start(
            request_id="?", symbols=["", ""], timeframe="9d", start_time=NEVER, mode=7
        )
    )
    assert {"request_id", "start_time", "mode", "symbols[0]", "symbols[1]", "timeframe"} == set(
        found
    )
    # What is no symbol at all need not be looked for.
    assert 0 == service.provider.checks


def test_a_hundred_symbols_are_taken(service: Served) -> None:
    symbols = [f"S{number}" for number in range(100)]
    service.start(symbols=symbols)
    assert tuple(symbols) == service.launcher.orders[0].request.symbols


@pytest.mark.parametrize("symbol", ["x" * 32, "/" * 32, "." * 32, ".é" * 16, "漢" * 21, "BRK B"])
def test_every_symbol_that_is_taken_can_be_kept_and_read(service: Served, symbol: str) -> None:
    service.start(symbols=[symbol])
    service.store.merge(symbol, "1d", daily(0, 3), days(0, 3))
    assert_same(daily(0, 3), service.frame(symbol=symbol), check_exact=True)
    assert [(symbol, "1d")] == keys(service.page())


# ---------------------------------------------------------------------- ReadBars


def test_bars_are_read_bit_for_bit(service: Served) -> None:
    bars = daily(0, 400)
    service.store.merge("AAA", "1d", bars, days(0, 400))
    assert_same(bars, service.frame(), check_exact=True)


def test_bars_of_more_than_a_message_come_in_chunks(service: Served) -> None:
    count = 2 * CHUNK_ROWS + 100
    bars = bars_at([day(0) + timedelta(minutes=number) for number in range(count)])
    service.store.merge("AAA", "1m", bars, days(0, 30))
    answers = service.read(timeframe="1m")
    assert 3 <= len(answers)
    assert all(0 < len(answer.chunk.times) <= CHUNK_ROWS for answer in answers)
    assert_same(bars, frame_from_chunks(answer.chunk for answer in answers), check_exact=True)


@pytest.mark.parametrize(
    ("fields", "first", "last"),
    [
        ({"start_time": timestamp(day(3))}, 3, 20),
        ({"end_time": timestamp(day(3))}, 0, 3),
        ({"start_time": timestamp(day(3)), "end_time": timestamp(day(4))}, 3, 4),
        ({"start_time": timestamp(day(3) + timedelta(seconds=1))}, 4, 20),
        ({"start_time": BEFORE_ALL, "end_time": AFTER_ALL}, 0, 20),
        ({"limit": 5}, 0, 5),
        ({"limit": 1}, 0, 1),
        ({"limit": 2**63 - 1}, 0, 20),
        ({"start_time": timestamp(day(3)), "limit": 5}, 3, 8),
        ({"start_time": timestamp(day(18)), "limit": 5}, 18, 20),
        ({"start_time": timestamp(day(20))}, 20, 20),
        ({"end_time": timestamp(day(0))}, 0, 0),
    ],
)
def test_a_part_of_a_series_is_read(
    service: Served, fields: dict[str, Any], first: int, last: int
) -> None:
    bars = daily(0, 20)
    service.store.merge("AAA", "1d", bars, days(0, 20))
    assert_same(bars.iloc[first:last], service.frame(**fields), check_exact=True)


def test_no_bars_are_no_messages(service: Served) -> None:
    service.store.merge("AAA", "1d", daily(0, 3), days(0, 3))
    assert [] == service.read(start_time=timestamp(day(5)))


@pytest.mark.parametrize(
    "fields", [{"symbol": "BBB"}, {"timeframe": "1w"}, {"symbol": "../../x"}, {"symbol": "x" * 999}]
)
def test_a_series_that_was_not_loaded_is_not_found_with_the_mend(
    service: Served, fields: dict[str, str]
) -> None:
    service.store.merge("AAA", "1d", daily(0, 3), days(0, 3))
    error = failure_of(lambda: service.read(**fields))
    assert grpc.StatusCode.NOT_FOUND == error.code()
    info = required(status_in(error), error_details_pb2.ErrorInfo)
    assert "SERIES_NOT_FOUND" == info.reason
    assert "ktrdr data load" in (error.details() or "")


def test_a_damaged_series_is_named(tmp_path: Path, service: Served) -> None:
    service.store.merge("AAA", "1d", daily(0, 3), days(0, 3))
    (tmp_path / "1d" / "AAA.parquet").write_bytes(b"no bars")
    error = failure_of(service.read)
    assert grpc.StatusCode.FAILED_PRECONDITION == error.code()
    assert "SERIES_UNREADABLE" == required(status_in(error), error_details_pb2.ErrorInfo).reason


BAD_READS: list[tuple[dict[str, Any], set[str]]] = [
    ({"symbol": ""}, {"symbol"}),
    ({"timeframe": ""}, {"timeframe"}),
    ({"timeframe": "2d"}, {"timeframe"}),
    ({"limit": -1}, {"limit"}),
    ({"limit": -(2**63)}, {"limit"}),
    ({"start_time": NEVER}, {"start_time"}),
    ({"end_time": NEVER}, {"end_time"}),
    ({"start_time": timestamp(day(2)), "end_time": timestamp(day(2))}, {"end_time"}),
    ({"symbol": "", "timeframe": "x", "limit": -1}, {"symbol", "timeframe", "limit"}),
]


@pytest.mark.parametrize(("fields", "bad"), BAD_READS)
def test_bad_fields_of_a_read_are_refused_by_name(
    service: Served, fields: dict[str, Any], bad: set[str]
) -> None:
    assert bad == set(bad_fields(lambda: service.read(**fields)))


def test_a_read_shows_one_state_of_the_series_whatever_is_merged_meanwhile(
    service: Served,
) -> None:
    count = 20 * CHUNK_ROWS  # more than the connection buffers, so that the server has to wait
    times = [day(0) + timedelta(minutes=number) for number in range(count)]
    before = bars_at(times, seed=1)
    service.store.merge("AAA", "1m", before, days(0, 300))
    answers = service.stub.ReadBars(_read(timeframe="1m"), timeout=TIMEOUT)
    first = next(answers)
    service.store.merge("AAA", "1m", bars_at(times, seed=2), days(0, 300))
    read = frame_from_chunks(answer.chunk for answer in [first, *answers])
    assert_same(before, read, check_exact=True)


def test_a_reader_that_leaves_early_gives_its_place_back(service: Served) -> None:
    count = 20 * CHUNK_ROWS
    times = [day(0) + timedelta(minutes=number) for number in range(count)]
    service.store.merge("AAA", "1m", bars_at(times), days(0, 300))
    for _ in range(12):  # more than the streams there may be at once
        answers = service.stub.ReadBars(_read(timeframe="1m"), timeout=TIMEOUT)
        next(answers)
        answers.cancel()
        eventually(lambda: _is_read(service))


def _is_read(service: Served) -> bool:
    """Whether a read is let in; one that was left may take a moment to end."""
    code = code_of(lambda: service.read(timeframe="1m", limit=1))
    assert code in {"OK", "RESOURCE_EXHAUSTED"}
    return code == "OK"


def test_several_readers_read_at_once(service: Served) -> None:
    bars = daily(0, 2000)
    service.store.merge("AAA", "1d", bars, days(0, 2000))
    read: list[pd.DataFrame] = []
    readers = [threading.Thread(target=lambda: read.append(service.frame())) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(TIMEOUT)
    assert 3 == len(read)
    for frame in read:
        assert_same(bars, frame, check_exact=True)


# --------------------------------------------------------------------- ListSeries


def fill(store: BarStore) -> list[tuple[str, str]]:
    """Put series into a store; return them in the order of a listing."""
    listed = [
        (symbol, timeframe) for symbol in ("AAA", "B.B", "CCC") for timeframe in ("1h", "1d", "1w")
    ]
    for symbol, timeframe in reversed(listed):
        store.merge(symbol, timeframe, daily(0, 2), days(0, 2))
    return listed


def keys(page: pb.ListSeriesResponse) -> list[tuple[str, str]]:
    return [(series.symbol, series.timeframe) for series in page.series]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 9, 10])
def test_pages_of_any_size_list_every_series_once_and_in_order(service: Served, size: int) -> None:
    listed = fill(service.store)
    found, token = [], ""
    while True:
        page = service.page(page_size=size, page_token=token)
        assert len(listed) == page.total_count
        assert len(page.series) <= size
        found += keys(page)
        token = page.next_page_token
        if not token:
            break
    assert listed == found


def test_an_empty_store_lists_nothing(service: Served) -> None:
    page = service.page()
    assert ([], "", 0, []) == (
        keys(page),
        page.next_page_token,
        page.total_count,
        list(page.unreadable),
    )


def test_a_page_goes_on_behind_a_series_that_has_gone(tmp_path: Path, service: Served) -> None:
    listed = fill(service.store)
    token = service.page(page_size=4).next_page_token
    (tmp_path / listed[3][1] / f"{listed[3][0]}.parquet").unlink()
    assert listed[4:] == keys(service.page(page_token=token))


def test_files_that_cannot_be_read_are_named_beside_the_others(
    tmp_path: Path, service: Served
) -> None:
    listed = fill(service.store)
    (tmp_path / "1d" / "CCC.parquet").write_bytes(b"no bars")
    page = service.page()
    assert [key for key in listed if key != ("CCC", "1d")] == keys(page)
    assert ["1d/CCC.parquet"] == list(page.unreadable)


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "garbage"}, "page_token"),
        ({"page_token": encode_token(["AAA"], ())}, "page_token"),
        ({"page_token": encode_token(["AAA", "9d"], ())}, "page_token"),
        ({"page_token": encode_token(["AAA", "1d"], "other filters")}, "page_token"),
    ],
)
def test_a_bad_field_of_a_listing_is_refused_even_if_nothing_is_there(
    service: Served, fields: dict[str, Any], bad: str
) -> None:
    assert [bad] == list(bad_fields(lambda: service.page(**fields)))


def test_a_series_is_listed_with_what_there_is_of_it(service: Served) -> None:
    service.store.merge("AAA", "1d", daily(0, 5), days(0, 5))
    (series,) = service.page().series
    assert 5 == series.row_count
    assert (timestamp(day(0)), timestamp(day(4))) == (series.start_time, series.end_time)
    assert [(timestamp(day(0)), timestamp(day(5)))] == [
        (part.start_time, part.end_time) for part in series.covered
    ]
