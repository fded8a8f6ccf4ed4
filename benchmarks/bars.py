"""How fast bars are streamed, and what memory that takes.

python -m benchmarks.bars    tables; exit 1 if a target is missed

A series lies in a store and becomes one frame: through the messages of ReadBars
in one process, and through a backend over the loopback address. Memory is the
peak of the process that streams, with a tenth of the bars and with all of them;
whoever reads keeps none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
import pandas as pd

from benchmarks.processes import peak_memory, program, spawned
from benchmarks.rounds import Round, Spread, measure, repeated
from benchmarks.targets import Target, exit_code, judged
from ktrdr.marketdata.v1 import bar_pb2
from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from ktrdr.marketdata.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from shared.marketdata.bars import in_canonical_form
from shared.marketdata.conversion import CHUNK_ROWS, chunks_of, frame_from_chunks
from shared.marketdata.ranges import TimeRange
from shared.marketdata.store import BarStore

ROWS, MANY_ROWS = 100_000, 1_000_000
SERIES = {"SHORT": ROWS, "LONG": MANY_ROWS}
"""Symbols with their bars."""
TIMEFRAME = "1m"
ROUNDS = 20
FIRST = datetime(2015, 1, 1, tzinfo=UTC)
MIB = 1024 * 1024
ROOM = 8 * MIB
"""Bytes the peaks may differ by; the bars they differ by take 41 MiB."""


@contextmanager
def filled_home() -> Iterator[Path]:
    """Give a home whose store holds the series."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        store = _store(home)
        for symbol, rows in SERIES.items():
            covered = TimeRange(FIRST, FIRST + rows * timedelta(minutes=1))
            store.merge(symbol, TIMEFRAME, _bars(rows), covered)
        yield home


def _store(home: Path) -> BarStore:
    """The store where a backend with this home has it."""
    return BarStore(home / "data")


def _bars(rows: int) -> pd.DataFrame:
    """Bars of a minute each, of a price that wanders."""
    chance = np.random.default_rng(7)
    close = 100.0 * np.exp(np.cumsum(chance.normal(0.0, 1e-4, rows)))
    opened = np.concatenate([[100.0], close[:-1]])
    above, below = 1 + chance.uniform(0.0, 1e-3, (2, rows))
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) * above,
        "low": np.minimum(opened, close) / below,
        "close": close,
        "volume": np.floor(chance.uniform(0.0, 1e6, rows)),
    }
    return in_canonical_form(
        pd.DataFrame(columns, index=pd.date_range(FIRST, periods=rows, freq="min"))
    )


def _chunks(store: BarStore, symbol: str) -> Iterator[bar_pb2.BarChunk]:
    """What ReadBars sends of a series."""
    return chunks_of(store.iter_batches(symbol, TIMEFRAME, rows=CHUNK_ROWS))


def _received(stub: MarketDataServiceStub, symbol: str) -> Iterator[bar_pb2.BarChunk]:
    """What ReadBars has sent of a series."""
    request = pb.ReadBarsRequest(symbol=symbol, timeframe=TIMEFRAME)
    return (answer.chunk for answer in stub.ReadBars(request))


# ----------------------------------------------------------------------- speed


def measure_speed(home: Path) -> Mapping[str, Spread]:
    """Time reads of the short series, in one interleaved run."""
    store = _store(home)
    with program("backend", home) as backend, grpc.insecure_channel(backend.address) as channel:
        stub = MarketDataServiceStub(channel)
        whole = store.read("SHORT", TIMEFRAME, None, None)
        pd.testing.assert_frame_equal(whole, frame_from_chunks(_received(stub, "SHORT")))
        subjects = {
            "store": _read(lambda: store.read("SHORT", TIMEFRAME, None, None)),
            "in process": _read(lambda: frame_from_chunks(_chunks(store, "SHORT"))),
            "over loopback": _read(lambda: frame_from_chunks(_received(stub, "SHORT"))),
        }
        return measure(subjects, calls=1, rounds=ROUNDS)


def _read(call: Callable[[], pd.DataFrame]) -> Round:
    def read() -> None:
        assert len(call()) == ROWS

    return repeated(read)


# ---------------------------------------------------------------------- memory


def measure_memory(home: Path) -> Mapping[str, Mapping[str, int]]:
    """Return the peak bytes of a process of its own that streams, by way and symbol."""
    return {
        "in process": {symbol: _peak_in_process(home, symbol) for symbol in SERIES},
        "backend": {symbol: _peak_of_backend(home, symbol) for symbol in SERIES},
    }


def _peak_in_process(home: Path, symbol: str) -> int:
    with spawned(_stream, str(home), symbol) as (peak, _):
        return int(peak)


def _stream(told: Connection, home: str, symbol: str) -> None:
    assert SERIES[symbol] == _drained(_chunks(_store(Path(home)), symbol))
    told.send(peak_memory())
    told.recv()


def _peak_of_backend(home: Path, symbol: str) -> int:
    with program("backend", home) as backend, grpc.insecure_channel(backend.address) as channel:
        assert SERIES[symbol] == _drained(_received(MarketDataServiceStub(channel), symbol))
        return peak_memory(backend.process.pid)


def _drained(chunks: Iterable[bar_pb2.BarChunk]) -> int:
    """Take chunks, keep none, and return how many bars there were."""
    return sum(len(chunk.times) for chunk in chunks)


# --------------------------------------------------------------------- report


def _rate(nanoseconds: float) -> float:
    """Bars per second of a read that took so long."""
    return ROWS / nanoseconds * 1e9


def _targets(speed: Mapping[str, Spread], memory: Mapping[str, Mapping[str, int]]) -> list[Target]:
    here, far = (_rate(speed[name].median) for name in ("in process", "over loopback"))
    return [
        Target("in process at least 1 000 000 bars/s", here >= 1e6, f"{here:,.0f}"),
        Target("over loopback at least 300 000 bars/s", far >= 3e5, f"{far:,.0f}"),
        *(
            Target(
                f"{name}: memory does not grow with the series",
                (grown := peaks["LONG"] - peaks["SHORT"]) < ROOM,
                f"{grown / MIB:+.1f} MiB",
            )
            for name, peaks in memory.items()
        ),
    ]


def report(speed: Mapping[str, Spread], memory: Mapping[str, Mapping[str, int]]) -> bool:
    """Print both; return whether every target is met."""
    print(f"{ROWS} bars to one frame, {ROUNDS} interleaved rounds; bars per second\n")
    print(f"{'':<16}{'median':>12}{'slow 10 %':>12}{'fast 10 %':>12}")
    for name, spread in speed.items():
        rates = (spread.median, spread.high, spread.low)
        print(f"{name:<16}" + "".join(f"{_rate(value):>12,.0f}" for value in rates))
    print(f"\nPeak memory while it streams, MiB\n\n{'':<16}{ROWS:>12} bars{MANY_ROWS:>12} bars")
    for name, peaks in memory.items():
        print(f"{name:<16}" + "".join(f"{peak / MIB:>12.1f}     " for peak in peaks.values()))
    return judged(_targets(speed, memory))


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    with filled_home() as home:
        return exit_code(report(measure_speed(home), measure_memory(home)))


if __name__ == "__main__":
    sys.exit(main())
