"""The gRPC face of market data: starts loads, streams and lists what has been loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import grpc

from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from ktrdr.marketdata.v1 import market_data_service_pb2_grpc
from shared.clock import Clock, SystemClock
from shared.marketdata.conversion import chunk_rows, chunks_of, series_to_proto
from shared.marketdata.launcher import DataLoadLauncher, LoadOrder
from shared.marketdata.provider import BarProvider
from shared.marketdata.request import LoadMode, LoadRequest
from shared.marketdata.store import BarStore
from shared.marketdata.timeframes import TIMEFRAMES
from shared.operations.conversion import view_to_proto
from shared.operations.id_prefixes import BACKEND_DATA
from shared.operations.model import OperationType
from shared.operations.service import OperationsService
from shared.operations.starts import NewOperation
from shared.rpc.admission import START, STREAM
from shared.rpc.deadline import deadline_of
from shared.rpc.errors import FieldViolation, InvalidArgumentError
from shared.rpc.limits import RequestLimits
from shared.rpc.paging import decode_token, encode_token, fitting, page_size
from shared.rpc.request_fields import check_request_id, made_up_request_id, time_field
from shared.rpc.server import ServedService
from shared.rpc.via import starter

_MAX_SYMBOL, _MAX_SYMBOL_BYTES = 32, 64
"""Characters, and bytes of UTF-8: the name of the symbol's file has room for so many."""
_MODES = {
    pb.LOAD_MODE_UNSPECIFIED: LoadMode.MISSING,
    pb.LOAD_MODE_MISSING: LoadMode.MISSING,
    pb.LOAD_MODE_FULL: LoadMode.FULL,
}


class MarketDataServicer(market_data_service_pb2_grpc.MarketDataServiceServicer):
    """Serves ktrdr.marketdata.v1.MarketDataService from this process's store.

    Operation ids are `{id_prefix}{request_id}`, so that a repeated request
    finds its operation. Without a `provider` whoever loads checks the series.
    """

    def __init__(
        self,
        operations: OperationsService,
        launcher: DataLoadLauncher,
        store: BarStore,
        provider: BarProvider | None,
        *,
        id_prefix: str,
        clock: Clock | None = None,
        limits: RequestLimits | None = None,
    ) -> None:
        self._operations = operations
        self._launcher = launcher
        self._store = store
        self._provider = provider
        self._id_prefix = id_prefix
        self._clock = clock or SystemClock()
        self._limits = limits or RequestLimits()

    def StartDataLoad(  # noqa: N802  # the contract's name
        self, request: pb.StartDataLoadRequest, context: grpc.ServicerContext
    ) -> pb.StartDataLoadResponse:
        """Check the request, start it, answer at once."""
        deadline = deadline_of(context, self._clock)
        order = self._order(request)
        new = NewOperation(
            operation_id=self._id_prefix + order.request_id,
            request_id=order.request_id,
            type=OperationType.DATA_LOADING,
            fingerprint=order.fingerprint,
            metadata=order.metadata,
            starter=starter(),
        )
        launch = self._launcher.launch(order, deadline)
        view = self._operations.start_operation(new, launch, deadline=deadline)
        return pb.StartDataLoadResponse(
            operation=view_to_proto(view), session_id=view.operation.metadata["session_id"]
        )

    def ReadBars(  # noqa: N802  # the contract's name
        self,
        request: pb.ReadBarsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002  # gRPC's signature
    ) -> Iterator[pb.ReadBarsResponse]:
        """Stream the bars of a series, chunk by chunk, without holding it."""
        start, end = check_read(request)
        rows = chunk_rows(self._limits.page_bytes)
        frames = self._store.iter_batches(
            request.symbol, request.timeframe, start, end, request.limit or None, rows=rows
        )
        for chunk in chunks_of(frames, rows):
            yield pb.ReadBarsResponse(chunk=chunk)

    def ListSeries(  # noqa: N802  # the contract's name
        self,
        request: pb.ListSeriesRequest,
        context: grpc.ServicerContext,  # noqa: ARG002  # gRPC's signature
    ) -> pb.ListSeriesResponse:
        """Answer with one page of series."""
        limit = page_size(request.page_size, default=50, largest=self._limits.page_rows)
        after = _after(request.page_token)
        listing = self._store.list()
        rest = [info for info in listing.series if after is None or _place(*info.key) > after]
        rows = fitting(map(series_to_proto, rest[:limit]), self._limits.page_bytes)
        more = len(rest) > len(rows)
        token = encode_token([*rest[len(rows) - 1].key], ()) if more else ""
        return pb.ListSeriesResponse(
            series=rows,
            next_page_token=token,
            total_count=len(listing.series),
            unreadable=listing.unreadable,
        )

    def _order(self, message: pb.StartDataLoadRequest) -> LoadOrder:
        """Check every field; raises InvalidArgumentError naming all that are bad."""
        violations: list[FieldViolation] = []
        request_id = message.request_id or made_up_request_id(self._clock.now())
        prefix = "" if self._id_prefix == BACKEND_DATA else BACKEND_DATA
        check_request_id(request_id, violations, backends_prefix=prefix)
        start, end = _range(message, violations)
        mode = _MODES.get(message.mode)
        if mode is None:
            text = f"must be LOAD_MODE_MISSING or LOAD_MODE_FULL, got {message.mode}"
            violations.append(FieldViolation("mode", text))
        violations += _symbols(message.symbols, self._limits.symbols)
        violations += _timeframe(message.timeframe)
        if not violations and self._provider is not None:
            violations += self._provider.check(message.symbols, message.timeframe)
        if violations or mode is None:
            raise InvalidArgumentError(violations)
        request = LoadRequest(tuple(message.symbols), message.timeframe, start, end, mode)
        return LoadOrder(request_id, request)


