"""Loads, bars and series as a backend would answer them."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from backend.cli.bars import Bar, Bars
from ktrdr.marketdata.v1 import bar_pb2
from ktrdr.marketdata.v1 import market_data_service_pb2 as service
from ktrdr.operations.v1 import operation_pb2 as op
from tests.unit.cli.samples import COMPLETED, PENDING, RUNNING

LOAD_ID = "op_data_3f2a9c1b7d4e8a60"
DAY = 86_400
FIRST = int(datetime(2012, 1, 3, tzinfo=UTC).timestamp())
RISES = Bar(FIRST, 10.0, 12.5, 9.5, 12.0, 1_000.0)
FALLS = Bar(FIRST + DAY, 12.0, 12.25, 8.0, 9.0, 2_500.0)


def instant(year: int, month: int, day: int) -> Timestamp:
    """Midnight of a day, UTC."""
    stamp = Timestamp()
    stamp.FromDatetime(datetime(year, month, day, tzinfo=UTC))
    return stamp


def chunk(*bars: Bar) -> bar_pb2.BarChunk:
    """Bars as they are sent."""
    times, *columns = zip(*bars, strict=True)
    names = ("open", "high", "low", "close", "volume")
    return bar_pb2.BarChunk(times=times, **dict(zip(names, columns, strict=True)))


def sent(*bars: Bar) -> service.ReadBarsResponse:
    """An answer of ReadBars."""
    return service.ReadBarsResponse(chunk=chunk(*bars))


def some_bars(count: int, timeframe: str = "1d") -> Bars:
    """Bars that rise and fall in turn, a day each."""
    kept = [
        (RISES if index % 2 == 0 else FALLS)._replace(time=FIRST + index * DAY)
        for index in range(count)
    ]
    return Bars("IBM", timeframe, (chunk(*kept),) if kept else ())


def series(symbol: str = "IBM") -> bar_pb2.Series:
    """What a backend holds of a symbol."""
    covered = bar_pb2.TimeRange(start_time=instant(2004, 8, 19), end_time=instant(2013, 3, 2))
    return bar_pb2.Series(
        symbol=symbol,
        timeframe="1d",
        start_time=instant(2004, 8, 20),
        end_time=instant(2013, 2, 28),
        row_count=2_148,
        gap_count=1,
        covered=[covered],
    )


def load_result(*failed: str) -> bar_pb2.DataLoadResult:
    """The result of a load of IBM and GOOG; the failed ones brought nothing."""
    symbols = [
        bar_pb2.LoadedSymbol(symbol=name, rows_loaded=rows, rows_rejected=3, row_count=2_148)
        for name in ("IBM", "GOOG")
        for rows in [0 if name in failed else 2_000]
    ]
    return bar_pb2.DataLoadResult(
        total_rows_loaded=sum(one.rows_loaded for one in symbols),
        symbols_loaded=len(symbols) - len(failed),
        symbols_failed=[
            bar_pb2.FailedSymbol(symbol=name, error="It is not there.", reason="NO_FILE")
            for name in failed
        ],
        duration=Duration(seconds=2),
        timeframe="1d",
        symbols=symbols,
    )


def loading(
    status: op.OperationStatus.ValueType = RUNNING,
    symbol: str = "",
    number: int = 0,
    rows: int = 0,
    failed: tuple[str, ...] = (),
) -> op.Operation:
    """A load of two symbols in a state, two seconds after its start."""
    operation = op.Operation(
        operation_id=LOAD_ID, type=op.OPERATION_TYPE_DATA_LOADING, status=status
    )
    operation.start_time.FromSeconds(FIRST)
    if symbol:
        progress = operation.progress
        progress.phase, progress.message = "loading", f"Loading {symbol} ({number}/2)"
        progress.percentage, progress.items_processed = 50.0 * (number - 1), rows
        progress.current_step, progress.total_steps = number, 2
        progress.context["current_symbol"] = symbol
        progress.update_time.FromSeconds(FIRST + 2)
    if status == COMPLETED:
        operation.result.Pack(load_result(*failed))
    return operation


def symbol_metric(step: int, symbol: str) -> op.Metric:
    """The metric of a symbol that has been loaded."""
    values = {
        "rows_loaded": 2_000.0,
        "duration": 1.0,
        "validation_time": 0.01,
        "gaps": 1.0,
        "rejected": 3.0,
        "total_rows_loaded": 2_000.0 * step,
        "symbols_completed": float(step),
    }
    return op.Metric(kind="symbol", step=step, values=values, labels={"symbol": symbol})


def started() -> service.StartDataLoadResponse:
    """The answer of StartDataLoad."""
    return service.StartDataLoadResponse(operation=loading(PENDING))