def check_read(request: pb.ReadBarsRequest) -> tuple[datetime | None, datetime | None]:
    """Return the range to read; raises InvalidArgumentError naming every bad field."""
    violations: list[FieldViolation] = []
    start, end = _range(request, violations)
    if not request.symbol:
        violations.append(FieldViolation("symbol", "is required"))
    violations += _timeframe(request.timeframe)
    if request.limit < 0:
        violations.append(FieldViolation("limit", f"must not be negative, got {request.limit}"))
    if violations:
        raise InvalidArgumentError(violations)
    return start, end


def _symbols(symbols: Sequence[str], most: int) -> list[FieldViolation]:
    if not symbols:
        return [FieldViolation("symbols", "name at least one")]
    if len(symbols) > most:
        text = f"{len(symbols)} symbols; at most {most} are taken."
        return [FieldViolation("symbols", text)]
    found = []
    for index, symbol in enumerate(symbols):
        if not _is_symbol(symbol):
            text = (
                f"must be 1 to {_MAX_SYMBOL} printable characters, "
                f"of at most {_MAX_SYMBOL_BYTES} bytes in UTF-8"
            )
            found.append(FieldViolation(f"symbols[{index}]", text))
        elif symbol in symbols[:index]:
            text = f"{symbol!r} is named twice; leave one out."
            found.append(FieldViolation(f"symbols[{index}]", text))
    return found


def _is_symbol(name: str) -> bool:
    fits = 0 < len(name) <= _MAX_SYMBOL and len(name.encode()) <= _MAX_SYMBOL_BYTES
    return fits and name.isprintable()


def _timeframe(timeframe: str) -> list[FieldViolation]:
    if timeframe in TIMEFRAMES:
        return []
    text = f"must be one of {' '.join(TIMEFRAMES)}, got {timeframe[:20]!r}"
    return [FieldViolation("timeframe", text)]


def _range(
    message: pb.StartDataLoadRequest | pb.ReadBarsRequest, violations: list[FieldViolation]
) -> tuple[datetime | None, datetime | None]:
    start = time_field("start_time", message, violations)
    end = time_field("end_time", message, violations)
    if start and end and start >= end:
        text = f"must be after start_time ({start:%Y-%m-%d %H:%M}); swap or widen them."
        violations.append(FieldViolation("end_time", text))
    return start, end


def _after(token: str) -> tuple[str, timedelta] | None:
    """Return the place in the listing that a page token stands for; None for the first page."""
    position = decode_token(token, (), parts=2)
    if position is None:
        return None
    symbol, timeframe = position
    if timeframe not in TIMEFRAMES:
        text = "is not a next_page_token; leave it empty for the first page"
        raise InvalidArgumentError.of("page_token", text)
    return _place(symbol, timeframe)


def _place(symbol: str, timeframe: str) -> tuple[str, timedelta]:
    """What a listing is sorted by: the symbol, then the length of a bar."""
    return symbol, TIMEFRAMES[timeframe]


def market_data_service(
    servicer: market_data_service_pb2_grpc.MarketDataServiceServicer,
) -> ServedService:
    """The service as whoever has bars, or knows who has, serves it."""
    return ServedService(
        "ktrdr.marketdata.v1.MarketDataService",
        servicer,
        market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
        {"StartDataLoad": START, "ReadBars": STREAM},
    )
